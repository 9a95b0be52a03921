"""Options that are made anew for each call: what belongs to them goes with them, in the caller and in the worker."""

from __future__ import annotations

import gc
import pathlib
from collections.abc import Callable, Iterator

import pytest

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy


def own_bytes() -> int:
    """Memory of this process that is not shared."""
    status = pathlib.Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("RssAnon:")[2].split()[0])


@ray.remote
def memory() -> int:
    return own_bytes()


@ray.remote
class Counter:
    def one(self) -> int:
        return 1

    def memory(self) -> int:
        return own_bytes()


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    # Names of the tasks that are remembered are, too: few, so that the first calls fill that.
    ray.init(num_cpus=1, logging_level="ERROR", _system_config={"max_ended_tasks_per_owner": 1000})
    yield
    ray.shutdown()


def growth(work: Callable[[int], None], others: Callable[[], int], first: int, count: int) -> tuple[int, int]:
    """Bytes that this process and another have grown by in calls of `work`, after `first` that fill what is bounded.

    The smaller growth of two times `count` calls: a table that doubles once is no leak.
    """
    seen = []
    done = 0
    for more in (first, count, count):
        for n in range(done, done + more):
            work(n)
        done += more
        gc.collect()
        seen.append((own_bytes(), others()))
    return min(seen[1][0] - seen[0][0], seen[2][0] - seen[1][0]), min(seen[1][1] - seen[0][1], seen[2][1] - seen[1][1])


def test_names_of_tasks(cluster: None) -> None:
    def work(n: int) -> None:
        refs = [memory.options(name=f"task-{n}-{i}").remote() for i in range(50)]
        ray.get(refs, timeout=60)

    # 4,000 names are more than any of the tables that know them holds.
    ours, workers = growth(work, lambda: ray.get(memory.remote(), timeout=60), 100, 80)
    assert ours < 1_500_000
    assert workers < 1_500_000


def test_names_of_calls(cluster: None) -> None:
    actor = Counter.remote()

    def work(n: int) -> None:
        ray.get([actor.one.options(name=f"call-{n}-{i}").remote() for i in range(50)], timeout=60)

    ours, workers = growth(work, lambda: ray.get(actor.memory.remote(), timeout=60), 100, 80)
    assert ours < 1_500_000
    assert workers < 1_500_000
    ray.kill(actor)


def test_placement_groups(cluster: None) -> None:
    nothing = ray.remote(
        lambda: None
    )  # travels by value: each group's worker is a new one, and need not load this file

    def work(n: int) -> None:
        # Many fit beside each other: that the node's share of a removed group is told to the GCS takes a moment.
        group = ray.util.placement_group([{"CPU": 0.01}])
        inside = PlacementGroupSchedulingStrategy(group)
        ray.get(nothing.options(num_cpus=0.01, scheduling_strategy=inside).remote(), timeout=60)
        ray.util.remove_placement_group(group)

    ours, _ = growth(work, lambda: 0, 300, 300)
    assert ours < 1_000_000


def test_equal_options_are_told_once(cluster: None) -> None:
    """Tasks of equal options share what was learnt of them, however often the options are made."""
    node = ray.get_runtime_context().get_node_id()

    def work(n: int) -> None:
        affinity = NodeAffinitySchedulingStrategy(node, soft=False)
        refs = [memory.options(num_returns=1, scheduling_strategy=affinity).remote() for _ in range(50)]
        ray.get(refs, timeout=60)

    ours, workers = growth(work, lambda: ray.get(memory.remote(), timeout=60), 20, 40)
    assert ours < 500_000
    assert workers < 500_000
