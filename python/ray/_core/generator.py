"""Generators of refs, as streaming and dynamic tasks give them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any, NoReturn

from ray._core.object_ref import ObjectRef, active_worker


class ObjectRefGenerator:
    """Iterates, sync or async, over the refs of what a streaming task yields, each as soon as it exists.

    If the task fails, one last ref comes whose `get` raises. Not thread-safe; dropping it drops the items nobody took.
    """

    def __init__(self, generator_ref: ObjectRef) -> None:
        self._generator_ref = generator_ref
        self._worker = active_worker()
        self._ahead: deque[ObjectRef] = deque()  # taken from the core, not yet handed out
        self._ended = False  # the core has no further items

    def __iter__(self) -> ObjectRefGenerator:
        return self

    def __aiter__(self) -> ObjectRefGenerator:
        return self

    def __next__(self) -> ObjectRef:
        if self._fill(None):
            return self._ahead.popleft()
        raise StopIteration

    async def __anext__(self) -> ObjectRef:
        return await self._next_async()

    def _fill(self, timeout_s: float | None) -> bool:
        """Whether there is an item in `_ahead`; False: at the end. TimeoutError where it is not known in time."""
        if self._ahead:
            return True
        if not self._ended:
            known, ref = self._worker.next_generator_item(self._generator_ref, timeout_s)
            if not known:
                raise TimeoutError
            if ref is not None:
                self._ahead.append(ref)
                return True
            self._ended = True
        return False

    def _next_sync(self, timeout_s: float | None = None) -> ObjectRef:
        """The next ref; the nil ref after `timeout_s`. Raises StopIteration at the end."""
        try:
            if self._fill(timeout_s):
                return self._ahead.popleft()
        except TimeoutError:
            return ObjectRef.nil()
        raise StopIteration

    async def _next_async(self, timeout_s: float | None = None) -> ObjectRef:
        """As `_next_sync`, with StopAsyncIteration at the end."""
        import asyncio

        from ray._core import completion

        if not self._known():
            ready = completion.generator_ready(self._generator_ref)
            done, _ = await asyncio.wait([ready], timeout=timeout_s)
            if not done:
                ready.cancel()
                return ObjectRef.nil()
        if self._fill(None):
            return self._ahead.popleft()
        raise StopAsyncIteration

    def _known(self) -> bool:
        """Whether the next item, or the end, can be had without waiting."""
        try:
            self._fill(0)
        except TimeoutError:
            return False
        return True

    def completed(self) -> ObjectRef:
        """The ref of the whole task: ready when it has ended."""
        return self._generator_ref

    def next_ready(self) -> bool:
        """Whether the next ref can be had without waiting."""
        try:
            return self._fill(0)
        except TimeoutError:
            return False

    def is_finished(self) -> bool:
        """Whether all refs were handed out."""
        try:
            return not self._fill(0)
        except TimeoutError:
            return False

    def _peek(self) -> ObjectRef | None:
        """The next ref without taking it, if it exists."""
        return self._ahead[0] if self.next_ready() else None

    def _get_next_ref(self) -> ObjectRef | None:
        """The next ref without taking it; waits for it. None at the end."""
        return self._ahead[0] if self._fill(None) else None

    def _get_next_ref_n(self, n: int) -> list[ObjectRef]:
        """Up to `n` next refs without taking them, as many as exist; waits for the first. Fewer at the end."""
        if not self._fill(None):
            return []
        while len(self._ahead) < n and not self._ended:
            known, ref = self._worker.next_generator_item(self._generator_ref, 0)
            if not known:
                break
            if ref is None:
                self._ended = True
            else:
                self._ahead.append(ref)
        return list(self._ahead)[:n]

    def _consume_next_ref_n(self, n: int) -> None:
        """Takes the next `n` refs, which `_get_next_ref_n` has shown."""
        for _ in range(min(n, len(self._ahead))):
            self._ahead.popleft()

    def _get_next_object_id_binary(self) -> bytes | None:
        """Id of the next ref; waits for it. None at the end."""
        ref = self._get_next_ref()
        return None if ref is None else ref.binary()

    def _stream_exhausted(self) -> bool:
        return self._ended and not self._ahead

    # Items come from a task that runs elsewhere and takes nothing in: there is nobody to send to, and dropping the
    # generator is what closes it. The names exist, and raise this, since Ray's do.

    def send(self, value: Any) -> NoReturn:
        raise NotImplementedError("ObjectRefGenerator does not support send().")

    def throw(self, value: Any) -> NoReturn:
        raise NotImplementedError("ObjectRefGenerator does not support throw().")

    def close(self) -> NoReturn:
        raise NotImplementedError("ObjectRefGenerator does not support close().")

    async def asend(self, value: Any) -> NoReturn:
        raise NotImplementedError("ObjectRefGenerator does not support asend().")

    async def athrow(self, value: Any) -> NoReturn:
        raise NotImplementedError("ObjectRefGenerator does not support athrow().")

    async def aclose(self) -> NoReturn:
        raise NotImplementedError("ObjectRefGenerator does not support aclose().")

    def __repr__(self) -> str:
        return f"ObjectRefGenerator({self._generator_ref.hex()})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("Serialization of an ObjectRefGenerator is not allowed; pass its refs instead.")

    def __del__(self) -> None:
        worker = self.__dict__.get("_worker")  # absent where __init__ raised
        if worker is not None:
            worker.release_generator(self._generator_ref)


class DynamicObjectRefGenerator:
    """The value of a `num_returns="dynamic"` task: its refs, to be iterated once."""

    def __init__(self, refs: list[ObjectRef]) -> None:
        self._refs = deque(refs)

    def __iter__(self) -> Iterator[ObjectRef]:
        while self._refs:
            yield self._refs.popleft()

    def __len__(self) -> int:
        return len(self._refs)

    def __reduce__(self) -> tuple[Any, ...]:
        return DynamicObjectRefGenerator, (list(self._refs),)
