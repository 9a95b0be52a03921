"""Arguments of tasks that wait for a node are fetched there meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from support.nodes import HandCluster
from support.processes import wait_until

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

MB = 1 << 20
ClusterOf = Callable[..., HandCluster]


def nodes_of(ref: ray.ObjectRef) -> set[str]:
    return set(ray.experimental.get_object_locations([ref])[ref]["node_ids"])


def last(array: np.ndarray) -> int:
    return int(array[-1])


def test_arguments_come_while_their_task_is_queued(cluster_of: ClusterOf, tmp_path: Path) -> None:
    cluster = cluster_of(2)
    cluster.connect()
    there = NodeAffinitySchedulingStrategy(cluster.node_id(1), soft=False)
    ready, go = tmp_path / "ready", tmp_path / "go"

    def hold() -> None:
        ready.touch()
        while not go.exists():
            time.sleep(0.01)

    holder = ray.remote(hold).options(scheduling_strategy=there).remote()
    wait_until(ready.exists, 60, "the processor is taken")
    ref = ray.put(np.full(20 * MB, 7, np.uint8))
    waiting = ray.remote(last).options(scheduling_strategy=there).remote(ref)
    wait_until(lambda: cluster.node_id(1) in nodes_of(ref), 60, "the argument is there before the task runs")
    assert ray.wait([waiting], timeout=0)[0] == []
    go.touch()
    assert ray.get(waiting, timeout=60) == 7
    ray.get(holder, timeout=60)


def test_a_cancelled_task_leaves_no_copy_that_nobody_frees(cluster_of: ClusterOf, tmp_path: Path) -> None:
    cluster = cluster_of(2)
    cluster.connect()
    there = NodeAffinitySchedulingStrategy(cluster.node_id(1), soft=False)
    ready, go = tmp_path / "ready", tmp_path / "go"

    @ray.remote(num_cpus=0)
    class Observer:
        def used(self) -> int:
            import json

            from ray._core.gcs import node_stats
            from ray._runtime.session import require_session

            return int(json.loads(node_stats(require_session().core))["store"]["used"])

    observer = Observer.options(scheduling_strategy=there).remote()

    def hold() -> None:
        ready.touch()
        while not go.exists():
            time.sleep(0.01)

    holder = ray.remote(hold).options(scheduling_strategy=there).remote()
    wait_until(ready.exists, 60, "the processor is taken")
    refs = [ray.put(np.full(20 * MB, 7, np.uint8))]
    refs.append(ray.remote(last).options(scheduling_strategy=there).remote(refs[0]))
    wait_until(lambda: cluster.node_id(1) in nodes_of(refs[0]), 60, "the argument is there")
    ray.cancel(refs[1])
    refs.clear()
    wait_until(lambda: ray.get(observer.used.remote(), timeout=60) < MB, 20, "the copy is freed")
    go.touch()
    ray.get(holder, timeout=60)
