"""`__ray_shutdown__`: a method of the user's that is called when an actor ends in good order."""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

_BUDGET_MS = 30_000


def run(instance: Any) -> None:
    """Calls the hook, if there is one. When it has not returned within its budget, the process ends as it is."""
    hook = getattr(instance, "__ray_shutdown__", None)
    if not callable(hook):
        return
    budget = float(os.environ.get("RAY_actor_graceful_shutdown_timeout_ms", _BUDGET_MS)) / 1000  # noqa: SIM112
    watchdog = threading.Timer(budget, _end, [budget])
    watchdog.daemon = True
    watchdog.start()
    try:
        hook()
    except Exception:
        sys.excepthook(*sys.exc_info())
    finally:
        watchdog.cancel()


def _end(budget: float) -> None:
    sys.stderr.write(f"__ray_shutdown__ did not return within {budget:g} s: the process ends.\n")
    sys.stderr.flush()
    os._exit(1)
