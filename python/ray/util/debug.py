"""Messages that should not be repeated."""

from __future__ import annotations

import time

_PERIOD_S = 60.0
_logged: set[str] = set()
_disabled = False
_periodic = False
_last_reset = 0.0


def log_once(key: str) -> bool:
    """Whether to log the message `key` now: the first time, and once a minute after enable_periodic_logging."""
    global _last_reset
    if _disabled:
        return False
    if key not in _logged:
        _logged.add(key)
        return True
    if _periodic and time.monotonic() - _last_reset > _PERIOD_S:
        _logged.clear()
        _last_reset = time.monotonic()
    return False


def disable_log_once_globally() -> None:
    """Makes `log_once` return False in this process."""
    global _disabled
    _disabled = True


def enable_periodic_logging() -> None:
    """Lets `log_once` forget what was logged, once a minute."""
    global _periodic, _last_reset
    _periodic, _last_reset = True, time.monotonic()


def reset_log_once(key: str | None = None) -> None:
    """Lets the message `key` be logged again; None: every message."""
    if key is None:
        _logged.clear()
    else:
        _logged.discard(key)
