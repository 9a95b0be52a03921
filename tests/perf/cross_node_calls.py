"""Calls of an actor on another node of the same host, and what they cost; placement groups over both nodes.

    python tests/perf/cross_node_calls.py [--seconds 1] [--threads] [--peer PYTHON]

Two raylets by `ray.cluster_utils.Cluster`, the driver on one, the actor on the other. Public API only, so that it
runs unchanged on any package that can be imported as `ray`; `--peer` runs it on another interpreter as well, in between
our rounds, and prints the ratios. `--threads` shows for every thread what a call costs: processor time and voluntary
waits, which other load changes little.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

WINDOW = 1000
GROUPS = 50  # at a time

Threads = dict[tuple[int, int], tuple[str, int, int]]


def thread_costs() -> Threads:
    """By process and thread: name, ns on a processor, voluntary waits; of this process and all below it."""
    parents: dict[int, int] = {}
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError):
                continue
    found: Threads = {}
    for pid in parents:
        above = pid
        while above not in (0, 1, os.getpid()):
            above = parents.get(above, 0)
        if above != os.getpid():
            continue
        for task in pathlib.Path(f"/proc/{pid}/task").glob("*"):
            try:
                process = pathlib.Path(f"/proc/{pid}/comm").read_text().strip()
                name = f"{pid} {process}/{(task / 'comm').read_text().strip()}"
                ran = int((task / "schedstat").read_text().split()[0])
                status = (task / "status").read_text()
            except OSError:
                continue
            waits = int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])
            found[pid, int(task.name)] = (name, ran, waits)
    return found


def show_costs(before: Threads, after: Threads, calls: int) -> None:
    total = 0.0
    for key, (name, ran, waits) in sorted(after.items(), key=lambda item: item[1][0]):
        ran -= before.get(key, ("", 0, 0))[1]
        waits -= before.get(key, ("", 0, 0))[2]
        total += ran / calls / 1e3
        if ran / calls > 200 or waits / calls > 0.02:
            print(f"    {name:40} {ran / calls / 1e3:8.2f} us {waits / calls:7.3f} waits", file=sys.stderr)
    print(f"    {'all':40} {total:8.2f} us", file=sys.stderr)


def measure(seconds: float, threads: bool) -> dict[str, float]:
    import ray
    from ray.cluster_utils import Cluster
    from ray.util.placement_group import placement_group, remove_placement_group

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.add_node(num_cpus=1, resources={"other": 1})
    ray.init(address=cluster.address, logging_level="ERROR")

    @ray.remote(num_cpus=0)
    class Echo:
        def node(self) -> str:
            return ray.get_runtime_context().get_node_id()

        def call(self) -> None:
            pass

    actor = Echo.options(resources={"other": 0.01}).remote()
    assert ray.get(actor.node.remote()) != ray.get_runtime_context().get_node_id()
    rows: dict[str, float] = {}

    def run(name: str, body: Callable[[], int]) -> list[float]:
        """Seconds of every round; `body` tells how many calls a round has."""
        warm = time.perf_counter() + seconds / 4
        while time.perf_counter() < warm:
            body()
        rounds, calls = [], 0
        before = thread_costs() if threads else {}
        end = time.perf_counter() + seconds
        while (start := time.perf_counter()) < end:
            calls += body()
            rounds.append(time.perf_counter() - start)
        if threads:
            print(f"  {name}", file=sys.stderr)
            show_costs(before, thread_costs(), calls)
        return sorted(rounds)

    def synchronous() -> int:
        ray.get(actor.call.remote())
        return 1

    def pipelined() -> int:
        ray.get([actor.call.remote() for _ in range(WINDOW)])
        return WINDOW

    def groups() -> int:
        made = [placement_group([{"CPU": 0.001}] * 2, strategy="STRICT_SPREAD") for _ in range(GROUPS)]
        for group in made:
            assert group.wait(timeout_seconds=30)
        for group in made:
            remove_placement_group(group)
        return GROUPS

    got = run("one at a time", synchronous)
    rows["one at a time, p50 us"] = statistics.median(got) * 1e6
    rows["one at a time, p99 us"] = got[int(len(got) * 0.99)] * 1e6
    got = run("pipelined", pipelined)
    rows["pipelined, 1/s"] = WINDOW * len(got) / sum(got)
    got = run("groups over both nodes", groups)
    rows["groups over both, 1/s"] = GROUPS * len(got) / sum(got)
    ray.shutdown()
    cluster.shutdown()
    return rows


def run_on(python: str, arguments: list[str]) -> dict[str, float]:
    done = subprocess.run(
        [python, __file__, "--json", *arguments],
        cwd="/",
        env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0"},
        check=True,
        stdout=subprocess.PIPE,
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1, help="of each row")
    parser.add_argument("--threads", action="store_true", help="show the cost of every thread")
    parser.add_argument("--peer", help="another interpreter to run it on")
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    options: Any = parser.parse_args()
    if not options.peer:
        rows = measure(options.seconds, options.threads)
        if options.json:
            print(json.dumps(rows))
        else:
            for name, value in rows.items():
                print(f"{name:24} {value:10,.0f}")
        return
    extra = ["--seconds", str(options.seconds)]
    ours = run_on(sys.executable, extra)
    peer = run_on(options.peer, extra)
    again = run_on(sys.executable, extra)
    for name, value in ours.items():
        pick = min if name.endswith("us") else max
        best = pick(value, again[name])
        ratio = peer[name] / best if pick is min else best / peer[name]
        print(f"{name:24} {value:10,.0f} {again[name]:10,.0f}   peer {peer[name]:10,.0f}   ratio {ratio:6.1f}")


if __name__ == "__main__":
    main()
