"""ActorPool: a fixed set of actors that share work."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ray.api import get, wait
from ray.exceptions import ActorDiedError

_Submit = Callable[[Any, Any], Any]  # (actor, value) -> ref


class ActorPool:
    """Gives each value to an actor that is free; values queue up while all are busy.

    Not thread-safe. An actor that is found dead leaves the pool.
    """

    def __init__(self, actors: list[Any]) -> None:
        self._idle: deque[Any] = deque(actors)
        self._in_flight: dict[int, tuple[Any, Any]] = {}  # number of the submission -> ref, actor; in this order
        self._waiting: deque[tuple[int, _Submit, Any]] = deque()
        self._submitted = 0
        self._next = 0  # number of the result that get_next returns

    def map(self, fn: _Submit, values: Iterable[Any]) -> Iterator[Any]:
        """Results of fn(actor, value) in the order of the values. Results of earlier submissions are discarded."""
        return self._map(fn, values, self.get_next)

    def map_unordered(self, fn: _Submit, values: Iterable[Any]) -> Iterator[Any]:
        """As `map`, in the order in which they become ready."""
        return self._map(fn, values, self.get_next_unordered)

    def _map(self, fn: _Submit, values: Iterable[Any], take: Callable[[], Any]) -> Iterator[Any]:
        while (
            self._in_flight
        ):  # freeing an actor submits what waits, so that all runs, as promised when it was submitted
            self._free(self._in_flight.pop(next(iter(self._in_flight)))[1])
        self._next = self._submitted
        for value in values:
            self.submit(fn, value)

        def results() -> Iterator[Any]:
            while self.has_next():
                yield take()

        return results()

    def submit(self, fn: _Submit, value: Any) -> None:
        """Runs fn(actor, value), which must return a ref, on an actor that is free, now or later."""
        number = self._submitted
        self._submitted += 1
        if self._idle:
            actor = self._idle.popleft()
            self._in_flight[number] = (fn(actor, value), actor)
        else:
            self._waiting.append((number, fn, value))

    def has_next(self) -> bool:
        """Whether a result is to come."""
        return bool(self._in_flight)

    def get_next(self, timeout: float | None = None, ignore_if_timedout: bool = False) -> Any:
        """The next result in the order of submission.

        Raises:
            StopIteration: nothing is left.
            TimeoutError: not ready in time. It stays the next one, unless `ignore_if_timedout`.
            ValueError: that result was taken by get_next_unordered.
        """
        if not self.has_next():
            raise StopIteration("No more results to get.")
        if self._next not in self._in_flight:
            raise ValueError("get_next is not allowed after get_next_unordered.")
        return self._take(self._next, timeout, ignore_if_timedout)

    def get_next_unordered(self, timeout: float | None = None, ignore_if_timedout: bool = False) -> Any:
        """The result that is ready first; raises as `get_next`."""
        if not self.has_next():
            raise StopIteration("No more results to get.")
        by_ref = {ref: number for number, (ref, _) in self._in_flight.items()}
        ready, _ = wait(list(by_ref), num_returns=1, timeout=timeout)
        if not ready:
            if ignore_if_timedout:
                self._drop(next(iter(self._in_flight)))
            raise TimeoutError("Timed out waiting for a result.")
        return self._take(by_ref[ready[0]], None, False)

    def _take(self, number: int, timeout: float | None, ignore_if_timedout: bool) -> Any:
        ref, actor = self._in_flight[number]
        if timeout is not None and not wait([ref], timeout=timeout)[0]:
            if ignore_if_timedout:
                self._drop(number)
            raise TimeoutError("Timed out waiting for a result.")
        del self._in_flight[number]
        self._next = max(self._next, number + 1)
        try:
            value = get(ref)
        except ActorDiedError:
            raise  # it stays out of the pool
        except BaseException:
            self._free(actor)
            raise
        self._free(actor)
        return value

    def _drop(self, number: int) -> None:
        _, actor = self._in_flight.pop(number)
        self._next = max(self._next, number + 1)
        self._free(actor)

    def _free(self, actor: Any) -> None:
        self._idle.append(actor)
        if self._waiting:
            number, fn, value = self._waiting.popleft()
            self._in_flight[number] = (fn(self._idle.popleft(), value), actor)

    def has_free(self) -> bool:
        """Whether an actor is free."""
        return bool(self._idle) and not self._waiting

    def pop_idle(self) -> Any:
        """Takes a free actor out of the pool; None if there is none."""
        return self._idle.popleft() if self.has_free() else None

    def push(self, actor: Any) -> None:
        """Puts an actor into the pool.

        Raises:
            ValueError: it is in it.
        """
        if actor in self._idle or any(actor == busy for _, busy in self._in_flight.values()):
            raise ValueError("The actor already belongs to this ActorPool.")
        self._free(actor)
