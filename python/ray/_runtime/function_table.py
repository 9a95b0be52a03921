"""Functions and classes in the cluster's key-value store, under the hash of their pickled bytes.

They stay there until the last job that has exported them is over and its actors are dead.
"""

from __future__ import annotations

import logging
import pickle
import threading
import time
from typing import Any

from ray._core import gcs
from ray._core.ids import FunctionID
from ray._core.worker import CoreWorker
from ray._serialization.context import dumps

logger = logging.getLogger("ray")

_NAMESPACE = b"fun"
_WARN_BYTES = 10_000_000
_MAX_BYTES = 100 * 1000 * 1000
_WARN_AFTER_S = 10.0


class FunctionTable:
    """Exports of this process and what it fetched. Any thread may call."""

    def __init__(self, core: CoreWorker) -> None:
        self._core = core
        self._exported: set[bytes] = set()
        self._fetched: dict[bytes, Any] = {}
        self._lock = threading.Lock()

    def export(self, obj: Any) -> bytes:
        """Stores `obj` unless it is known; its id.

        Raises:
            ValueError: larger than 100 MB when pickled.
            TypeError: something it refers to cannot be pickled.
        """
        data = dumps(obj)
        name = getattr(obj, "__qualname__", repr(obj))
        if len(data) >= _MAX_BYTES:
            raise ValueError(
                f"The remote function or class {name} is too large ({len(data) >> 20} MiB > {_MAX_BYTES >> 20} MiB). "
                "Check that its definition does not capture a large object; pass that through ray.put instead."
            )
        if len(data) > _WARN_BYTES:
            logger.warning(
                "The remote function or class %s is very large (%d MiB). Does it capture a large object?",
                name,
                len(data) >> 20,
            )
        import hashlib  # with OpenSSL behind it, and few workers export anything

        function_id = hashlib.blake2b(data, digest_size=FunctionID.SIZE).digest()
        with self._lock:
            known = function_id in self._exported
        if not known:
            gcs.kv_put(self._core, _NAMESPACE, function_id, data, overwrite=False, of_job=True)
            with self._lock:
                self._exported.add(function_id)
        return function_id

    def fetch(self, function_id: bytes) -> Any:
        """The function or class of that id; waits until its exporter has stored it. Raises what unpickling raises."""
        found = self._fetched.get(function_id)
        if found is not None:
            return found
        started = time.monotonic()
        pause, warned = 0.001, False
        while (data := gcs.kv_get(self._core, _NAMESPACE, function_id)) is None:
            if not warned and time.monotonic() - started > _WARN_AFTER_S:
                warned = True
                logger.warning("Still waiting for the definition of function %s to be exported.", function_id.hex())
            time.sleep(pause)
            pause = min(pause * 2, 0.1)
        found = pickle.loads(data)
        self._fetched[function_id] = found
        return found
