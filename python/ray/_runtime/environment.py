"""Variables of the environment that are more than text. Empty ones count as not set; errors name the variable."""

from __future__ import annotations

import json
import math
import os
from typing import Any

_MAX_PORT = 65535
_LOG_LEVELS = ("debug", "info", "warning", "error", "off")
_LOG_LEVELS_OF_RAY = {"trace": "debug", "fatal": "error"}  # the nearest that the core has


def integer(name: str, default: int) -> int:
    """Raises ValueError."""
    text = os.environ.get(name, "")
    try:
        return int(text) if text else default
    except ValueError:
        raise ValueError(f"{name} must be a whole number, got {text!r}.") from None


def number(name: str, default: float) -> float:
    """Raises ValueError; also for what is not finite."""
    text = os.environ.get(name, "")
    try:
        value = float(text) if text else default
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{name} must be a number, got {text!r}.")
    return value


def port(name: str, default: int) -> int:
    """Raises ValueError."""
    value = integer(name, default)
    if not 0 <= value <= _MAX_PORT:
        raise ValueError(f"{name} must be a port, from 0 to {_MAX_PORT}, got {value}.")
    return value


def log_level() -> str:
    """RAY_BACKEND_LOG_LEVEL: of what the core logs. Raises ValueError."""
    text = os.environ.get("RAY_BACKEND_LOG_LEVEL") or "info"
    level = _LOG_LEVELS_OF_RAY.get(text.lower(), text.lower())
    if level not in _LOG_LEVELS:
        known = (*_LOG_LEVELS, *_LOG_LEVELS_OF_RAY)
        raise ValueError(f"RAY_BACKEND_LOG_LEVEL must be one of {', '.join(known)}, got {text!r}.")
    return level.upper()


def json_object(name: str) -> dict[str, Any]:
    """Empty by default. Raises ValueError."""
    text = os.environ.get(name, "")
    try:
        value = json.loads(text) if text else {}
    except ValueError as error:
        raise ValueError(f"{name} is not JSON: {error}, got {text!r}.") from None
    if not isinstance(value, dict):
        raise ValueError(f"{name} must be a JSON object, got {text!r}.")
    return value
