"""Threaded actors: a pool of threads for each concurrency group, started as they are needed."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING

from ray._core import executor as core_executor
from ray._core.executor import TaskRun
from ray._runtime.session import current_task
from ray._runtime.task_context import ActorState

if TYPE_CHECKING:
    from ray._runtime.executor import Executor


class _Pool:
    """At most `limit` threads, which take calls in the order they came."""

    def __init__(self, executor: Executor, name: str, limit: int) -> None:
        self._executor = executor
        self._name = name
        self._limit = limit
        self._calls: queue.SimpleQueue[TaskRun | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._unfinished = 0

    def submit(self, run: TaskRun) -> None:
        with self._lock:
            self._unfinished += 1
            more = self._unfinished > len(self._threads) and len(self._threads) < self._limit
        self._calls.put(run)
        if more:
            thread = threading.Thread(target=self._work, name=f"ray-actor-{self._name or 'default'}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _work(self) -> None:
        from ray._runtime.executor import Leave

        executor = self._executor
        while (run := self._calls.get()) is not None:
            current_task.set(executor.context_of(run))
            run.set_current()
            try:
                executor.run_here(run)
            except Leave as leave:
                executor.request_leave(leave)
            finally:
                core_executor.clear_current(executor.session.core)
                current_task.set(None)
                executor.flush()
                with self._lock:
                    self._unfinished -= 1
            del run

    def stop(self) -> None:
        for _ in self._threads:
            self._calls.put(None)
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()


class ThreadRunner:
    """Runs the methods of an actor with max_concurrency > 1 or concurrency groups."""

    def __init__(self, executor: Executor, actor: ActorState) -> None:
        self._default = _Pool(executor, "", actor.options["max_concurrency"])
        self._groups = {
            name: _Pool(executor, name, limit) for name, limit in actor.options["concurrency_groups"].items()
        }

    def submit(self, run: TaskRun) -> None:
        """Queues the call for its group's threads."""
        group = run.template.concurrency_group
        (self._groups.get(group, self._default) if group else self._default).submit(run)

    def cancel(self, task_id: bytes) -> None:
        """A thread cannot be interrupted; the method can ask `is_canceled()`."""

    def serve(self) -> None:
        """The main loop passes the calls on."""

    def stop(self) -> None:
        """Waits for all calls that were queued."""
        for pool in (self._default, *self._groups.values()):
            pool.stop()
