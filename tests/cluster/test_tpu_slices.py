"""`ray.util.tpu` on nodes that say they are hosts of slices."""

from __future__ import annotations

import pytest

import ray
from ray.cluster_utils import Cluster
from ray.util import tpu
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy


def add_slice(cluster: Cluster, name: str) -> set[str]:
    """A v4-16: two hosts with four chips each. The ids of their nodes."""
    made = set()
    for host in range(2):
        resources = {"TPU": 4, name: 1} | ({"TPU-v4-16-head": 1} if host == 0 else {})
        labels = {
            "ray.io/tpu-slice-name": name,
            "ray.io/tpu-worker-id": str(host),
            "ray.io/tpu-topology": "2x2x2",
            "ray.io/tpu-pod-type": "v4-16",
        }
        made.add(cluster.add_node(num_cpus=1, resources=resources, labels=labels).node_id)
    return made


def test_slices_are_taken_whole(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster.add_node(num_cpus=1)
    hosts = {name: add_slice(cluster, name) for name in ("slice-a", "slice-b")}
    ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)

    @ray.remote(num_cpus=0, resources={"TPU": 4})
    def where() -> str:
        return ray.get_runtime_context().get_node_id()

    def nodes_of(taken: tpu.SlicePlacementGroup) -> set[str]:
        assert taken.placement_group.wait(30)
        indices = range(taken.num_bundles)
        group = taken.placement_group
        strategies = [PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=i) for i in indices]
        return set(ray.get([where.options(scheduling_strategy=s).remote() for s in strategies], timeout=30))

    first = tpu.slice_placement_group("2x2x2", "v4")
    assert (first.num_hosts, first.chips_per_host, first.bundle_resources) == (2, 4, {"TPU": 4.0})
    second = tpu.slice_placement_group("2x2x2", "v4", name="other")
    assert nodes_of(first) == hosts[first.slice_names[0]]
    assert nodes_of(second) == hosts[second.slice_names[0]]
    assert first.slice_names != second.slice_names
    monkeypatch.setattr(tpu, "_HEAD_TIMEOUT_S", 0.3)
    with pytest.raises(TimeoutError, match="v4-16"):
        tpu.slice_placement_group("2x2x2", "v4")
    monkeypatch.undo()
    first.shutdown()
    second.shutdown()
    both = tpu.slice_placement_group("2x2x2", "v4", num_slices=2)
    assert sorted(both.slice_names) == ["slice-a", "slice-b"]
    assert nodes_of(both) == hosts["slice-a"] | hosts["slice-b"]
