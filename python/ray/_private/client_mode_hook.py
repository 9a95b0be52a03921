"""`ray._private.client_mode_hook`: what libraries wrap their functions with, so that Ray's client can take them over.

There is no client of that kind here: a wrapped function is the function itself.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any


def client_mode_hook(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Decorator, with or without options; gives the function back."""
    return (lambda decorated: decorated) if function is None else function


client_mode_wrap = client_mode_hook


@contextlib.contextmanager
def disable_client_hook() -> Iterator[None]:
    """Calls inside the block are not taken over, as none ever is."""
    yield


@contextlib.contextmanager
def enable_client_mode() -> Iterator[None]:
    """Calls inside the block would be taken over, if there were a client."""
    yield


def client_mode_should_convert() -> bool:
    """Whether functions and classes have to be sent to a client's server."""
    return False
