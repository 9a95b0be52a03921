"""Sizes of a node that nobody gave: CPUs, accelerators, memory and the object store's share of it."""

from __future__ import annotations

import os
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


def cpu_count(root: Path = Path("/")) -> int:
    """CPUs this process may use: affinity, bounded by the cgroup's quota."""
    count = len(os.sched_getaffinity(0))
    quota, _, period = _read(root / "sys/fs/cgroup/cpu.max").partition(" ")
    if quota.isdigit() and period.strip().isdigit() and int(period):
        count = min(count, max(1, int(quota) // int(period)))
    return count


def available_memory(root: Path = Path("/")) -> int:
    """Memory not in use, bounded by the cgroup's limit."""
    available = 0
    for line in _read(root / "proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            available = int(line.split()[1]) * 1024
    limit = _read(root / "sys/fs/cgroup/memory.max").strip()
    used = _read(root / "sys/fs/cgroup/memory.current").strip()
    if limit.isdigit():
        free = int(limit) - (int(used) if used.isdigit() else 0)
        available = min(available, max(free, 0)) if available else free
    return available
