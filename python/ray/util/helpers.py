"""Iterating over results as they come."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ray.api import get, wait
from ray.object_ref import ObjectRef


def _check(chunk_size: int, wait_kwargs: dict[str, Any]) -> None:
    if chunk_size < 1:
        raise ValueError(f"`chunk_size` must be >= 1, got {chunk_size!r}.")
    if "num_returns" in wait_kwargs:
        raise ValueError("Use `chunk_size` instead of `num_returns`.")


def _next_chunk(pending: list[Any], size: int, wait_kwargs: dict[str, Any]) -> tuple[list[Any], list[Any]]:
    return wait(pending, num_returns=min(size, len(pending)), **wait_kwargs)


def as_completed(
    refs: Sequence[ObjectRef], *, chunk_size: int = 10, yield_obj_refs: bool = False, **wait_kwargs: Any
) -> Iterator[Any]:
    """Yields the values of refs (with `yield_obj_refs`, the refs) as they become ready, `chunk_size` at once.

    Raises:
        ValueError: `chunk_size` < 1, or num_returns was given.
    """
    _check(chunk_size, wait_kwargs)
    return _drain([], iter(refs), None, chunk_size, yield_obj_refs, wait_kwargs)


def map_unordered(
    fn: Any,
    items: Iterable[Any],
    *,
    backpressure_size: int | None = 100,
    chunk_size: int = 10,
    yield_obj_refs: bool = False,
    **wait_kwargs: Any,
) -> Iterator[Any]:
    """Calls a remote function for each item and yields the results as they become ready.

    Args:
        backpressure_size: calls in flight at most; None: without limit.

    Raises:
        ValueError: a limit < 1, or num_returns was given.
    """
    _check(chunk_size, wait_kwargs)
    if backpressure_size is not None and backpressure_size < 1:
        raise ValueError(f"`backpressure_size` must be >= 1 or None, got {backpressure_size!r}.")
    refs = (fn.remote(item) for item in items)
    return _drain([], refs, backpressure_size, chunk_size, yield_obj_refs, wait_kwargs)


def _drain(
    pending: list[Any],
    refs: Iterator[Any],
    limit: int | None,
    chunk_size: int,
    yield_obj_refs: bool,
    wait_kwargs: dict[str, Any],
) -> Iterator[Any]:
    while True:
        pending.extend(refs if limit is None else itertools.islice(refs, max(limit - len(pending), 0)))
        if not pending:
            return
        ready, pending = _next_chunk(pending, chunk_size, wait_kwargs)
        if yield_obj_refs:
            yield from ready
        else:
            yield from get(ready)
