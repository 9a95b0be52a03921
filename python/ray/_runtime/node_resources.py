"""Sizes of a node that nobody gave: CPUs, GPUs, memory and the object store's share of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

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


def detect(
    num_cpus: float | None,
    num_gpus: float | None,
    memory: int | None,
    object_store_memory: int | None,
    root: Path = Path("/"),
) -> NodeSizes:
    """What is given, else what this machine (or its container) has. `root`: of /proc and /sys, for tests."""
    available = available_memory(root)
    store = (
        int(object_store_memory)
        if object_store_memory is not None
        else max(_STORE_MIN, min(int(available * _STORE_FRACTION), _STORE_CAP))
    )
    return NodeSizes(
        num_cpus=float(num_cpus) if num_cpus is not None else float(cpu_count(root)),
        num_gpus=float(num_gpus) if num_gpus is not None else float(gpu_count(root)),
        memory=int(memory) if memory is not None else max(available - store, _MEMORY_MIN),
        object_store_memory=store,
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


def gpu_count(root: Path = Path("/")) -> int:
    """NVIDIA devices, or as many of them as CUDA_VISIBLE_DEVICES lists."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    try:
        present = len(list((root / "proc/driver/nvidia/gpus").iterdir()))
    except OSError:
        present = 0
    if visible is None:
        return present
    listed = [entry for entry in visible.split(",") if entry.strip() and entry.strip() not in ("-1", "NoDevFiles")]
    return min(present, len(listed))


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
