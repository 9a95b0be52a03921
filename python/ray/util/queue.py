"""A first-in first-out queue that tasks and actors share; an actor keeps it."""

from __future__ import annotations

import asyncio
import contextlib
import queue
from collections.abc import Iterable, Iterator
from typing import Any

from ray.api import get, kill, remote, wait
from ray.exceptions import RayTaskError


class Empty(queue.Empty):
    """There is no item."""


class Full(queue.Full):
    """There is no room."""


class _QueueActor:
    def __init__(self, maxsize: int) -> None:
        self.maxsize = maxsize
        self.queue: asyncio.Queue[Any] = asyncio.Queue(maxsize)

    def qsize(self) -> int:
        return self.queue.qsize()

    def empty(self) -> bool:
        return self.queue.empty()

    def full(self) -> bool:
        return self.queue.full()

    async def put(self, item: Any, timeout: float | None = None) -> None:
        try:
            await asyncio.wait_for(self.queue.put(item), timeout)
        except asyncio.TimeoutError:
            raise Full from None

    async def get(self, timeout: float | None = None) -> Any:
        try:
            return await asyncio.wait_for(self.queue.get(), timeout)
        except asyncio.TimeoutError:
            raise Empty from None

    # Coroutines without an await run in one step: nothing comes between looking and acting.
    async def put_nowait(self, item: Any) -> None:
        if self.queue.full():
            raise Full
        self.queue.put_nowait(item)

    async def get_nowait(self) -> Any:
        if self.queue.empty():
            raise Empty
        return self.queue.get_nowait()

    async def put_nowait_batch(self, items: list[Any]) -> None:
        if self.maxsize > 0 and len(items) + self.queue.qsize() > self.maxsize:
            raise Full(f"Cannot add {len(items)} items to a queue of size {self.queue.qsize()}/{self.maxsize}.")
        for item in items:
            self.queue.put_nowait(item)

    async def get_nowait_batch(self, num_items: int) -> list[Any]:
        if num_items > self.queue.qsize():
            raise Empty(f"Cannot get {num_items} items from a queue of size {self.queue.qsize()}.")
        return [self.queue.get_nowait() for _ in range(num_items)]


@contextlib.contextmanager
def _plain_errors() -> Iterator[None]:
    """What the queue's actor raises about the queue is raised as it is: nobody cares where it ran."""
    try:
        yield
    except (Empty, Full) as error:
        if isinstance(error, RayTaskError):
            # Made anew: `error` holds the one that came, and the traceback of what is raised here holds `error`.
            raise type(error.cause)(*error.cause.args) from None
        raise


def _check_timeout(timeout: float | None) -> None:
    if timeout is not None and timeout < 0:
        raise ValueError("'timeout' must be a non-negative number.")


class Queue:
    """A queue of `maxsize` items at most, 0: without bound. Passing it to tasks shares it.

    Args:
        actor_options: options of the actor that keeps the items.
    """

    def __init__(self, maxsize: int = 0, actor_options: dict[str, Any] | None = None) -> None:
        self.maxsize = maxsize
        self.actor: Any = remote(_QueueActor).options(**(actor_options or {})).remote(maxsize)

    def __len__(self) -> int:
        return self.size()

    def size(self) -> int:
        """How many items there are."""
        return int(get(self.actor.qsize.remote()))

    def qsize(self) -> int:
        """How many items there are."""
        return self.size()

    def empty(self) -> bool:
        """Whether there is no item."""
        return bool(get(self.actor.empty.remote()))

    def full(self) -> bool:
        """Whether there is no room."""
        return bool(get(self.actor.full.remote()))

    def _put(self, item: Any, block: bool, timeout: float | None) -> Any:
        if not block:
            return self.actor.put_nowait.remote(item)
        _check_timeout(timeout)
        return self.actor.put.remote(item, timeout)

    def _take(self, block: bool, timeout: float | None) -> Any:
        if not block:
            return self.actor.get_nowait.remote()
        _check_timeout(timeout)
        return self.actor.get.remote(timeout)

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Adds an item, waiting for room; raises Full if there is none now (`block=False`) or after `timeout` s."""
        with _plain_errors():
            get(self._put(item, block, timeout))

    async def put_async(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """As `put`, for coroutines."""
        with _plain_errors():
            await self._put(item, block, timeout)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Takes the oldest item, waiting for one; raises Empty if there is none now or within `timeout` seconds."""
        with _plain_errors():
            return get(self._take(block, timeout))

    async def get_async(self, block: bool = True, timeout: float | None = None) -> Any:
        """As `get`, for coroutines."""
        with _plain_errors():
            return await self._take(block, timeout)

    def put_nowait(self, item: Any) -> None:
        """As `put` with `block=False`."""
        self.put(item, block=False)

    def get_nowait(self) -> Any:
        """As `get` with `block=False`."""
        return self.get(block=False)

    def put_nowait_batch(self, items: Iterable[Any]) -> None:
        """Adds all items, or raises Full and adds none."""
        if not isinstance(items, Iterable):
            raise TypeError("Argument 'items' must be an iterable.")
        with _plain_errors():
            get(self.actor.put_nowait_batch.remote(list(items)))

    def get_nowait_batch(self, num_items: int) -> list[Any]:
        """Takes that many items, or raises Empty and takes none."""
        if isinstance(num_items, bool) or not isinstance(num_items, int):
            raise TypeError("Argument 'num_items' must be an int.")
        if num_items < 0:
            raise ValueError("'num_items' must be non-negative.")
        with _plain_errors():
            return list(get(self.actor.get_nowait_batch.remote(num_items)))

    def shutdown(self, force: bool = False, grace_period_s: int = 5) -> None:
        """Ends the actor: with `force` at once, else when its calls are done, after `grace_period_s` at the latest."""
        if self.actor is None:
            return
        if force or not wait([self.actor.__ray_terminate__.remote()], timeout=grace_period_s)[0]:
            kill(self.actor, no_restart=True)
        self.actor = None
