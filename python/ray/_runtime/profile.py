"""Records when tasks ran, for `ray.timeline`: in workers of a cluster that was started with RAY_PROFILING=1."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ray._core import gcs
from ray._runtime.session import require_session

if TYPE_CHECKING:
    from ray._core.executor import TaskRun
    from ray._core.worker import CoreWorker
    from ray._runtime.executor import Executor

_NAMESPACE = b"timeline"
_FLUSH_S = 0.5


def wanted() -> bool:
    """Whether this process is to record."""
    return os.environ.get("RAY_PROFILING", "0").lower() in ("1", "true")


class Recorder:
    """Times the tasks of one worker and stores the times with the GCS, every so often and at the end."""

    def __init__(self, executor: Executor) -> None:
        self._core: CoreWorker = executor.session.core
        self._node_ip = executor.session.node_ip
        self._worker = executor.session.worker_id.hex()
        self._run_here = executor.run_here
        self._lock = threading.Lock()
        self._events: list[dict[str, Any]] = []
        self._stored = 0
        executor.run_here = self._timed  # type: ignore[method-assign]  # nothing is spent where nobody records
        executor.recorder = self
        atexit.register(self.flush)
        threading.Thread(target=self._flush_for_ever, name="ray-profile", daemon=True).start()

    def _timed(self, run: TaskRun, last: bool = False) -> None:
        with self.timing(run):
            self._run_here(run, last)

    @contextlib.contextmanager
    def timing(self, run: TaskRun) -> Iterator[None]:
        """Records how long the body takes as the time of `run`, unless its task is to be left out."""
        template = run.template
        if template.omit_task_events:
            yield
            return
        began = time.time()
        task_id = run.task_id.hex()
        try:
            yield
        finally:
            event = {
                "cat": f"task::{template.name}",
                "name": template.name,
                "pid": self._node_ip,
                "tid": f"worker:{self._worker}",
                "ts": began * 1e6,
                "dur": (time.time() - began) * 1e6,
                "ph": "X",
                "cname": "generic_work",
                "args": {"name": template.name, "task_id": task_id},
            }
            with self._lock:
                self._events.append(event)

    def _flush_for_ever(self) -> None:
        while not self._core.closed:
            time.sleep(_FLUSH_S)
            with contextlib.suppress(Exception):  # the session is over
                self.flush()

    def flush(self) -> None:
        """Stores what there is."""
        with self._lock:
            events, self._events = self._events, []
            self._stored += 1
            key = f"{self._worker}:{self._stored}".encode()
        if events:
            gcs.kv_put(self._core, _NAMESPACE, key, json.dumps(events).encode())


def timeline(filename: str | None = None) -> list[dict[str, Any]] | None:
    """When the tasks of the cluster ran, as events of Chrome's tracing format.

    Waits a second, so that workers have told of what just ended. There are events only if the cluster was started with
    RAY_PROFILING=1, and none of tasks and actors with the option `enable_task_events=False`. A call of an async actor
    lasts from its first step to its last, with its waits.

    Args:
        filename: where to write them as JSON, to be loaded in chrome://tracing; None: they are returned.

    Raises:
        RuntimeError: not connected.
    """
    from ray._runtime.session import current_session

    if current_session() is None:
        raise RuntimeError("Ray has not been initialized. Call ray.init() first.")
    time.sleep(2 * _FLUSH_S)
    core = require_session().core
    events: list[dict[str, Any]] = []
    for key in gcs.kv_keys(core, _NAMESPACE, b""):
        events += json.loads(gcs.kv_get(core, _NAMESPACE, key) or b"[]")
    events.sort(key=lambda event: float(event["ts"]))
    if filename is None:
        return events
    with open(filename, "w") as file:
        json.dump(events, file)
    return None
