"""Marks of how stable a public name is."""

from __future__ import annotations

import functools
import inspect
import warnings
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
    """Marks a name that will go away; with `warning`, its use is warned of."""

    def decorate(target: _F) -> _F:
        name = getattr(target, "__qualname__", repr(target))
        text = message or f"{name} is deprecated and will be removed."
        target.__doc__ = f"{target.__doc__ or ''}\n\nDeprecated: {text}"
        return _warning(target, text) if warning else target

    return decorate(args[0]) if len(args) == 1 and callable(args[0]) else decorate


def _warning(target: Any, text: str) -> Any:
    if inspect.isclass(target):
        init = target.__init__

        @functools.wraps(init)
        def warned_init(self: Any, *args: Any, **kwargs: Any) -> None:
            warnings.warn(text, RayDeprecationWarning, stacklevel=2)
            init(self, *args, **kwargs)

        setattr(target, "__init__", warned_init)  # noqa: B010  # a plain assignment to a method is an error for mypy
        return target

    @functools.wraps(target)
    def warned(*args: Any, **kwargs: Any) -> Any:
        warnings.warn(text, RayDeprecationWarning, stacklevel=2)
        return target(*args, **kwargs)

    return warned


def _mark(args: tuple[Any, ...]) -> Any:
    if len(args) == 1 and callable(args[0]):
        return args[0]

    def decorate(target: _F) -> _F:
        return target

    return decorate
