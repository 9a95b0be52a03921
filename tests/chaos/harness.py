"""Runs workloads and killers side by side, and tells whether all was right: results, waits, what is left behind."""

from __future__ import annotations

import faulthandler
import os
import pathlib
import random
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from chaos.killers import ChaosCluster, Killer, describe_session
from chaos.workloads import Workload
from support.processes import wait_until

import ray


@dataclass
class Outcome:
    """Of one run.

    Attributes:
        rounds, kills: how many, by kind.
        failures: tracebacks of what went wrong; none: all was right.
    """

    seed: str
    seconds: float = 0.0
    rounds: dict[str, int] = field(default_factory=dict)
    kills: dict[str, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        def line(title: str, counts: dict[str, int]) -> str:
            return f"{title}: " + ", ".join(f"{name} {count}" for name, count in counts.items())

        head = f"seed {self.seed}, {self.seconds:.0f} s"
        return "\n".join([head, line("rounds", self.rounds), line("kills", self.kills), *self.failures])


class _Runner(threading.Thread):
    def __init__(
        self, kind: type[Workload], seed: str, folder: pathlib.Path, deadline_s: float, over: threading.Event
    ) -> None:
        super().__init__(name=kind.__name__, daemon=True)
        self.kind = kind
        self.rounds = 0
        self.failure = ""
        self._arguments = (random.Random(f"{seed}/{kind.__name__}"), folder, deadline_s)
        self._over = over

    def run(self) -> None:
        try:
            workload = self.kind(*self._arguments)
            while not self._over.is_set():
                workload.run_round()
                self.rounds += 1
            workload.end()
        except BaseException:
            self.failure = f"{self.name} in round {self.rounds}:\n{traceback.format_exc()}"


def run_chaos(
    cluster: Any,
    workloads: Sequence[type[Workload]],
    killers: Sequence[type[Killer]],
    *,
    seed: str,
    seconds: float,
    folder: pathlib.Path,
    deadline_s: float = 60,
    pace: float = 1.0,
    meanwhile: Callable[[], None] = lambda: None,
) -> Outcome:
    """The workloads run for so many seconds under the killers; REQUIRES: connected as a driver.

    Args:
        deadline_s: of each single wait; who waits longer hangs.
        cluster: what the killers work on.
        pace: divides the pauses between kills.
        meanwhile: called every now and then.
    """
    outcome = Outcome(seed)
    began = time.monotonic()
    over = threading.Event()
    runners = [_Runner(kind, seed, folder, deadline_s, over) for kind in workloads]
    killing = [kind(cluster, seed, pace) for kind in killers]
    for thread in (*runners, *killing):
        thread.start()
    try:
        while (
            time.monotonic() < began + seconds
            and not any(r.failure for r in runners)
            and not any(k.error for k in killing)
        ):
            time.sleep(0.2)
            meanwhile()
    finally:
        over.set()
        for killer in killing:
            killer.stop()
    deadline = time.monotonic() + 2 * deadline_s
    for killer in killing:
        killer.join(max(0.0, deadline - time.monotonic()))
        if killer.is_alive():
            outcome.failures.append(f"the killer of {killer.name} hangs")
        if killer.error is not None:
            outcome.failures.append("".join(traceback.format_exception(killer.error)))
    for runner in runners:
        runner.join(max(0.0, deadline - time.monotonic()))
        if runner.is_alive():
            outcome.failures.append(f"{runner.name} hangs in round {runner.rounds}")
        if runner.failure:
            outcome.failures.append(runner.failure)
    outcome.seconds = time.monotonic() - began
    outcome.rounds = {runner.name: runner.rounds for runner in runners}
    outcome.kills = {killer.name: killer.kills for killer in killing}
    return outcome


def dump(root: pathlib.Path, where: pathlib.Path) -> None:
    """What helps to understand a failure: stacks of this process, and the ends of all logs."""
    with where.open("w") as out:
        faulthandler.dump_traceback(out, all_threads=True)
        for name, text in describe_session(root).items():
            out.write(f"\n===== {name}\n{text}")
    print(f"stacks and logs are in {where}", file=sys.stderr)


def wait_idle(cluster: ChaosCluster, timeout: float) -> None:
    """Until everything that ran has given back what it had: processors, placement groups, memory of the stores."""
    cpus = ray.cluster_resources()["CPU"]
    wait_until(lambda: ray.available_resources().get("CPU") == cpus, timeout, "the CPUs to come back")
    groups = ray.util.placement_group_table()
    assert {group["state"] for group in groups.values()} <= {"REMOVED"}, groups

    def memory() -> bool:
        total, free = ray.cluster_resources(), ray.available_resources()
        # What a driver leaves in its own store's slab is a matter of a few hundred kilobytes.
        return total["object_store_memory"] - free.get("object_store_memory", 0) < 4 << 20

    wait_until(memory, timeout, "the memory of the stores to come back")


def open_descriptors(pid: int | None = None) -> int:
    return len(os.listdir(f"/proc/{pid or os.getpid()}/fd"))
