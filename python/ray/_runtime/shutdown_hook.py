"""`__ray_shutdown__`: a method of the user's that is called when an actor ends in good order."""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

from ray._runtime import environment

_VARIABLE = "RAY_actor_graceful_shutdown_timeout_ms"
_BUDGET_MS = 30_000


def run(instance: Any) -> None:
    """Calls the hook, if there is one. When it has not returned within its budget, the process ends as it is."""
    hook = getattr(instance, "__ray_shutdown__", None)
    if not callable(hook):
        return
    budget = _budget_s()
    watchdog = threading.Timer(budget, _end, [budget])
    watchdog.daemon = True
    watchdog.start()
    try:
        hook()
    except Exception:
        sys.excepthook(*sys.exc_info())
    finally:
        watchdog.cancel()


def _budget_s() -> float:
    try:
        return environment.number(_VARIABLE, _BUDGET_MS) / 1000
    except ValueError as error:  # no reason not to call the hook
        sys.stderr.write(f"{error} __ray_shutdown__ has {_BUDGET_MS / 1000:g} s.\n")
        return _BUDGET_MS / 1000


def _end(budget: float) -> None:
    sys.stderr.write(f"__ray_shutdown__ did not return within {budget:g} s: the process ends.\n")
    sys.stderr.flush()
    os._exit(1)
