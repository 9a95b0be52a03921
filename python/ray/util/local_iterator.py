"""`LocalIterator` of `ray.util.iter`: items that come one by one in this process, with stages that transform them."""

from __future__ import annotations

import abc
import copy
import random
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from ray.api import get, remote, wait
from ray.util.annotations import Deprecated
from ray.util.iter_metrics import MetricsContext, SharedMetrics

Stage = Callable[[Iterator[Any]], Iterator[Any]]


def each(fn: Callable[[Any], Any], max_concurrency: int = 1, resources: dict[str, Any] | None = None) -> Stage:
    """Applies `fn`; with `max_concurrency` > 1 in that many tasks at once, and gives results as they are ready."""
    if max_concurrency < 1:
        raise ValueError(f"max_concurrency must be >= 1, got {max_concurrency!r}.")
    if max_concurrency == 1:
        return lambda items: map(fn, items)

    def parallel(items: Iterator[Any]) -> Iterator[Any]:
        task = remote(fn).options(**(resources or {}))
        running: list[Any] = []
        for item in items:
            if len(running) >= max_concurrency:
                ready, running = wait(running)
                yield from get(ready)
            running.append(task.remote(item))
        yield from get(running)

    return parallel


def those(fn: Callable[[Any], bool]) -> Stage:
    """Keeps the items for which `fn` is true."""
    return lambda items: filter(fn, items)


def batches(n: int) -> Stage:
    """Lists of `n` items; the last may be shorter."""
    if n < 1:
        raise ValueError(f"The size of a batch must be >= 1, got {n!r}.")

    def stage(items: Iterator[Any]) -> Iterator[Any]:
        batch = []
        for item in items:
            batch.append(item)
            if len(batch) == n:
                yield batch
                batch = []
        if batch:
            yield batch

    return stage


def flat(items: Iterator[Any]) -> Iterator[Any]:
    """The items of the items."""
    for item in items:
        yield from item


def shuffled(buffer_size: int, seed: int | None = None) -> Stage:
    """In random order, as far as a buffer of that size allows."""
    if buffer_size < 1:
        raise ValueError(f"The size of a shuffle buffer must be >= 1, got {buffer_size!r}.")

    def stage(items: Iterator[Any]) -> Iterator[Any]:
        chooser = random.Random(seed)
        buffer: list[Any] = []
        for item in items:
            buffer.append(item)
            if len(buffer) >= buffer_size:
                yield buffer.pop(chooser.randrange(len(buffer)))
        chooser.shuffle(buffer)
        yield from buffer

    return stage


_It = TypeVar("_It", bound="Staged")


class Staged(abc.ABC):
    """What iterators with stages have in common; derived classes say how a stage is added."""

    @abc.abstractmethod
    def transform(self: _It, fn: Stage, name: str = ".transform()") -> _It:
        """With one more stage: a function from an iterator to an iterator."""

    def for_each(
        self: _It, fn: Callable[[Any], Any], max_concurrency: int = 1, resources: dict[str, Any] | None = None
    ) -> _It:
        """`fn` of each item; with `max_concurrency` > 1 in that many tasks with options `resources`."""
        return self.transform(each(fn, max_concurrency, resources), ".for_each()")

    def filter(self: _It, fn: Callable[[Any], bool]) -> _It:
        """The items for which `fn` is true."""
        return self.transform(those(fn), ".filter()")

    def batch(self: _It, n: int) -> _It:
        """Lists of `n` items."""
        return self.transform(batches(n), f".batch({n})")

    def flatten(self: _It) -> _It:
        """The items of the items."""
        return self.transform(flat, ".flatten()")

    def combine(self: _It, fn: Callable[[Any], Iterable[Any]]) -> _It:
        """The items of `fn` of each item."""
        return self.for_each(fn).flatten()


@Deprecated
class LocalIterator(Staged):
    """An iterator with stages. Iterating over it again begins anew, where the source allows.

    Args:
        base_iterator: makes the source.
        shared_metrics: what its stages count in.
        local_transforms: stages, in order.
        name: for people.
    """

    _current = threading.local()  # the metrics of the iterator that this thread is in

    def __init__(
        self,
        base_iterator: Callable[[], Iterable[Any]],
        shared_metrics: SharedMetrics | None = None,
        local_transforms: list[Stage] | None = None,
        name: str = "LocalIterator",
    ) -> None:
        self.base_iterator = base_iterator
        self.shared_metrics = shared_metrics or SharedMetrics()
        self.local_transforms = local_transforms or []
        self.name = name
        self._built: Iterator[Any] | None = None

    @staticmethod
    def get_metrics() -> MetricsContext:
        """The metrics of the iterator whose stage calls this. Raises ValueError outside of one."""
        metrics: MetricsContext | None = getattr(LocalIterator._current, "metrics", None)
        if metrics is None:
            raise ValueError("Cannot access context outside an iterator.")
        return metrics

    def _run(self) -> Iterator[Any]:
        items: Iterator[Any] | None = None
        while True:
            before = getattr(LocalIterator._current, "metrics", None)
            LocalIterator._current.metrics = self.shared_metrics.get()
            try:
                if items is None:
                    items = iter(self.base_iterator())
                    for stage in self.local_transforms:
                        items = stage(items)
                item = next(items)
            except StopIteration:
                return
            finally:
                LocalIterator._current.metrics = before
            yield item

    def __iter__(self) -> Iterator[Any]:
        self._built = self._run()
        return self._built

    def __next__(self) -> Any:
        if self._built is None:
            self._built = self._run()
        return next(self._built)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_built": None}  # elsewhere it begins anew

    def __str__(self) -> str:
        return repr(self)

    def __repr__(self) -> str:
        return f"LocalIterator[{self.name}]"

    def transform(self, fn: Stage, name: str = ".transform()") -> LocalIterator:
        """With one more stage: a function from an iterator to an iterator."""
        return LocalIterator(
            self.base_iterator, self.shared_metrics, [*self.local_transforms, fn], name=self.name + name
        )

    def shuffle(self, shuffle_buffer_size: int, seed: int | None = None) -> LocalIterator:
        """In random order, by way of a buffer."""
        return self.transform(shuffled(shuffle_buffer_size, seed), f".shuffle({shuffle_buffer_size})")

    def zip_with_source_actor(self) -> LocalIterator:
        """Pairs of the shard's actor that an item came from, and the item."""
        return self.for_each(lambda item: (LocalIterator.get_metrics().current_actor, item))

    def take(self, n: int) -> list[Any]:
        """The first `n` items, or all where there are fewer."""
        return [item for _, item in zip(range(n), self, strict=False)]

    def show(self, n: int = 20) -> None:
        """Prints the first `n` items."""
        for item in self.take(n):
            print(item)

    def duplicate(self, n: int) -> list[LocalIterator]:
        """`n` iterators that each give all items; what only some have taken is kept for the others. n >= 2."""
        if n < 2:
            raise ValueError("Number of copies must be >= 2")
        queues: list[deque[Any]] = [deque() for _ in range(n)]
        source = self._run()

        def copy_of(queue: deque[Any]) -> Iterator[Any]:
            while True:
                if not queue:
                    try:
                        item = next(source)
                    except StopIteration:
                        return
                    for each_queue in queues:
                        each_queue.append(item)
                yield queue.popleft()

        return [
            LocalIterator(lambda q=queue: copy_of(q), self.shared_metrics, name=f"{self.name}.duplicate[{i}]")  # type: ignore[misc]
            for i, queue in enumerate(queues)
        ]

    def union(
        self, *others: LocalIterator, deterministic: bool = False, round_robin_weights: list[Any] | None = None
    ) -> LocalIterator:
        """The items of all, in turn.

        Args:
            deterministic: accepted: the turns are always the same.
            round_robin_weights: how many items of each in a round; "*" for all.

        Raises:
            ValueError: something else than local iterators.
        """
        for other in others:
            if not isinstance(other, LocalIterator):
                raise ValueError(f"other must be of type LocalIterator, got {type(other)}")
        parents = [self, *others]
        weights = round_robin_weights or [1] * len(parents)
        shared = SharedMetrics(parents=[parent.shared_metrics for parent in parents])
        members = [copy.copy(parent) for parent in parents]
        for member in members:
            member._built = None

        def turns() -> Iterator[Any]:
            left = [(member._run(), weight) for member, weight in zip(members, weights, strict=True)]
            while left:
                still = []
                for items, weight in left:
                    for taken, item in enumerate(items, 1):
                        yield item
                        if weight != "*" and taken >= weight:
                            still.append((items, weight))
                            break
                left = still

        return LocalIterator(turns, shared, name=f"LocalUnion[{', '.join(map(repr, parents))}]")
