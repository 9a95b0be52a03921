"""What `ray.init` does to the process of a driver: room for descriptors, traces of crashes, an end in good order."""

from __future__ import annotations

import contextlib
import faulthandler
import io
import logging
import os
import resource
import signal
import sys
import threading
from types import FrameType

logger = logging.getLogger("ray")

_WANTED_DESCRIPTORS, _FEW_DESCRIPTORS = 65536, 4096


def prepare() -> None:
    """Idempotent."""
    _raise_descriptor_limit()
    if not faulthandler.is_enabled():
        with contextlib.suppress(io.UnsupportedOperation, AttributeError, ValueError):  # stderr is no file
            faulthandler.enable(all_threads=False)
    if threading.current_thread() is not threading.main_thread():
        logger.warning("SIGTERM will not be handled: ray.init was not called on the main thread.")
    elif signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:  # else it is the program's
        signal.signal(signal.SIGTERM, _leave)
    os.environ.setdefault("PYTHONBREAKPOINT", "ray.util.rpdb.set_trace")


def _raise_descriptor_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    wanted = _WANTED_DESCRIPTORS if hard == unlimited else min(hard, _WANTED_DESCRIPTORS)
    if soft != unlimited and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != unlimited and soft < _FEW_DESCRIPTORS:
        logger.warning(
            "File descriptor limit %d is low: programs that run much at once need more (`ulimit -n 8192`).", soft
        )


def _leave(signum: int, frame: FrameType | None) -> None:
    sys.exit(signum)  # with the exit handlers, which disconnect
