"""What the module `ray` has beyond its own names: packages that are loaded when asked for, and old names."""

from __future__ import annotations

import importlib
import logging
from typing import Any

logger = logging.getLogger("ray")

_PACKAGES = (
    "_private",
    "internal",
    "data",
    "autoscaler",
    "workflow",
    "runtime_env",
    "cross_language",
    "cluster_utils",
    "job_submission",
    "types",
)


class DeprecatedModule:
    """A module of Ray's inside under its old name; each attribute that is read is warned about once."""

    def __init__(self, old: str, new: str) -> None:
        self._old = old
        self._new = new
        self._warned: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        value = getattr(importlib.import_module(self._new), name)
        if name not in self._warned:
            self._warned.add(name)
            logger.warning(
                "DeprecationWarning: `%s.%s` is a private attribute and will be removed in a future version of Ray.",
                self._old,
                name,
            )
        return value


_OLD = {
    name: DeprecatedModule(f"ray.{name}", f"ray._private.{name}")
    for name in ("worker", "state", "ray_constants", "serialization")
}


def lookup(name: str) -> Any:
    """The attribute `name` of the module `ray`. Raises AttributeError."""
    if name in _OLD:
        return _OLD[name]
    if name in _PACKAGES:
        try:
            return importlib.import_module(f"ray.{name}")
        except ModuleNotFoundError as error:
            if error.name == f"ray.{name}":
                raise AttributeError(f"module 'ray' has no attribute {name!r}") from None
            raise
    raise AttributeError(f"module 'ray' has no attribute {name!r}")
