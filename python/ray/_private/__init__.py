"""Names that other programs reach into Ray for. They forward to where things are here; nothing of ours uses them."""

from __future__ import annotations

import importlib
from typing import Any

_MODULES = ("ray_constants", "serialization", "services", "state", "test_utils", "worker")


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"ray._private.{name}")
    raise AttributeError(f"module 'ray._private' has no attribute {name!r}")
