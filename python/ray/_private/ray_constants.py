"""`ray._private.ray_constants`: numbers and names that programs look up."""

from __future__ import annotations

import os

REDIS_DEFAULT_PASSWORD = ""
DEFAULT_OBJECT_STORE_MEMORY_PROPORTION = 0.3
DEFAULT_OBJECT_STORE_MAX_MEMORY_BYTES = 200 * 10**9
DEFAULT_SYSTEM_RESERVED_MEMORY_PROPORTION = 0.1
OBJECT_STORE_MINIMUM_MEMORY_BYTES = 75 * 1024 * 1024
CALLER_MEMORY_USAGE_PER_OBJECT_REF = 3000
FUNCTION_SIZE_WARN_THRESHOLD = 10**7
FUNCTION_SIZE_ERROR_THRESHOLD = 10**8
ID_SIZE = 28
LOGGING_ROTATE_BYTES = 512 * 1024 * 1024
LOGGING_ROTATE_BACKUP_COUNT = 5
LOGGER_FORMAT = "%(asctime)s\t%(levelname)s %(filename)s:%(lineno)s -- %(message)s"


def env_integer(key: str, default: int) -> int:
    """An integer of the environment; the default where it is not one."""
    text = os.environ.get(key, "")
    return int(text) if text.lstrip("-").isdecimal() else default


def env_float(key: str, default: float) -> float:
    """A number of the environment; the default where it is not one."""
    try:
        return float(os.environ[key])
    except (KeyError, ValueError):
        return default


def env_bool(key: str, default: bool) -> bool:
    """A switch of the environment: "1" or "true" is on."""
    text = os.environ.get(key)
    return default if text is None else text.lower() in ("1", "true")


def env_set_by_user(key: str) -> bool:
    """Whether the environment has it."""
    return key in os.environ
