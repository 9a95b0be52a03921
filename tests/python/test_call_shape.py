"""ray._call_shape: calls are accepted and refused as Python itself would."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from ray import _call_shape


def plain(a: int, b: int = 0) -> None: ...
def mixed(a: int, /, b: int, c: int = 3, *rest: int, d: int, e: int = 5, **more: int) -> None: ...
def nothing() -> None: ...
def keyword(*, k: int) -> None: ...
def positional(a: int, b: int = 1, /) -> None: ...


CALLS: list[tuple[tuple[int, ...], dict[str, int]]] = [
    ((), {}),
    ((1,), {}),
    ((1, 2), {}),
    ((1, 2, 3), {}),
    ((1,), {"b": 2}),
    ((1, 2), {"b": 2}),
    ((), {"a": 1}),
    ((1,), {"z": 1}),
    ((1, 2), {"d": 4}),
    ((1, 2, 3, 4, 5), {"d": 4, "z": 1}),
    ((1,), {"a": 1, "b": 2, "d": 4}),
    ((), {"k": 1}),
    ((), {"b": 2, "d": 1}),
]


@pytest.mark.parametrize("function", [plain, mixed, nothing, keyword, positional], ids=lambda f: f.__name__)
@pytest.mark.parametrize(("args", "kwargs"), CALLS, ids=repr)
def test_agrees_with_pythons_own_binding(
    function: Callable[..., Any], args: tuple[int, ...], kwargs: dict[str, int]
) -> None:
    shape = _call_shape.of(function, function.__name__)
    try:
        inspect.signature(function).bind(*args, **kwargs)
    except TypeError:
        with pytest.raises(TypeError, match=function.__name__):
            shape.check(args, kwargs)
    else:
        shape.check(args, kwargs)


def test_methods_are_checked_without_self_and_shapes_travel() -> None:
    class A:
        def m(self, x: int) -> None: ...

    shape = pickle.loads(pickle.dumps(_call_shape.of(A.m, "m", skip_self=True)))
    shape.check((1,), {})
    with pytest.raises(TypeError):
        shape.check((), {})


def test_functions_without_a_signature_accept_anything() -> None:
    _call_shape.of(max, "max").check((1, 2, 3), {"key": None})
