"""Waiting for refs without blocking: asyncio futures, `concurrent.futures` and callbacks.

An event loop gets a completion queue of its own, whose descriptor it watches, and while it waits for a ref it also
watches the core's and reads the sockets itself: a value that arrives wakes the loop and no other thread. Many that
arrive together wake it once. Futures for threads share one queue and one helper thread, which sleeps in the core.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from ray._core.object_ref import ObjectRef, active_worker
from ray._core.worker import Completions, CoreWorker


def _settle(future: Any, worker: CoreWorker, ref: ObjectRef) -> bool:
    """Gives the value of `ref` to the future; False if it is not in this process yet."""
    try:
        ready, value, failed = worker.try_get(ref)
    except BaseException as error:
        future.set_exception(error)
        return True
    if not ready:
        return False
    if failed:
        future.set_exception(value)
    else:
        future.set_result(value)
    return True


_FEW_WAITS = 64  # of one loop: among so many none is looked for that was given up


class _LoopWatcher:
    """The completion queue of one event loop. Used on the loop's thread only."""

    def __init__(self, loop: asyncio.AbstractEventLoop, worker: CoreWorker) -> None:
        self.worker = worker
        self._queue: Completions = worker.completion_queue()
        self._loop = weakref.ref(loop)
        self._waiting: dict[int, tuple[asyncio.Future[Any], ObjectRef | None]] = {}
        self._tokens = itertools.count(1)
        self._many = _FEW_WAITS
        self._reads = loop in _waits_in_core  # the core's sockets; such a loop does so anyway
        self._resting = False  # about to stop reading
        loop.add_reader(self._queue.fd(), self._drain)

    def _add(self, future: asyncio.Future[Any], ref: ObjectRef | None) -> int:
        if len(self._waiting) >= self._many:
            self._forget_abandoned()
        token = next(self._tokens)
        self._waiting[token] = (future, ref)
        if not self._reads and not self.worker.closed:
            loop = self._loop()
            if loop is not None:
                self._reads = True
                loop.add_reader(self.worker.poll_fd(), self._read)
        return token

    def _take_back(self, token: int) -> None:
        """Nothing will come for it: the session has ended meanwhile, or the ref is of an earlier one."""
        del self._waiting[token]
        self._rest()

    def _forget_abandoned(self) -> None:
        """Forgets the futures that a time-out cancelled. Only a look at each tells, so not each time."""
        for token, (future, _) in list(self._waiting.items()):
            if future.done():
                del self._waiting[token]
                self._queue.unwatch(token)
        self._many = max(_FEW_WAITS, 2 * len(self._waiting))

    def _read(self) -> None:
        self.worker.poll()
        self._drain()
        if self._resting or (self._waiting and not self.worker.closed):
            return
        loop = self._loop()
        if loop is not None:
            self._resting = True
            loop.call_soon(self._rest)  # after those who were waiting: perhaps they wait for more

    def _rest(self) -> None:
        self._resting = False
        loop = self._loop()
        # After a shutdown nobody reads, and the descriptor may stay readable for ever.
        if self._reads and loop is not None and (not self._waiting or self.worker.closed):
            self._reads = False
            loop.remove_reader(self.worker.poll_fd())

    def watch(self, ref: ObjectRef, loop: asyncio.AbstractEventLoop) -> asyncio.Future[Any]:
        """Resolves to the value of `ref`."""
        future: asyncio.Future[Any] = loop.create_future()
        if not _settle(future, self.worker, ref):
            token = self._add(future, ref)
            try:
                self._queue.watch(ref, token)
            except BaseException:
                self._take_back(token)
                raise
        return future

    def watch_ready(self, ref: ObjectRef, loop: asyncio.AbstractEventLoop, *, generator: bool) -> asyncio.Future[Any]:
        """Resolves to None once `ref`, or the next item of the generator `ref`, is there."""
        future: asyncio.Future[Any] = loop.create_future()
        token = self._add(future, None)
        try:
            if generator:
                self._queue.watch_generator(ref, token)
            else:
                self._queue.watch(ref, token)
        except BaseException:
            self._take_back(token)
            raise
        return future

    def _drain(self) -> None:
        for token in self._queue.drain():
            future, ref = self._waiting.pop(token, (None, None))
            if future is None or future.done():
                continue
            if ref is None:
                future.set_result(None)
            elif not _settle(future, self.worker, ref):
                self._fetch(future, ref)

    def _fetch(self, future: asyncio.Future[Any], ref: ObjectRef) -> None:
        """The value is ready but not in this process: one blocking get on a helper thread."""
        loop = self._loop()
        if loop is None:
            return

        def copy(done: asyncio.Future[Any]) -> None:
            if future.done():
                return
            error = done.exception()
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(done.result()[0])

        loop.run_in_executor(None, self.worker.get, [ref]).add_done_callback(copy)

    def retire(self) -> None:
        loop = self._loop()
        if loop is not None and not loop.is_closed():
            loop.remove_reader(self._queue.fd())
            if self._reads and loop not in _waits_in_core:
                loop.remove_reader(self.worker.poll_fd())
        self._queue.close()


class _FutureThread:
    """One helper thread that completes `concurrent.futures` futures and runs callbacks."""

    def __init__(self, worker: CoreWorker) -> None:
        self.worker = worker
        self._queue: Completions = worker.completion_queue()
        self._waiting: dict[int, Callable[[], None]] = {}
        self._tokens = itertools.count(1)
        worker.on_shutdown = self._queue.close
        if worker.closed:  # meanwhile
            self._queue.close()
        threading.Thread(target=self._run, name="ray-futures", daemon=True).start()

    def watch(self, ref: ObjectRef, then: Callable[[], None]) -> Callable[[], None]:
        """Runs `then` on the helper thread once `ref` is ready; returns what takes that back."""
        token = next(self._tokens)
        self._waiting[token] = then
        try:
            self._queue.watch(ref, token)
        except BaseException:
            self._waiting.pop(token, None)  # after a shutdown the thread may have taken it
            raise

        def forget() -> None:
            if self._waiting.pop(token, None) is not None:
                self._queue.unwatch(token)

        return forget

    def _run(self) -> None:
        while not self.worker.closed:
            for token in self._queue.wait_drain():
                then = self._waiting.pop(token, None)
                if then is not None:
                    then()
                del then  # it holds the ref and its value, and the next one may be long in coming
        for then in list(self._waiting.values()):  # shut down: each finds that out by itself
            then()
        with _lock:
            if self in _future_threads:  # else the core's descriptors would stay until the next session has futures
                _future_threads.remove(self)


# Loops that wait in the core, which has their epoll set in its own.
_waits_in_core: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()


def waits_in_core(loop: asyncio.AbstractEventLoop) -> None:
    """Says that `loop` reads the core's sockets whenever it waits for anything."""
    _waits_in_core.add(loop)


_watchers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _LoopWatcher] = weakref.WeakKeyDictionary()
_lock = threading.Lock()
_future_threads: list[_FutureThread] = []  # the one of the present core, if it was needed yet


def _watcher(loop: asyncio.AbstractEventLoop) -> _LoopWatcher:
    worker = active_worker()
    found = _watchers.get(loop)
    if found is not None and found.worker is worker:
        return found
    with _lock:
        for other, watcher in list(_watchers.items()):
            if other.is_closed() or other is loop:
                watcher.retire()
                del _watchers[other]
        found = _watchers[loop] = _LoopWatcher(loop, worker)
    return found


def _future_thread() -> _FutureThread:
    worker = active_worker()
    with _lock:
        if not _future_threads or _future_threads[0].worker is not worker:
            _future_threads[:] = [_FutureThread(worker)]
        return _future_threads[0]


def wait_for(ref: ObjectRef) -> asyncio.Future[Any]:
    """An asyncio future of the running loop with the value of `ref`."""
    loop = asyncio.get_event_loop()
    return _watcher(loop).watch(ref, loop)


def wait_ready(ref: ObjectRef) -> asyncio.Future[Any]:
    """An asyncio future that is done once `ref` is ready, without reading it."""
    loop = asyncio.get_running_loop()
    return _watcher(loop).watch_ready(ref, loop, generator=False)


def generator_ready(generator: ObjectRef) -> asyncio.Future[Any]:
    """An asyncio future that is done once the next item of the stream, or its end, is known."""
    loop = asyncio.get_running_loop()
    return _watcher(loop).watch_ready(generator, loop, generator=True)


def threaded_future(ref: ObjectRef) -> Future[Any]:
    """A `concurrent.futures.Future` with the value of `ref`."""
    future: Future[Any] = Future()
    helper = _future_thread()

    def settle() -> None:
        if not future.done():
            _settle_threaded(future, helper.worker, ref)

    forget = helper.watch(ref, settle)
    future.add_done_callback(lambda done: forget() if done.cancelled() else None)
    return future


def _settle_threaded(future: Future[Any], worker: CoreWorker, ref: ObjectRef) -> None:
    if _settle(future, worker, ref):
        return
    try:
        value = worker.get([ref])[0]
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(value)


def on_completed(ref: ObjectRef, callback: Callable[[Any], None]) -> None:
    """Calls `callback` with the value, or the exception, on a helper thread."""

    def done(future: Future[Any]) -> None:
        error = future.exception()
        callback(error if error is not None else future.result())

    threaded_future(ref).add_done_callback(done)


def on_ready(ref: ObjectRef, callback: Callable[[], None]) -> Callable[[], None]:
    """Calls `callback` on a helper thread once `ref` is ready; returns what cancels that."""
    return _future_thread().watch(ref, callback)
