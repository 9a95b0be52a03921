"""Serializers that programs register for classes of their own. The deserializer travels with each value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Serializer = Callable[[Any], Any]
_serializers: dict[
    type, tuple[Serializer, Serializer]
] = {}  # read by every slow pickle; written by register and deregister only


def register(cls: type, serializer: Serializer, deserializer: Serializer) -> None:
    """Values of exactly `cls` are stored as `deserializer(serializer(value))` from now on."""
    if not isinstance(cls, type):
        raise TypeError(f"serializers are registered for classes, got {cls!r}")
    _serializers[cls] = (serializer, deserializer)


def deregister(cls: type) -> None:
    """Takes `register` back; nothing happens for a class that is not registered."""
    _serializers.pop(cls, None)


def _restore(deserializer: Serializer, state: Any) -> Any:
    return deserializer(state)


def reduce_registered(value: Any) -> tuple[Any, ...] | None:
    """What to pickle in place of `value`, or None where no serializer is registered for its class."""
    found = _serializers.get(type(value))
    if found is None:
        return None
    return _restore, (found[1], found[0](value))
