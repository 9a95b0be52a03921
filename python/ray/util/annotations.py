"""Marks of how stable a public name is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from ray._deprecation import RayDeprecationWarning as RayDeprecationWarning

_F = TypeVar("_F", bound=Callable[..., Any] | type)


def PublicAPI(*args: Any, stability: str = "stable", api_group: str = "Others") -> Any:  # Ray's name
    """Marks a public name; `stability` is "stable", "beta" or "alpha"."""
    if stability not in ("stable", "beta", "alpha"):
        raise ValueError(f"stability must be 'stable', 'beta' or 'alpha', got {stability!r}.")
    return _mark(args)


def DeveloperAPI(*args: Any) -> Any:  # Ray's name
    """Marks a name for developers of libraries."""
    return _mark(args)


def Deprecated(*args: Any, message: str = "", warning: bool = False) -> Any:  # Ray's name
    """Marks a name that will go away."""
    return _mark(args)


def _mark(args: tuple[Any, ...]) -> Any:
    if len(args) == 1 and callable(args[0]):
        return args[0]

    def decorate(target: _F) -> _F:
        return target

    return decorate
