"""Objects of several nodes: fetched, listed, freed, made again when a node dies."""

from __future__ import annotations

import gc
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.nodes import HandCluster
from support.processes import wait_until

import ray
from ray.cluster_utils import Cluster
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from ray.util.state import WaitState, explain

MB = 1 << 20
ClusterOf = Callable[..., HandCluster]


def big(value: int, mb: int = 20) -> np.ndarray:
    return np.full(mb * MB, value, np.uint8)


@ray.remote(num_cpus=0)
class Runner:
    """Runs functions in a process of its node."""

    def run(self, function: Callable[..., Any], *args: Any) -> Any:
        return function(*args)

    @ray.method(max_task_retries=3)
    def run_again(self, function: Callable[..., Any], *args: Any) -> Any:
        return function(*args)


def on(number: int, **options: Any) -> Any:
    """A process on that node."""
    return Runner.options(resources={f"n{number}": 0.01}, **options).remote()


def nodes_of(ref: ray.ObjectRef) -> set[str]:
    return set(ray.experimental.get_object_locations([ref])[ref]["node_ids"])


def used() -> int:
    """Bytes in the store of the node where it runs."""
    from ray._core.gcs import node_stats
    from ray._runtime.session import require_session

    return int(json.loads(node_stats(require_session().core))["store"]["used"])


def last(array: np.ndarray) -> int:
    return int(array[-1])


def test_a_task_whose_argument_is_on_its_way_can_be_cancelled(cluster_of: ClusterOf) -> None:
    cluster = cluster_of(2)
    cluster.connect()
    here = NodeAffinitySchedulingStrategy(cluster.node_id(0), soft=False)

    @ray.remote(scheduling_strategy=here)
    def run(data: Any) -> int:
        return os.getpid()

    @ray.remote(num_cpus=0, resources={"n1": 0.01})
    def make() -> np.ndarray:
        return big(1)

    data = make.remote()
    ray.wait([data], timeout=30, fetch_local=False)
    worker = ray.get(run.remote(0), timeout=30)
    os.kill(cluster.raylets[1].popen.pid, signal.SIGSTOP)
    try:
        late = run.remote(data)
        wait_until(lambda: explain(late).chain()[-1].state is WaitState.RUNNING, 30, "a worker has taken it")
        ray.cancel(late)
        with pytest.raises(ray.exceptions.TaskCancelledError):
            ray.get(late, timeout=5)
        assert ray.get(run.remote(0), timeout=30) == worker
    finally:
        os.kill(cluster.raylets[1].popen.pid, signal.SIGCONT)


def test_values_travel_between_nodes_and_copies_are_listed(cluster_of: ClusterOf) -> None:
    cluster = cluster_of(2)
    cluster.connect()
    there = on(1)
    ref = there.run.remote(big, 7)
    ready, _ = ray.wait([ref], timeout=60, fetch_local=False)
    assert ready == [ref] and nodes_of(ref) == {cluster.node_id(1)}
    assert ray.wait([ref], timeout=60)[0] == [ref]
    assert nodes_of(ref) == {cluster.node_id(0), cluster.node_id(1)}
    assert ray.get(ref, timeout=60)[-1] == 7
    put = ray.put(big(3))
    assert ray.get(there.run.remote(last, put), timeout=60) == 3
    wait_until(lambda: nodes_of(put) == {cluster.node_id(0), cluster.node_id(1)}, 20, "the copy is listed")


def test_copies_go_from_every_node_with_the_last_reference(cluster_of: ClusterOf) -> None:
    cluster = cluster_of(2)
    cluster.connect()
    there = on(1)
    ref = there.run.remote(big, 7)
    ray.get(ref, timeout=60)
    assert used() >= 20 * MB and ray.get(there.run.remote(used), timeout=60) >= 20 * MB
    del ref
    gc.collect()
    wait_until(lambda: used() < MB and ray.get(there.run.remote(used), timeout=60) < MB, 20, "both copies are freed")


def test_a_value_on_a_node_that_dies_is_made_again(cluster_of: ClusterOf, tmp_path: Path) -> None:
    log = tmp_path / "runs"

    def make(log: Path) -> np.ndarray:
        with open(log, "a") as f:
            f.write("x")
        return big(8)

    cluster = cluster_of(1)
    doomed = cluster.add_raylet("--resources", "fragile=1")
    cluster.connect()
    maker = Runner.options(resources={"fragile": 0.1}, max_restarts=1).remote()
    ref, lost = maker.run_again.remote(make, log), maker.run.remote(big, 1)
    ray.wait([ref, lost], num_returns=2, timeout=60, fetch_local=False)
    cluster.add_raylet("--resources", "fragile=1")
    doomed.end()
    assert ray.get(ref, timeout=60)[-1] == 8
    assert log.read_text() == "xx"
    with pytest.raises(ray.exceptions.ObjectReconstructionFailedError, match="RETRIES_DISABLED"):
        ray.get(lost, timeout=60)


def test_another_copy_is_enough_when_a_node_dies(cluster_of: ClusterOf) -> None:
    cluster = cluster_of(3)
    cluster.connect()
    ref = on(1).run.remote(big, 5)
    assert ray.get(on(2).run.remote(last, ref), timeout=60) == 5
    wait_until(lambda: len(nodes_of(ref)) == 2, 20, "two copies")
    cluster.raylets[1].end()
    assert ray.get(ref, timeout=60)[-1] == 5


def test_what_a_dead_node_owned_is_lost_soon(cluster_of: ClusterOf) -> None:
    cluster = cluster_of(2)
    cluster.connect()
    owner = on(1)  # kept: an actor without handles ends, and hands over what it owns
    [inner] = ray.get(owner.run.remote(lambda: [ray.put(big(1))]), timeout=60)
    cluster.raylets[1].end()
    began = time.monotonic()
    with pytest.raises(ray.exceptions.OwnerDiedError):
        ray.get(inner, timeout=60)
    assert time.monotonic() - began < 5


def test_one_value_for_many_nodes(cluster_of: ClusterOf) -> None:
    cluster = cluster_of(4)
    cluster.connect()
    ref = ray.put(big(9, 40))
    assert ray.get([on(i).run.remote(last, ref) for i in range(4)], timeout=90) == [9] * 4
    assert len(nodes_of(ref)) == 4


def test_more_values_than_the_store_holds(cluster_of: ClusterOf) -> None:
    cluster = cluster_of(2)
    cluster.connect()
    there = on(1)
    refs = [there.run.remote(big, i) for i in range(8)]
    assert [last(ray.get(ref, timeout=60)) for ref in refs] == list(range(8))
    assert [last(array) for array in ray.get(refs, timeout=60)] == list(range(8))


def test_that_an_object_is_on_the_disk_of_another_node_is_known(cluster: Cluster) -> None:
    cluster.add_node(num_cpus=1)
    cluster.add_node(num_cpus=0, object_store_memory=100 * MB, resources={"n1": 1})
    ray.init(address=cluster.address, log_to_driver=False)

    @ray.remote(num_cpus=0, resources={"n1": 0.01})
    def make(value: int) -> np.ndarray:
        return big(value, 30)

    def spilled(refs: list[ray.ObjectRef]) -> list[bool]:
        return [place["did_spill"] for place in ray.experimental.get_object_locations(refs).values()]

    here, small = ray.put(big(1)), ray.put(1)
    first = make.remote(0)
    ray.wait([first], timeout=60, fetch_local=False)
    assert spilled([here, small, first]) == [False, False, False]
    refs = [first] + [make.remote(i) for i in range(1, 6)]
    ray.wait(refs, num_returns=6, timeout=60, fetch_local=False)
    wait_until(lambda: sum(spilled(refs)) >= 3, 30, "its node has room for three")
    assert spilled([here, small]) == [False, False]
    told = spilled(refs)

    def told_of(now: list[bool]) -> bool:
        """Those that were, and perhaps more meanwhile."""
        return all(after for before, after in zip(told, now, strict=True) if before)

    assert told_of([place["did_spill"] for place in ray.experimental.get_local_object_locations(refs).values()])
    borrower = Runner.remote()
    assert told_of(ray.get(borrower.run.remote(spilled, refs), timeout=60))
    # It is on disk still when it is in memory again, and it has a second copy.
    lost = refs[told.index(True)]
    assert ray.get(lost, timeout=60)[-1] == refs.index(lost)
    places = ray.experimental.get_object_locations([lost])[lost]
    assert places["did_spill"] is True
    assert len(places["node_ids"]) == 2
