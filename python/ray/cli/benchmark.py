"""`ray microbenchmark`: how fast small operations are, by the rows and method of Ray's own, so that figures compare."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ray.api import get, init, is_initialized, put, remote, shutdown, wait
from ray.cluster_utils import Cluster
from ray.util.placement_group import placement_group, remove_placement_group

Result = tuple[str, float, float] | None  # name, mean and deviation of the rate; None: left out
Row = tuple[str, Callable[[], Any], float]  # name, what is called, how many operations that is

_ROUNDS = 4
_GIGA = 100 * 1024 * 1024  # elements of eight bytes, taken for 0.8 GB
_BATCH = 1000


@dataclasses.dataclass(frozen=True)
class Timing:
    """Seconds before each row, of its warm-up, and of each of its rounds."""

    settle: float = 10.0
    warm_up: float = 1.0
    round: float = 2.0


@remote
def small_value() -> bytes:
    return b"ok"


@remote
def small_values(count: int) -> None:
    get([small_value.remote() for _ in range(count)])


@remote
def put_small(count: int) -> None:
    for _ in range(count):
        put(0)


@remote
def put_large(count: int, elements: int) -> None:
    for _ in range(count):
        put(np.zeros(elements, dtype=np.int64))


@remote
def many_refs(count: int) -> list[Any]:
    return [put(1) for _ in range(count)]


@remote
def call_in_turn(actors: list[Any], count: int) -> None:
    get([actors[i % len(actors)].small_value.remote() for i in range(count)])


class Server:
    def small_value(self) -> bytes:
        return b"ok"

    def small_value_arg(self, x: Any) -> bytes:
        return b"ok"

    def small_value_batch(self, count: int) -> None:
        get([small_value.remote() for _ in range(count)])


class AsyncServer:
    async def small_value(self) -> bytes:
        return b"ok"

    async def small_value_with_arg(self, x: Any) -> bytes:
        return b"ok"


class Client:
    """Calls its servers."""

    def __init__(self, servers: list[Any]) -> None:
        self.servers = servers

    def small_value_batch(self, count: int) -> None:
        get([server.small_value.remote() for server in self.servers for _ in range(count)])

    def small_value_batch_arg(self, count: int) -> None:
        x = put(0)
        get([server.small_value_arg.remote(x) for server in self.servers for _ in range(count)])


_SERVER: Any = remote(num_cpus=0)(Server)
_ASYNC_SERVER: Any = remote(AsyncServer)
_CLIENT: Any = remote(num_cpus=0)(Client)


def _wait_for_each(count: int) -> None:
    rest, fetch = [small_value.remote() for _ in range(count)], True
    while rest:
        _, rest = wait(rest, fetch_local=fetch)
        fetch = False


def _calls(actor: Any) -> Callable[[], Any]:
    return lambda: get([actor.small_value.remote() for _ in range(_BATCH)])


def _put(elements: int) -> Callable[[], Any]:
    value = np.zeros(elements, dtype=np.int64)
    return lambda: put(value)


def _local_rows() -> Iterator[Row]:
    """On the cluster that this process is connected to, one at a time: what a row needs is made when its turn comes."""
    servers = max(1, multiprocessing.cpu_count() // 2)
    ref = put(0)
    yield "single client get calls (Plasma Store)", lambda: get(ref), 1
    yield "single client put calls (Plasma Store)", lambda: put(0), 1
    yield "multi client put calls (Plasma Store)", lambda: get([put_small.remote(100) for _ in range(10)]), 1000
    yield "single client put gigabytes", _put(_GIGA), 0.8
    yield "single client tasks and get batch", lambda: get([small_value.remote() for _ in range(_BATCH)]), 1
    yield "multi client put gigabytes", lambda: get([put_large.remote(10, _GIGA // 10) for _ in range(10)]), 8.0
    refs = many_refs.remote(10_000)
    yield "single client get object containing 10k refs", lambda: get(refs), 1
    yield "single client wait 1k refs", lambda: _wait_for_each(_BATCH), 1
    yield "single client tasks sync", lambda: get(small_value.remote()), 1
    yield "single client tasks async", lambda: get([small_value.remote() for _ in range(_BATCH)]), _BATCH
    four = [_SERVER.remote() for _ in range(4)]
    yield "multi client tasks async", lambda: get([a.small_value_batch.remote(10_000) for a in four]), 40_000
    one = _SERVER.remote()
    yield "1:1 actor calls sync", lambda: get(one.small_value.remote()), 1
    yield "1:1 actor calls async", _calls(one), _BATCH
    yield "1:1 actor calls concurrent", _calls(_SERVER.options(max_concurrency=16).remote()), _BATCH
    several = [_SERVER.remote() for _ in range(servers)]
    client = _CLIENT.remote(several)
    yield "1:n actor calls async", lambda: get(client.small_value_batch.remote(5000)), 5000 * servers
    yield "n:n actor calls async", lambda: get([call_in_turn.remote(several, 5000) for _ in range(4)]), 20_000
    pairs = [_CLIENT.remote([_SERVER.remote()]) for _ in range(servers)]
    with_arg = "n:n actor calls with arg async"
    yield with_arg, lambda: get([c.small_value_batch_arg.remote(_BATCH) for c in pairs]), _BATCH * servers
    coroutine = _ASYNC_SERVER.remote()
    yield "1:1 async-actor calls sync", lambda: get(coroutine.small_value.remote()), 1
    yield "1:1 async-actor calls async", _calls(coroutine), _BATCH
    yield (
        "1:1 async-actor calls with args async",
        lambda: get([coroutine.small_value_with_arg.remote(i) for i in range(_BATCH)]),
        _BATCH,
    )
    coroutines = [_ASYNC_SERVER.remote() for _ in range(servers)]
    of_async = _CLIENT.remote(coroutines)
    yield "1:n async-actor calls async", lambda: get(of_async.small_value_batch.remote(5000)), 5000 * servers
    in_turn = "n:n async-actor calls async"
    yield in_turn, lambda: get([call_in_turn.remote(coroutines, 5000) for _ in range(4)]), 20_000


def _group_rows() -> Iterator[Row]:
    def create_and_remove() -> None:
        groups = [placement_group([{"custom": 0.001}]) for _ in range(100)]
        for group in groups:
            group.wait(30)
        for group in groups:
            remove_placement_group(group)

    yield "placement group create/removal", create_and_remove, 100


def _client_rows() -> Iterator[Row]:
    ref = put(0)
    yield "client: get calls", lambda: get(ref), 1
    yield "client: put calls", lambda: put(0), 1
    yield "client: put gigabytes", _put(_GIGA), 0.8
    yield "client: tasks and put batch", lambda: get([put_small.remote(100) for _ in range(10)]), 1000
    one = _SERVER.remote()
    yield "client: 1:1 actor calls sync", lambda: get(one.small_value.remote()), 1
    yield "client: 1:1 actor calls async", _calls(one), _BATCH
    yield "client: 1:1 actor calls concurrent", _calls(_SERVER.options(max_concurrency=16).remote()), _BATCH
    yield "client: tasks and get batch", lambda: get([small_value.remote() for _ in range(_BATCH)]), 1


def _is_wanted(name: str) -> bool:
    run, skip = os.environ.get("TESTS_TO_RUN"), os.environ.get("TESTS_TO_SKIP")
    return (not run or run in name) and not (skip and skip in name)


def _time(row: Row, timing: Timing) -> Result:
    name, call, operations = row
    if not _is_wanted(name):
        return None
    time.sleep(timing.settle)  # what earlier rows left behind ends
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < timing.warm_up or count == 0:
        call()
        count += 1
    step = count // 10 + 1
    rates = []
    for _ in range(_ROUNDS):
        start, count = time.perf_counter(), 0
        while time.perf_counter() - start < timing.round:
            for _ in range(step):
                call()
            count += step
        rates.append(operations * count / (time.perf_counter() - start))
    mean, deviation = statistics.mean(rates), statistics.pstdev(rates)
    print(f"{name} per second {mean:.2f} +- {deviation:.2f}", flush=True)
    return name, mean, deviation


def main(results: list[Result] | None = None, timing: Timing | None = None) -> list[Result]:
    """Runs all rows, or those that TESTS_TO_RUN and TESTS_TO_SKIP leave, prints their rates, and returns them.

    Args:
        results: taken over in front of what is returned.

    Raises:
        RuntimeError: this process is connected already: the rows start clusters of their own.
    """
    if is_initialized():
        raise RuntimeError("ray.shutdown() first: the microbenchmark starts clusters of its own.")
    timing, results = timing or Timing(), list(results or [])
    for rows, resources in ((_local_rows, {}), (_group_rows, {"custom": 100.0})):
        init(address="local", resources=resources)
        try:
            results += [_time(row, timing) for row in rows()]
        finally:
            shutdown()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": multiprocessing.cpu_count()})
    try:
        init(f"ray://{cluster.address}")
        results += [_time(row, timing) for row in _client_rows()]
    finally:
        shutdown()
        cluster.shutdown()
    return results
