"""One cluster with very many of each at the same time: placement groups, live actors, queued tasks. Tells what each
costs, by process.

    python tests/perf/scale.py [--groups 1000] [--actors 2000] [--tasks 1000000] [--json FILE]

Memory is the proportional set size (shared pages count once, in parts). Actors are real processes.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import resource
import time
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group


def pss(pid: int) -> int:
    """Proportional memory of a process in bytes; 0 if it has gone."""
    try:
        text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")) * 1024


def cpu(pid: int) -> float:
    """Seconds of processor time of a process, its threads included."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def descendants(root: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(entry.name))
    found, queue = [], [root]
    while queue:
        for pid in children.get(queue.pop(), []):
            found.append(pid)
            queue.append(pid)
    return found


def name(pid: int) -> str:
    try:
        words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return "gone"
    program = os.path.basename(words[0].decode(errors="replace"))
    if program in ("raylet", "gcs_server"):
        return program
    return "zygote" if any(b"zygote" in word for word in words) else "worker"


class Watch:
    """The cluster's processes by kind, since the driver's start."""

    def __init__(self) -> None:
        self.driver = os.getpid()

    def pids(self) -> dict[str, list[int]]:
        kinds: dict[str, list[int]] = {"driver": [self.driver]}
        for pid in descendants(self.driver):
            kinds.setdefault(name(pid), []).append(pid)
        return kinds

    def memory(self) -> dict[str, int]:
        return {kind: sum(map(pss, pids)) for kind, pids in self.pids().items()}

    def cpu(self) -> dict[str, float]:
        return {kind: sum(map(cpu, pids)) for kind, pids in self.pids().items()}


def per_item(before: dict[str, int], after: dict[str, int], count: int) -> dict[str, int]:
    kinds = ("driver", "raylet", "gcs_server")
    return {kind: round((after.get(kind, 0) - before.get(kind, 0)) / count) for kind in kinds}


def measure_groups(watch: Watch, count: int) -> tuple[dict[str, object], list[PlacementGroup]]:
    before = watch.memory()
    begin = time.monotonic()
    groups = [placement_group([{"CPU": 0.001}]) for _ in range(count)]
    for group in groups:
        assert group.wait(60)
    took = time.monotonic() - begin
    result: dict[str, object] = {"count": count, "create_per_s": round(count / took)}
    result["bytes_each"] = per_item(before, watch.memory(), count)
    begin = time.monotonic()
    waiting = [placement_group([{"CPU": 1000}]) for _ in range(count)]  # fits nowhere: each waits
    assert not waiting[-1].wait(1)
    result["waiting"] = count
    for group in waiting:
        remove_placement_group(group)
    return result, groups


def remove_groups(groups: list[PlacementGroup], result: dict[str, object]) -> None:
    begin = time.monotonic()
    for group in groups:
        remove_placement_group(group)
    result["remove_per_s"] = round(len(groups) / (time.monotonic() - begin))


def measure_actors(watch: Watch, count: int) -> tuple[dict[str, object], list[Any]]:
    @ray.remote(num_cpus=0)
    class Counter:
        def __init__(self) -> None:
            self.n = 0

        def add(self) -> int:
            self.n += 1
            return self.n

    before = watch.memory()
    begin = time.monotonic()
    actors: list[Any] = []
    for first in range(0, count, 100):  # in batches: what a program that makes many would do, too
        batch = [Counter.remote() for _ in range(min(100, count - first))]
        ray.get([actor.add.remote() for actor in batch], timeout=120)
        actors += batch
    took = time.monotonic() - begin
    after = watch.memory()
    workers = round((after["worker"] - before.get("worker", 0)) / count)
    begin = time.monotonic()
    assert ray.get([actor.add.remote() for actor in actors], timeout=120) == [2] * count
    round_trip = time.monotonic() - begin
    time.sleep(2)  # what follows the calls: leases that go back, reports
    begin_cpu, begin = watch.cpu(), time.monotonic()
    time.sleep(5)
    seconds = time.monotonic() - begin
    idle = {kind: round((used - begin_cpu.get(kind, 0)) / seconds * 100, 2) for kind, used in watch.cpu().items()}
    files = {
        kind: max(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids)
        for kind, pids in watch.pids().items()
        if kind != "gone"
    }
    result: dict[str, object] = {
        "count": count,
        "create_per_s": round(count / took, 1),
        "one_call_each_s": round(round_trip, 2),
        "bytes_each": per_item(before, after, count) | {"worker": workers},
        "idle_percent_of_a_core": idle,
        "most_descriptors": files,
    }
    return result, actors


def measure_tasks(watch: Watch, count: int, actors: list[Any]) -> dict[str, object]:
    @ray.remote
    def nothing() -> None:
        pass

    @ray.remote
    def hold(path: str) -> None:
        while not os.path.exists(path):
            time.sleep(0.05)

    # All processors are held while the tasks are submitted: each is queued with its owner, some with the raylet.
    release = os.path.join("/tmp", f"scale-{os.getpid()}")
    holders = [hold.remote(release) for _ in range(int(ray.cluster_resources()["CPU"]))]
    time.sleep(1)
    before = watch.memory()
    begin = time.monotonic()
    refs = [nothing.remote() for _ in range(count)]
    submit = time.monotonic() - begin
    after = watch.memory()
    begin = time.monotonic()
    assert ray.get([actor.add.remote() for actor in actors], timeout=120) == [3] * len(actors)
    beside = time.monotonic() - begin  # all of them are there, and all tasks wait
    pathlib.Path(release).touch()
    begin = time.monotonic()
    try:
        ray.get(holders, timeout=60)
        ray.get(refs, timeout=600)
    finally:
        os.unlink(release)
    drain = time.monotonic() - begin
    done = watch.memory()
    del refs
    return {
        "count": count,
        "submit_per_s": round(count / submit),
        "drain_per_s": round(count / drain),
        "one_call_to_each_actor_meanwhile_s": round(beside, 2),
        "memory_of_all_mib": {kind: round(size / 2**20) for kind, size in after.items()},
        "bytes_each_queued": per_item(before, after, count),
        "bytes_each_done": per_item(before, done, count),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", type=int, default=1000)
    parser.add_argument("--actors", type=int, default=2000)
    parser.add_argument("--tasks", type=int, default=1_000_000)
    parser.add_argument("--json", help="write the figures there, too")
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # one connection to each actor
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
    watch = Watch()
    result: dict[str, dict[str, object]] = {}
    result["placement_groups"], groups = measure_groups(watch, options.groups)
    result["actors"], actors = measure_actors(watch, options.actors)
    result["tasks"] = measure_tasks(watch, options.tasks, actors)
    remove_groups(groups, result["placement_groups"])
    del actors
    for what, figures in result.items():
        print(what, json.dumps(figures), flush=True)
    begin = time.monotonic()
    ray.shutdown()
    print(f"shutdown took {time.monotonic() - begin:.2f} s", flush=True)
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
