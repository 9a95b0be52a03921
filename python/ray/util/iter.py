"""Parallel iterators: items in shards, each of which an actor iterates over and transforms.

    it = from_range(1000, num_shards=4).for_each(lambda x: x * 2).batch(10)
    for batch in it.gather_async(): ...

Deprecated in Ray in favour of Ray Data; here for the programs that use it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from ray.api import get, remote, wait
from ray.util.annotations import Deprecated
from ray.util.local_iterator import LocalIterator as LocalIterator
from ray.util.local_iterator import Stage, Staged, shuffled


class ParallelIteratorWorker:
    """Iterates over one shard, inside an actor. Actors whose class derives from this can be given to `from_actors`.

    Args:
        item_generator: the items, or a function without arguments that makes an iterator over them.
        repeat: begin anew at the end.
    """

    def __init__(self, item_generator: Any, repeat: bool) -> None:
        def items() -> Iterator[Any]:
            while True:
                yield from item_generator() if callable(item_generator) else item_generator
                if not repeat:
                    return

        self._source = items
        self._items: Iterator[Any] = iter(())
        self._slices: list[list[Any]] = []  # what was fetched for the readers of single slices, by their number
        self._exhausted = False

    def par_iter_init(self, transforms: list[Stage]) -> None:
        """Begins, with these stages."""
        self._items = self._source()
        for stage in transforms:
            self._items = stage(self._items)
        self._slices, self._exhausted = [], False

    def par_iter_next(self) -> Any:
        """The next item. Raises StopIteration at the end."""
        return next(self._items)

    def par_iter_next_batch(self, batch_ms: int) -> list[Any]:
        """As many items as come within that time, at least one. Raises StopIteration at the end."""
        return _batch(self.par_iter_next, batch_ms)

    def par_iter_slice(self, step: int, start: int) -> Any:
        """The next item of those number `start`, `start + step`, ... Raises StopIteration at the end."""
        if not self._slices:
            self._slices = [[] for _ in range(step)]
        mine = self._slices[start]
        if not mine and not self._exhausted:
            for number in range(step):
                try:
                    self._slices[number].append(next(self._items))
                except StopIteration:
                    self._exhausted = True
                    break
        if not mine:
            raise StopIteration
        return mine.pop(0)

    def par_iter_slice_batch(self, step: int, start: int, batch_ms: int) -> list[Any]:
        """As many items of a slice as come within that time, at least one. Raises StopIteration at the end."""
        return _batch(lambda: self.par_iter_slice(step, start), batch_ms)


def _worker(item_generator: Any, repeat: bool) -> Any:
    return remote(ParallelIteratorWorker).options(num_cpus=0).remote(item_generator, repeat)


def _batch(take: Callable[[], Any], batch_ms: int) -> list[Any]:
    until = time.monotonic() + batch_ms / 1000
    batch = [take()]
    while time.monotonic() < until:
        try:
            batch.append(take())
        except StopIteration:
            break
    return batch


class _ActorSet:
    """Actors with the same stages."""

    def __init__(self, actors: list[Any], transforms: list[Stage]) -> None:
        self.actors = actors
        self.transforms = transforms

    def start(self) -> None:
        get([actor.par_iter_init.remote(self.transforms) for actor in self.actors])


def _gathered(
    actors: list[Any], fetch: Callable[[Any], Any], num_async: int, current: Callable[[Any], None]
) -> Iterator[Any]:
    """Items of the batches that `fetch` asks actors for, as they become ready, with so many under way for each."""
    pending = {fetch(actor): actor for actor in actors for _ in range(num_async)}
    while pending:
        [ready], _ = wait(list(pending), num_returns=1)
        actor = pending.pop(ready)
        try:
            batch = get(ready)
        except StopIteration:
            continue
        pending[fetch(actor)] = actor
        current(actor)
        yield from batch


@Deprecated
class ParallelIterator(Staged):
    """Items in shards. It cannot be iterated over directly: `gather_sync` and `gather_async` say how to join shards."""

    def __init__(self, actor_sets: list[_ActorSet], name: str, parent_iterators: list[ParallelIterator]) -> None:
        self.actor_sets = actor_sets
        self.name = name
        self.parent_iterators = parent_iterators  # keeps their actors alive

    def __iter__(self) -> Iterator[Any]:
        raise TypeError(
            "You must use it.gather_sync() or it.gather_async() to iterate over the results of a ParallelIterator."
        )

    def __str__(self) -> str:
        return repr(self)

    def __repr__(self) -> str:
        return f"ParallelIterator[{self.name}]"

    def transform(self, fn: Stage, name: str = ".transform()") -> ParallelIterator:
        """With one more stage in each shard: a function from an iterator to an iterator."""
        sets = [_ActorSet(s.actors, [*s.transforms, fn]) for s in self.actor_sets]
        return ParallelIterator(sets, self.name + name, [self])

    def local_shuffle(self, shuffle_buffer_size: int, seed: int | None = None) -> ParallelIterator:
        """Each shard in random order, by way of a buffer."""
        return self.transform(shuffled(shuffle_buffer_size, seed), f".local_shuffle({shuffle_buffer_size})")

    def repartition(self, num_partitions: int, batch_ms: int = 0) -> ParallelIterator:
        """The items in so many new shards; each takes its part of every old one."""
        actors = self._started()

        def part(index: int) -> Callable[[], Iterator[Any]]:
            def items() -> Iterator[Any]:
                return _gathered(
                    actors,
                    lambda actor: actor.par_iter_slice_batch.remote(num_partitions, index, batch_ms),
                    1,
                    lambda actor: None,
                )

            return items

        made = [_worker(part(index), False) for index in range(num_partitions)]
        return ParallelIterator([_ActorSet(made, [])], f"{self.name}.repartition[{num_partitions}]", [self])

    def gather_sync(self) -> LocalIterator:
        """Items of all shards, one of each in turn."""
        it = self.batch_across_shards().flatten()
        it.name = f"{self}.gather_sync()"
        return it

    def batch_across_shards(self) -> LocalIterator:
        """Lists of one item of each shard; shorter once some have ended."""

        def rounds() -> Iterator[Any]:
            metrics = LocalIterator.get_metrics()
            active = self._started()
            while active:
                refs = [(actor, actor.par_iter_next.remote()) for actor in active]
                active, results = [], []
                for actor, ref in refs:
                    try:
                        results.append(get(ref))
                    except StopIteration:
                        continue
                    active.append(actor)
                    metrics.current_actor = actor
                if results:
                    yield results

        return LocalIterator(rounds, name=f"{self}.batch_across_shards()")

    def gather_async(self, batch_ms: int = 0, num_async: int = 1) -> LocalIterator:
        """Items of all shards as they come.

        Args:
            batch_ms: a shard sends together what it makes in so many milliseconds.
            num_async: batches under way for each shard.

        Raises:
            ValueError: a number out of range.
        """
        if num_async < 1:
            raise ValueError("queue depth must be positive")
        if batch_ms < 0:
            raise ValueError("batch time must be positive")

        def items() -> Iterator[Any]:
            metrics = LocalIterator.get_metrics()
            return _gathered(
                self._started(),
                lambda actor: actor.par_iter_next_batch.remote(batch_ms),
                num_async,
                lambda actor: setattr(metrics, "current_actor", actor),
            )

        return LocalIterator(items, name=f"{self}.gather_async()")

    def _started(self) -> list[Any]:
        for actor_set in self.actor_sets:
            actor_set.start()
        return self._actors

    @property
    def _actors(self) -> list[Any]:
        return [actor for actor_set in self.actor_sets for actor in actor_set.actors]

    def take(self, n: int) -> list[Any]:
        """The first `n` items."""
        return self.gather_sync().take(n)

    def show(self, n: int = 20) -> None:
        """Prints the first `n` items."""
        self.gather_sync().show(n)

    def union(self, other: ParallelIterator) -> ParallelIterator:
        """The shards of both. Raises TypeError for something else."""
        if not isinstance(other, ParallelIterator):
            raise TypeError(f"other must be of type ParallelIterator, got {type(other)}")
        sets = [*self.actor_sets, *other.actor_sets]
        return ParallelIterator(sets, f"ParallelUnion[{self}, {other}]", [self, other])

    def select_shards(self, shards_to_keep: list[int]) -> ParallelIterator:
        """The shards at these positions. Raises ValueError for more than one set of actors, as a union has."""
        if len(self.actor_sets) > 1:
            raise ValueError("select_shards() is not supported after union()")
        only = self.actor_sets[0]
        kept = _ActorSet([only.actors[i] for i in shards_to_keep], only.transforms)
        return ParallelIterator([kept], f"{self}.select_shards({len(shards_to_keep)} total)", [self])

    def num_shards(self) -> int:
        """How many there are."""
        return len(self._actors)

    def shards(self) -> list[LocalIterator]:
        """One iterator for each shard."""
        return [self.get_shard(index) for index in range(self.num_shards())]

    def get_shard(self, shard_index: int, batch_ms: int = 0, num_async: int = 1) -> LocalIterator:
        """An iterator over one shard, which can be passed to a task. Raises ValueError for a number out of range."""
        if num_async < 1:
            raise ValueError("num async must be positive")
        if batch_ms < 0:
            raise ValueError("batch time must be positive")
        found = [(actor, s.transforms) for s in self.actor_sets for actor in s.actors]
        if not 0 <= shard_index < len(found):
            raise ValueError(f"Shard index must be in 0..{len(found) - 1}, got {shard_index}.")
        actor, transforms = found[shard_index]

        def items() -> Iterator[Any]:
            metrics = LocalIterator.get_metrics()
            get(actor.par_iter_init.remote(transforms))
            return _gathered(
                [actor],
                lambda actor: actor.par_iter_next_batch.remote(batch_ms),
                num_async,
                lambda actor: setattr(metrics, "current_actor", actor),
            )

        return LocalIterator(items, name=f"{self.name}.shard[{shard_index}]")


@Deprecated
def from_items(items: list[Any], num_shards: int = 2, repeat: bool = False) -> ParallelIterator:
    """The items of a list, dealt out to the shards in turn."""
    shards = [items[index::num_shards] for index in range(num_shards)]
    name = f"from_items[{items and type(items[0]).__name__}, {len(items)}, shards={num_shards}"
    made: ParallelIterator = from_iterators(shards, repeat, name=name + (", repeat=True]" if repeat else "]"))
    return made


@Deprecated
def from_range(n: int, num_shards: int = 2, repeat: bool = False) -> ParallelIterator:
    """0, ..., n - 1, in as many runs as there are shards."""
    size = n // num_shards
    bounds = [(i * size, n if i == num_shards - 1 else (i + 1) * size) for i in range(num_shards)]
    name = f"from_range[{n}, shards={num_shards}{', repeat=True' if repeat else ''}]"
    made: ParallelIterator = from_iterators([range(start, end) for start, end in bounds], repeat, name=name)
    return made


@Deprecated
def from_iterators(generators: list[Any], repeat: bool = False, name: str | None = None) -> ParallelIterator:
    """A shard for each of them: an iterable, or a function without arguments that makes an iterator."""
    actors = [_worker(generator, repeat) for generator in generators]
    return ParallelIterator([_ActorSet(actors, [])], name or f"from_iterators[shards={len(generators)}]", [])


@Deprecated
def from_actors(actors: list[Any], name: str | None = None) -> ParallelIterator:
    """A shard for each actor; their class derives from `ParallelIteratorWorker`."""
    return ParallelIterator([_ActorSet(actors, [])], name or f"from_actors[shards={len(actors)}]", [])
