"""Slices of TPUs: whole groups of hosts with an interconnect of their own, reserved together.

A node that is part of a slice says so by itself, from the environment that GKE sets (TPU_NAME, TPU_WORKER_ID,
TPU_TOPOLOGY, TPU_ACCELERATOR_TYPE): it has labels with the slice's name, topology and type and its own number in it,
and the first host of a slice has the resource `TPU-<type>-head`. Whoever holds that resource has the slice.
"""

from __future__ import annotations

import math
import os
import re
from typing import Any

import ray.api
from ray._runtime.accelerators import TPU_POD_TYPE_LABEL, TPU_SLICE_NAME_LABEL, TPU_TOPOLOGY_LABEL, detect
from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table, remove_placement_group

_NAMED_BY_CORES = ("v2", "v3", "v4", "v5p")  # their types count cores, two for each chip
_UP_TO_8_CHIPS = ("v5litepod", "v6e")  # a single host may have 1, 4 or 8 chips
_CHIPS_PER_HOST = 4
_HEAD_TIMEOUT_S = 100.0


def get_tpu_version_from_type(accelerator_type: str) -> str:
    """ "TPU-V4" -> "v4". Raises ValueError for what is no type of TPU."""
    found = re.fullmatch(r"TPU-(V\d+\w*)", accelerator_type)
    if found is None:
        raise ValueError(f"{accelerator_type!r} is no type of TPU, such as 'TPU-V4'.")
    return found[1].lower()


def _chips(topology: str) -> int:
    if not re.fullmatch(r"\d+(x\d+){1,2}", topology):
        raise ValueError(f"A topology is written as '2x4' or '2x2x2', got {topology!r}.")
    return math.prod(int(side) for side in topology.split("x"))


def get_chips_per_host(topology: str, accelerator_version: str) -> int:
    """How many chips each host of such a slice has. Raises ValueError for a bad topology."""
    chips = _chips(topology)
    if accelerator_version in _UP_TO_8_CHIPS and chips <= 8:
        return chips
    return min(chips, _CHIPS_PER_HOST)


def _pod_type(topology: str, accelerator_version: str) -> str:
    chips = _chips(topology)
    return f"{accelerator_version}-{2 * chips if accelerator_version in _NAMED_BY_CORES else chips}"


def get_current_pod_name() -> str | None:
    """The name of the slice that this host is part of, or None."""
    return os.environ.get("TPU_NAME") or None


def get_current_pod_worker_count() -> int | None:
    """How many hosts the slice of this host has, or None."""
    hosts = os.environ.get("TPU_WORKER_HOSTNAMES")
    return len(hosts.split(",")) if hosts else None


def get_num_tpu_chips_on_node() -> int:
    """How many chips this host has and lets this process see."""
    return detect({}).counts.get("TPU", 0)


def get_tpu_coordinator_env_vars(
    coordinator_address: str, num_slices: int, slice_id: int, coordinator_port: str = "8081"
) -> dict[str, str]:
    """The environment by which the workers of several slices find each other."""
    return {
        "MEGASCALE_COORDINATOR_ADDRESS": coordinator_address,
        "MEGASCALE_PORT": str(coordinator_port),
        "MEGASCALE_NUM_SLICES": str(num_slices),
        "MEGASCALE_SLICE_ID": str(slice_id),
    }


def get_tpu_worker_resources(
    topology: str, accelerator_type: str, resources_per_unit: dict[str, float] | None = None, num_slices: int = 1
) -> tuple[int, dict[str, float]]:
    """How many workers fill so many slices, and what each takes: a host, unless `resources_per_unit` has fewer chips.

    Raises:
        ValueError: the chips of a slice cannot be shared out so.
    """
    per_host = get_chips_per_host(topology, get_tpu_version_from_type(accelerator_type))
    unit = {"TPU": float(per_host), **(resources_per_unit or {})}
    chips = unit["TPU"]
    if chips <= 0 or per_host % chips:
        raise ValueError(f"{per_host} chips of a host cannot be shared out in units of {chips:g}.")
    return int(_chips(topology) // chips) * num_slices, unit


def get_tpu_num_slices_for_workers(
    topology: str, accelerator_type: str, num_workers: int, resources_per_worker: dict[str, float] | None = None
) -> int:
    """How many slices so many workers need."""
    per_slice, _ = get_tpu_worker_resources(topology, accelerator_type, resources_per_worker)
    return max(1, math.ceil(num_workers / per_slice))


class SlicePlacementGroup:
    """One or several slices, reserved as one placement group with a bundle for each host.

    Args:
        topology: of a slice, such as "2x2x2".
        accelerator_version: such as "v4".
        strategy, name, lifetime: as of `placement_group`.
        num_slices: how many of them.

    Raises:
        ValueError: a bad argument.
        TimeoutError: there are not so many free slices of the kind.
    """

    def __init__(
        self,
        topology: str,
        accelerator_version: str,
        strategy: str = "SPREAD",
        name: str = "",
        lifetime: str | None = None,
        num_slices: int = 1,
    ) -> None:
        if num_slices < 1:
            raise ValueError(f"num_slices must be >= 1, got {num_slices!r}.")
        self.topology = topology.strip().lower()
        self.accelerator_version = accelerator_version.strip().lower()
        self.num_slices = num_slices
        self.chips_per_host = get_chips_per_host(self.topology, self.accelerator_version)
        self.num_hosts = max(1, _chips(self.topology) // self.chips_per_host) * num_slices
        self.num_bundles = self.num_hosts
        self.bundle_resources = {"TPU": float(self.chips_per_host)}
        self.head_placement_groups: list[PlacementGroup] = []
        try:
            self.slice_names = self._take_heads(lifetime)
            self.bundle_label_selector = [
                {TPU_SLICE_NAME_LABEL: slice_name}
                for slice_name in self.slice_names
                for _ in range(self.num_hosts // num_slices)
            ]
            self.placement_group = placement_group(
                [dict(self.bundle_resources) for _ in range(self.num_bundles)],
                strategy=strategy,
                name=name,
                lifetime=lifetime,
                bundle_label_selector=self.bundle_label_selector,
            )
        except BaseException:
            self._give_heads_back()
            raise

    def _take_heads(self, lifetime: str | None) -> list[str]:
        """Holds the first hosts of that many free slices; the names of the slices."""
        pod_type = _pod_type(self.topology, self.accelerator_version)
        selector = {TPU_POD_TYPE_LABEL: pod_type, TPU_TOPOLOGY_LABEL: self.topology}
        for _ in range(self.num_slices):
            head = placement_group([{f"TPU-{pod_type}-head": 1}], lifetime=lifetime, bundle_label_selector=[selector])
            self.head_placement_groups.append(head)
        names = []
        for head in self.head_placement_groups:
            if not head.wait(_HEAD_TIMEOUT_S):
                raise TimeoutError(
                    f"{self.num_slices} slice(s) {pod_type} of topology {self.topology} were not free "
                    f"within {_HEAD_TIMEOUT_S:.0f} s."
                )
            [node_id] = placement_group_table(head)["bundles_to_node_id"].values()
            [labels] = [node["Labels"] for node in ray.api.nodes() if node["NodeID"] == node_id]
            names.append(labels[TPU_SLICE_NAME_LABEL])
        return names

    def _give_heads_back(self) -> None:
        for head in self.head_placement_groups:
            remove_placement_group(head)
        self.head_placement_groups = []

    def shutdown(self) -> None:
        """Gives the slices back. What runs in the placement group ends."""
        remove_placement_group(self.placement_group)
        self._give_heads_back()


def slice_placement_group(topology: str, accelerator_version: str, **kwargs: Any) -> SlicePlacementGroup:
    """Reserves slices; see `SlicePlacementGroup`."""
    return SlicePlacementGroup(topology, accelerator_version, **kwargs)
