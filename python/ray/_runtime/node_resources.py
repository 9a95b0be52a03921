"""Sizes of a node that nobody gave: CPUs, accelerators, memory and the object store's share of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ray._runtime import accelerators

_STORE_FRACTION = 0.3
_STORE_CAP = 200_000_000_000
_STORE_MIN = 75 << 20
_MEMORY_MIN = 100_000_000


class NodeSizes(NamedTuple):
    """In bytes, where they are sizes of memory."""

    num_cpus: float
    num_gpus: float
    memory: int
    object_store_memory: int
    others: dict[str, float]  # resources of other accelerators, and accelerator_type:<kind>


def detect(
    num_cpus: float | None,
    num_gpus: float | None,
    memory: int | None,
    object_store_memory: int | None,
    root: Path = Path("/"),
    resources: dict[str, float] | None = None,
) -> NodeSizes:
    """What is given, else what this machine (or its container) has.

    Args:
        root: of /proc, /sys and /dev, for tests.
        resources: custom ones that are given; accelerators among them are not looked for.
    """
    available = available_memory(root)
    store = (
        int(object_store_memory)
        if object_store_memory is not None
        else max(_STORE_MIN, min(int(available * _STORE_FRACTION), _STORE_CAP))
    )
    given = dict(resources or {})
    if num_gpus is not None:
        given["GPU"] = float(num_gpus)
    found = accelerators.detect(given, root)
    others: dict[str, float] = {name: float(n) for name, n in found.counts.items() if name != "GPU"}
    others |= {f"accelerator_type:{kind}": 1.0 for kind in found.kinds}
    if found.counts.get("TPU"):
        others |= {name: n for name, n in accelerators.slice_resources().items() if name not in given}
    return NodeSizes(
        num_cpus=float(num_cpus) if num_cpus is not None else float(cpu_count(root)),
        num_gpus=float(num_gpus) if num_gpus is not None else float(found.counts.get("GPU", 0)),
        memory=int(memory) if memory is not None else max(available - store, _MEMORY_MIN),
        object_store_memory=store,
        others=others,
    )


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _control_groups(root: Path, controller: str) -> Iterator[Path]:
    """Folders of the control groups that this process is in, from the innermost outwards, of both versions.

    In a container the paths may be those of the host, whose folders are not to be seen here; the top folder is then the
    container's own group.
    """
    for line in _read(root / "proc/self/cgroup").splitlines() or ["0::/"]:
        _, names, path = line.split(":", 2)
        if names == "":
            top = root / "sys/fs/cgroup"
        elif controller in names.split(","):
            top = root / "sys/fs/cgroup" / controller
        else:
            continue
        group = top / path.lstrip("/")
        yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(top))


def _number(path: Path) -> int | None:
    text = _read(path).strip()
    return int(text) if text.isdigit() else None  # "max", "-1": no limit


def cpu_count(root: Path = Path("/")) -> int:
    """CPUs this process may use: affinity, bounded by the quotas of its control groups."""
    count = len(os.sched_getaffinity(0))
    for group in _control_groups(root, "cpu"):
        quota, _, period = _read(group / "cpu.max").partition(" ")
        if not quota:
            quota, period = _read(group / "cpu.cfs_quota_us").strip(), _read(group / "cpu.cfs_period_us")
        if quota.isdigit() and period.strip().isdigit() and int(period):
            count = min(count, max(1, int(quota) // int(period)))
    return count


def available_memory(root: Path = Path("/")) -> int:
    """Memory not in use, bounded by the limits of this process's control groups."""
    available = 0
    for line in _read(root / "proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            available = int(line.split()[1]) * 1024
    for group in _control_groups(root, "memory"):
        for limit_file, used_file in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            limit = _number(group / limit_file)
            if limit is not None:
                free = max(limit - (_number(group / used_file) or 0), 0)
                available = min(available, free) if available else free
    return available
