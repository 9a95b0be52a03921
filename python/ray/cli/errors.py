"""Errors of commands: our exceptions end a command with their text and code 1, without a traceback."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import click

from ray.exceptions import RayError
from ray.util.state.exception import RayStateApiException


@contextlib.contextmanager
def shown() -> Iterator[None]:
    """Turns what a user can do something about into a click error."""
    try:
        yield
    except (RayError, RayStateApiException, ConnectionError, RuntimeError, ValueError) as error:
        kind = type(error).__name__
        raise click.ClickException(f"{kind}: {error}") from error
