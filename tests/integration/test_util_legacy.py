"""Parts of ray.util that Ray keeps for old programs: parallel iterators, groups of actors, timers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ray
from ray.util import iter as par
from ray.util.actor_group import ActorGroup
from ray.util.iter import LocalIterator, ParallelIteratorWorker
from ray.util.timer import _Timer


@pytest.fixture(autouse=True, scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    ray.init(num_cpus=4, logging_level="ERROR", log_to_driver=False)
    yield
    ray.shutdown()


def test_stages_run_in_the_shards() -> None:
    it = par.from_range(10, num_shards=2).for_each(lambda x: (x, os.getpid())).filter(lambda pair: pair[0] % 2 == 0)
    found = list(it.gather_sync())
    assert sorted(x for x, _ in found) == [0, 2, 4, 6, 8]
    assert len({pid for _, pid in found} - {os.getpid()}) == 2
    assert it.num_shards() == 2 and it.take(1)[0][0] == 0


def test_ways_of_joining_shards() -> None:
    it = par.from_items(list(range(7)), num_shards=3)
    assert list(it.gather_sync()) == list(range(7))  # dealt out in turn, and gathered so
    assert list(it.batch_across_shards()) == [[0, 1, 2], [3, 4, 5], [6]]
    for options in ({}, {"num_async": 3}, {"batch_ms": 50}):
        assert sorted(it.gather_async(**options)) == list(range(7))
    assert [list(shard) for shard in it.shards()] == [[0, 3, 6], [1, 4], [2, 5]]
    assert ray.get(ray.remote(lambda shard: list(shard)).remote(it.get_shard(1))) == [1, 4]
    assert sorted(it.union(par.from_items([9], 1)).gather_async()) == [*range(7), 9]
    assert sorted(it.select_shards([0, 2]).gather_sync()) == [0, 2, 3, 5, 6]
    assert sorted(it.repartition(2).gather_async()) == list(range(7))
    with pytest.raises(TypeError, match="gather_sync"):
        iter(it)
    for bad in (lambda: it.gather_async(num_async=0), lambda: it.get_shard(3), lambda: it.batch(0)):
        with pytest.raises(ValueError):
            bad()


def test_more_stages() -> None:
    it = par.from_range(8, num_shards=2)
    assert list(it.batch(3).gather_sync()) == [[0, 1, 2], [4, 5, 6], [3], [7]]
    assert sorted(it.batch(3).flatten().gather_sync()) == list(range(8))
    assert sorted(it.combine(lambda x: [x, x]).gather_sync()) == sorted([*range(8), *range(8)])
    assert sorted(it.for_each(lambda x: x + 1, max_concurrency=2, resources={"num_cpus": 0}).gather_sync()) == list(
        range(1, 9)
    )
    shuffled = it.local_shuffle(4, seed=1)
    assert sorted(shuffled.gather_sync()) == list(range(8))
    assert list(shuffled.get_shard(0)) == list(shuffled.get_shard(0))  # the seed says how
    repeated = par.from_items([1, 2], num_shards=1, repeat=True)
    assert repeated.take(5) == [1, 2, 1, 2, 1]


def test_local_iterators() -> None:
    def local(items: Any) -> LocalIterator:
        return LocalIterator(lambda: iter(items))

    assert local([1, 2, 3]).for_each(lambda x: x * 2).batch(2).take(5) == [[2, 4], [6]]
    assert list(local([1, 3]).union(local([2, 4, 5]))) == [1, 2, 3, 4, 5]
    weighted = local([1, 2, 3]).union(local([7, 8]), round_robin_weights=[2, "*"])
    assert list(weighted) == [1, 2, 7, 8, 3]
    first, second = local(range(4)).duplicate(2)
    assert (next(first), list(second), list(first)) == (0, [0, 1, 2, 3], [1, 2, 3])

    def count(x: int) -> int:
        LocalIterator.get_metrics().counters["seen"] += x
        return x

    counting = local([1, 2]).for_each(count)
    joined = counting.union(local([5]))
    assert sorted(joined) == [1, 2, 5]
    assert joined.shared_metrics.get().counters["seen"] == 3
    with pytest.raises(ValueError, match="outside"):
        LocalIterator.get_metrics()


def test_items_know_their_actor_and_own_worker_classes() -> None:
    @ray.remote(num_cpus=0)
    class Worker(ParallelIteratorWorker):
        def __init__(self, n: int) -> None:
            super().__init__(lambda: iter(range(n)), False)

    workers = [Worker.remote(1), Worker.remote(2)]
    pairs = list(par.from_actors(workers).gather_async().zip_with_source_actor())
    assert sorted((workers.index(actor), x) for actor, x in pairs) == [(0, 0), (1, 0), (1, 1)]


def test_a_group_of_actors() -> None:
    class Member:
        def __init__(self, base: int, *, more: int = 0) -> None:
            self.base = base + more

        def add(self, x: int) -> int:
            return self.base + x

        def die(self) -> None:
            os._exit(1)

    group = ActorGroup(Member, num_actors=2, num_cpus_per_actor=0, init_args=(1,), init_kwargs={"more": 1})
    assert ray.get(group.add.remote(5)) == [7, 7]
    assert [m.node_id for m in group.actor_metadata] == [ray.get_runtime_context().get_node_id()] * 2
    group.add_actors(1)
    group.remove_actors([0])
    assert len(group) == 2 and ray.get(group.add.remote(x=1)) == [3, 3]
    with pytest.raises(TypeError, match="remote"):
        group.add(1)
    with pytest.raises(AttributeError):
        group.nothing  # noqa: B018
    kept = group[0].actor
    group.shutdown()
    with pytest.raises(RuntimeError, match="shutdown"):
        group.add.remote(1)
    with pytest.raises(ray.exceptions.ActorDiedError):
        ray.get(kept.add.remote(1), timeout=30)
    group.start()
    assert ray.get(group.add.remote(0)) == [2, 2]
    group.shutdown(patience_s=0)
    for bad in ({"num_actors": 0}, {"num_cpus_per_actor": -1}, {"num_gpus_per_actor": -1}):
        with pytest.raises(ValueError):
            ActorGroup(Member, **bad)


def test_timer(tmp_path: Path) -> None:
    timer = _Timer(window_size=2)
    assert (timer.mean, timer.mean_throughput, timer.has_units_processed()) == (0, 0, False)
    for seconds, units in ((9.0, 9), (1.0, 4), (3.0, 4)):
        timer.push(seconds)
        timer.push_units_processed(units)
    assert (timer.mean, timer.mean_units_processed, timer.mean_throughput, timer.count) == (2, 4, 2, 3)
    with timer:
        pass
    assert timer.count == 4
