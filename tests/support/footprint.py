"""What the processes of a node hold, measured from the outside while a load runs, for tests that nothing leaks."""

from __future__ import annotations

import os
import pathlib
from typing import NamedTuple

from support.processes import command_line, descendants


def anonymous_bytes(pid: int) -> int:
    """Memory of the process that no file backs, and so grows by what it keeps."""
    for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Anonymous:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"no Anonymous line for {pid}")


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def threads(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/task"))


def engine_pids() -> dict[str, int]:
    """The driver, its raylet, its GCS and the zygote that its workers come from."""
    found = {"driver": os.getpid()}
    for pid in descendants(os.getpid()):
        try:
            name = pathlib.Path(f"/proc/{pid}/comm").read_text().strip()
        except OSError:  # a worker that has ended meanwhile
            continue
        if name in ("raylet", "gcs_server"):
            found[name] = pid
        elif b"zygote" in command_line(pid):
            found.setdefault("zygote", pid)  # the first: what it forks looks like it for a moment, and comes after it
    return found


class Sample(NamedTuple):
    done: int
    memory: dict[str, int]  # of each process


class MemoryTrack:
    """Memory of the engine's processes in the course of a load."""

    def __init__(self) -> None:
        self.pids = engine_pids()
        self.samples: list[Sample] = []

    def take(self, done: int) -> None:
        """After `done` items of the load."""
        self.samples.append(Sample(done, {name: anonymous_bytes(pid) for name, pid in self.pids.items()}))

    def grown(self) -> dict[str, int]:
        """Bytes, from the first sample to the last."""
        first, last = self.samples[0].memory, self.samples[-1].memory
        return {name: last[name] - first[name] for name in self.pids}

    def slopes(self) -> dict[str, float]:
        """Bytes for each item, by a line through the second half, when all that is bounded should be full."""
        half = self.samples[len(self.samples) // 2 :]
        mean_x = sum(sample.done for sample in half) / len(half)
        spread = sum((sample.done - mean_x) ** 2 for sample in half)
        return {
            name: sum((sample.done - mean_x) * sample.memory[name] for sample in half) / spread for name in self.pids
        }

    def __str__(self) -> str:
        rows = [
            f"{sample.done:>9}  " + "  ".join(f"{name} {memory / 2**20:6.2f}" for name, memory in sample.memory.items())
            for sample in self.samples
        ]
        slopes = ", ".join(f"{name} {slope:+.1f}" for name, slope in self.slopes().items())
        return "\n".join(["MiB of anonymous memory", *rows, f"bytes per item in the second half: {slopes}"])
