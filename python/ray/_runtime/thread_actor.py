"""Threaded actors: threads that take calls from the core, which starts no more of a group than its limit allows.

A thread that ends a call takes the next itself, so a flood of short calls needs no change of threads; another one is
woken, or started, when there is more to do. The main thread only waits for the end.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from ray._core import executor as core_executor
from ray._core.executor import TaskRun
from ray._runtime.session import current_task
from ray._runtime.task_context import ActorState

if TYPE_CHECKING:
    from ray._runtime.executor import Executor

_WAIT_MS = 1000  # bounds how late an idle thread sees that it is to end


class ThreadRunner:
    """Runs the methods of an actor with max_concurrency > 1 or concurrency groups."""

    def __init__(self, executor: Executor, actor: ActorState) -> None:
        self._executor = executor
        self._limit = actor.options["max_concurrency"] + sum(actor.options["concurrency_groups"].values())
        self._lock = threading.Lock()
        self._threads = 0
        self._idle = 0  # of them, those that wait in the core
        self._calls: set[TaskRun] = set()  # running now
        self._stopping = False
        self._ended = threading.Condition(self._lock)  # a call, while stopping

    def serve(self) -> None:
        """Lets threads serve calls until the process is to leave. Raises Leave."""
        executor, leaving = self._executor, threading.Event()
        executor.wake = leaving.set
        self._grow()
        while executor.leaving is None:
            leaving.wait()
        raise executor.leaving

    def _grow(self) -> None:
        with self._lock:
            if self._idle > 0 or self._threads >= self._limit or self._stopping:
                return
            self._threads += 1
            self._idle += 1
            number = self._threads
        threading.Thread(target=self._work, name=f"ray-actor-{number}", daemon=True).start()

    def _work(self) -> None:
        from ray._runtime.executor import Leave

        executor, next_task = self._executor, core_executor.next_task
        core = executor.session.core
        idle = True
        while not self._stopping:
            run = next_task(core, _WAIT_MS if idle else 0)
            if run is None:
                if not idle:
                    idle = True
                    with self._lock:
                        self._idle += 1
                continue
            if idle:
                idle = False
                with self._lock:
                    self._idle -= 1
            if self._idle == 0 and self._threads < self._limit:
                self._grow()
            try:
                executor.handle(run)
            except Leave as leave:
                executor.request_leave(leave)
            del run

    def submit(self, run: TaskRun) -> None:
        """Runs the call on this thread."""
        executor = self._executor
        self._calls.add(run)
        current_task.set(executor.context_of(run))
        run.set_current()
        try:
            executor.run_here(run)
        finally:
            core_executor.clear_current(executor.session.core)
            current_task.set(None)
            executor.flush()
            self._calls.discard(run)
            if self._stopping:
                with self._lock:
                    self._ended.notify_all()

    def cancel(self, task_id: bytes) -> None:
        """A thread cannot be interrupted; the method can ask `is_canceled()`."""

    def stop(self) -> None:
        """Waits for all calls that run."""
        with self._lock:
            self._stopping = True
            while self._calls:
                self._ended.wait()
