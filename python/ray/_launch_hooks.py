"""What is told of each launch to the functions that programs set as `_task_launch_hook` and `_actor_launch_hook`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple


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


def strategy_of(options: dict[str, Any]) -> Any:
    """The scheduling strategy in `options` as hooks see it."""
    return options.get("scheduling_strategy") or "DEFAULT"
