"""What is told of each launch to the functions that programs set as `_task_launch_hook` and `_actor_launch_hook`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep


class FunctionDescriptor(NamedTuple):
    """What is launched. For functions `class_name` is empty, for classes `function_name` is "__init__"."""

    module_name: str
    function_name: str
    class_name: str
    function_id: bytes

    @property
    def repr(self) -> str:
        """As text, dotted."""
        return ".".join(part for part in (self.module_name, self.class_name, self.function_name) if part)


# (descriptor, resources that it takes, scheduling strategy) -> None; what it raises goes to the caller of `.remote()`.
LaunchHook = Callable[[FunctionDescriptor, dict[str, float], Any], None]


def module_of(target: Any) -> str:
    """Name of the module that defines a function or class; a program's main module goes by the name of its file.

    In a worker, where `__main__` is not the program's, it stays as it is.
    """
    module = str(getattr(target, "__module__", None) or "")
    if module == "__main__":
        path: str | None = getattr(sys.modules["__main__"], "__file__", None)
        if path and not os.path.abspath(path).startswith(_PACKAGE):
            return os.path.splitext(os.path.basename(path))[0]
    return module


def strategy_of(options: dict[str, Any]) -> Any:
    """The scheduling strategy in `options` as hooks see it."""
    return options.get("scheduling_strategy") or "DEFAULT"
