"""Async actors: an event loop for each concurrency group; calls of all of them interleave at their awaits.

Without named groups the loop runs on the main thread and waits in the core (`_CoreSelector`): a call goes from the
socket to its coroutine without a change of threads. With them each loop has a thread of its own, so that one which is
blocked does not hold up the others, and calls are passed to it in batches: whatever arrived since the loop last looked
takes one wake-up. The replies of a batch whose calls end without waiting for anything share a few frames on the socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import math
import os
import selectors
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from types import FrameType
from typing import TYPE_CHECKING, Any

from ray._core import completion
from ray._core import executor as core_executor
from ray._core.executor import TaskRun
from ray._runtime.session import current_task
from ray._runtime.task_context import ActorState, TaskContext

if TYPE_CHECKING:
    from ray._core.worker import CoreWorker
    from ray._runtime.executor import Executor

_STREAMING = -2
_MAX_BATCH = 1000  # calls taken before the loop goes round


class _Attributed:
    """Awaits a coroutine, with each of its steps run as the given task: what it submits there is its child."""

    def __init__(self, run: TaskRun, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._run = run
        self._coroutine = coroutine

    def __await__(self) -> Generator[Any, Any, Any]:
        run, coroutine = self._run, self._coroutine
        clear, core = core_executor.clear_current, run.worker
        send: Callable[[Any], Any] = coroutine.send
        value: Any = None
        while True:
            run.set_current()
            try:
                awaited = send(value)
            except StopIteration as stop:
                return stop.value
            finally:
                clear(core)
            try:
                value = yield awaited
                send = coroutine.send
            except BaseException as error:  # CancelledError among them: the coroutine decides
                value, send = error, coroutine.throw


class _Group:
    """One event loop and the calls on it. Used on the loop's thread, but for what subclasses say."""

    def __init__(self, executor: Executor, limit: int, loop: asyncio.AbstractEventLoop) -> None:
        self._executor = executor
        self._limit = limit
        self._loop = loop
        self._inbox: deque[TaskRun] = deque()  # handed over, not looked at
        self._waiting: deque[TaskRun] = deque()  # above the limit
        self._tasks: dict[bytes, asyncio.Task[None]] = {}
        self._starting: deque[TaskRun] = deque()  # have a task whose first step is still to come, in the order of these
        self._unwanted: set[bytes] = set()  # those of them that were cancelled

    async def _call(self, function: Callable[[], Any], context: TaskContext) -> Any:
        current_task.set(context)
        return function()

    async def _drain(self) -> None:
        self._take()
        while self._tasks:
            await asyncio.wait(list(self._tasks.values()))

    def _take(self) -> None:
        inbox, waiting = self._inbox, self._waiting
        while inbox:
            waiting.append(inbox.popleft())
        while waiting and len(self._tasks) < self._limit:
            run = waiting.popleft()
            self._starting.append(run)
            task_id = run.task_id
            self._tasks[task_id] = self._loop.create_task(self._run(run, task_id))

    def _cancel(self, task_id: bytes) -> None:
        self._take()
        if any(run.task_id == task_id for run in self._starting):
            # A task that is cancelled before its first step never runs, and nobody would answer the call.
            self._unwanted.add(task_id)
            return
        task = self._tasks.get(task_id)
        if task is not None:
            task.cancel()
            return
        for run in self._waiting:
            if run.task_id == task_id:
                self._waiting.remove(run)
                run.finish_cancelled()
                return

    async def _run(self, run: TaskRun, task_id: bytes) -> None:
        executor, starting = self._executor, self._starting
        while starting and starting.popleft() is not run:
            pass  # user code cancelled that one's asyncio task before its first step
        current_task.set(executor.context_of(run))
        template = run.template
        items = 0
        try:
            if self._unwanted and task_id in self._unwanted:
                self._unwanted.discard(task_id)
                raise asyncio.CancelledError
            function = executor.function_of(run)
            if template.cached is None:
                template.cached = inspect.iscoroutinefunction(function)
            args, kwargs = run.load_args()
            result = function(*args, **kwargs)
            if template.cached or inspect.iscoroutine(result):
                result = await _Attributed(run, result)
            del args, kwargs
            if template.num_returns == _STREAMING:
                items = await self._stream(run, result)
                results: list[Any] = [None]
            else:
                results = executor.shape_results(run, result)
            # Only of the same method: a call of another one might end the process, and what is done with it.
            more = bool(starting) and starting[0].template is template
            run.finish(results, generator_items=items, more_follows=more)
        except asyncio.CancelledError as error:
            executor.finish_cancelled(run, error, items=items)
        except BaseException as error:
            self._failed(run, error, items)
        finally:
            self._tasks.pop(task_id, None)
            executor.flush()
            if self._waiting:
                self._take()

    def _failed(self, run: TaskRun, error: BaseException, items: int) -> None:
        from ray._runtime.executor import Leave

        try:
            self._executor.finish_failed(run, error, items=items)
        except Leave as leave:
            self._executor.request_leave(leave)
        except Exception:
            sys.excepthook(*sys.exc_info())

    async def _stream(self, run: TaskRun, result: Any) -> int:
        count = 0
        loop = self._loop
        if hasattr(result, "__aiter__"):
            async for yielded in result:
                for item in self._executor.items_of(run, (yielded,)):
                    # The consumer's pace may hold this back, so not on the loop's thread.
                    if await loop.run_in_executor(None, run.report_item, count, item):
                        return count
                    count += 1
        else:
            for item in self._executor.items_of(run, result):
                if await loop.run_in_executor(None, run.report_item, count, item):
                    break
                count += 1
        return count


class _ThreadGroup(_Group):
    """On a thread of its own; `submit`, `cancel`, `run_sync` and `stop` are for the main thread."""

    def __init__(self, executor: Executor, name: str, limit: int) -> None:
        super().__init__(executor, limit, (_uvloop_factory() or asyncio.new_event_loop)())
        self._thread = threading.Thread(target=self._main, name=f"ray-async-{name or 'default'}", daemon=True)
        self._thread.start()

    def _main(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def submit(self, run: TaskRun) -> None:
        wake = not self._inbox
        self._inbox.append(run)
        if wake:
            self._loop.call_soon_threadsafe(self._take)

    def cancel(self, task_id: bytes) -> None:
        self._loop.call_soon_threadsafe(self._cancel, task_id)

    def run_sync(self, function: Callable[[], Any], context: TaskContext) -> Any:
        """Runs `function` on the loop's thread and waits for it."""
        return asyncio.run_coroutine_threadsafe(self._call(function, context), self._loop).result()

    def stop(self) -> None:
        """Waits for all calls, then ends the loop."""
        if self._thread is threading.current_thread() or not self._thread.is_alive():
            return
        asyncio.run_coroutine_threadsafe(self._drain(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()


class _CoreSelector(selectors.EpollSelector):
    """Where the main thread's event loop waits: in the core, which hands out calls and also watches the loop's own set.

    The set is polled only when the core has seen something happen there, or when the last poll found something, since
    what is still ready then does not happen anew.
    """

    def __init__(self, core: CoreWorker) -> None:
        super().__init__()
        self._core = core
        self._poll_again = True
        self.take: Callable[[TaskRun], None] | None = None  # None: calls stay in the core
        core_executor.also_wait_for(core, self.fileno())

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        take = self.take
        if take is None:
            return super().select(timeout)
        core, next_task = self._core, core_executor.next_task
        poll = core_executor.take_fd_event(core) or self._poll_again
        wait_ms = 0
        if not poll and timeout != 0:
            wait_ms = -1 if timeout is None else max(0, math.ceil(timeout * 1000))
        run = next_task(core, wait_ms)
        for _ in range(_MAX_BATCH):
            if run is None:
                break
            take(run)
            run = next_task(core, 0)
        else:
            if run is not None:
                take(run)
        del run
        if not poll and not core_executor.take_fd_event(core):
            return []
        events = super().select(0)
        self._poll_again = bool(events)
        return events


class _MainGroup(_Group):
    """On the main thread, which runs the loop from the constructor's end on (`serve`)."""

    def __init__(self, executor: Executor, limit: int) -> None:
        self._selector = _CoreSelector(executor.session.core)
        super().__init__(executor, limit, asyncio.SelectorEventLoop(self._selector))
        completion.waits_in_core(self._loop)
        asyncio.set_event_loop(self._loop)

    def submit(self, run: TaskRun) -> None:
        self._waiting.append(run)
        if len(self._tasks) < self._limit:
            self._take()

    def cancel(self, task_id: bytes) -> None:
        self._cancel(task_id)

    def run_sync(self, function: Callable[[], Any], context: TaskContext) -> Any:
        return self._loop.run_until_complete(self._call(function, context))

    def serve(self, take: Callable[[TaskRun], None]) -> None:
        """Runs the loop, with `take` called for whatever the core hands out, until `wake` was called."""
        self._selector.take = take
        try:
            self._loop.run_forever()
        finally:
            self._selector.take = None

    def wake(self) -> None:
        """Ends `serve` soon; from any thread, and from signal handlers."""
        with contextlib.suppress(RuntimeError):  # closed: it has ended
            self._loop.call_soon_threadsafe(self._loop.stop)

    def stop(self) -> None:
        """Waits for all calls."""
        self._loop.run_until_complete(self._drain())


def _uvloop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Makes uvloop's loops, where it is installed and not switched off."""
    if os.environ.get("RAY_USE_UVLOOP", "1") in ("0", "false", "False"):  # Ray's name
        return None
    try:
        import uvloop  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


class AsyncRunner:
    """Runs the methods of an async actor; plain methods run on the loop too, between awaits.

    With uvloop, whose loops have no exchangeable selector, the default group has a thread in any case.
    """

    def __init__(self, executor: Executor, actor: ActorState) -> None:
        self._executor = executor
        limit = actor.options["max_concurrency"]
        self._main: _MainGroup | None = None
        self._default: _MainGroup | _ThreadGroup
        if not actor.options["concurrency_groups"] and _uvloop_factory() is None:
            self._default = self._main = _MainGroup(executor, limit)
        else:
            self._default = _ThreadGroup(executor, "", limit)
        self._groups = {
            name: _ThreadGroup(executor, name, limit) for name, limit in actor.options["concurrency_groups"].items()
        }

    def construct(self, function: Callable[[], Any], context: TaskContext) -> Any:
        """Runs the constructor where the methods will run."""
        return self._default.run_sync(function, context)

    def serve(self) -> None:
        """Hands out calls until the process is to leave, and raises Leave; unless the main loop does that."""
        main, executor = self._main, self._executor
        if main is None:
            return
        executor.wake = main.wake
        # In the midst of a coroutine or of the loop itself an exception would do harm: the loop ends between two steps.
        signal.signal(signal.SIGTERM, self._on_sigterm)
        while executor.leaving is None:
            main.serve(self._handle)
        raise executor.leaving

    def _handle(self, run: TaskRun) -> None:
        from ray._runtime.executor import Leave

        try:
            self._executor.handle(run)
        except Leave as leave:
            self._executor.request_leave(leave)

    def _on_sigterm(self, signum: int, frame: FrameType | None) -> None:
        from ray._runtime.executor import sigterm

        leave = sigterm(signum)
        if self._executor.leaving is not None:  # asked twice
            raise leave
        self._executor.request_leave(leave)

    def submit(self, run: TaskRun) -> None:
        """Passes the call to its group's loop."""
        group = run.template.concurrency_group
        (self._groups.get(group, self._default) if group else self._default).submit(run)

    def cancel(self, task_id: bytes) -> None:
        """Cancels the call's asyncio task."""
        for group in (self._default, *self._groups.values()):
            group.cancel(task_id)

    def stop(self) -> None:
        """Waits for all calls that were passed on. REQUIRES: `serve` has ended."""
        for group in (self._default, *self._groups.values()):
            group.stop()
