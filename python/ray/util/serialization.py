"""Custom serializers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ray._serialization import registry


def register_serializer(cls: type, *, serializer: Callable[[Any], Any], deserializer: Callable[[Any], Any]) -> None:
    """Pickles instances of `cls` as `deserializer(serializer(instance))`, in this process.

    The deserializer travels with the value: readers need no registration.
    """
    registry.register(cls, serializer, deserializer)


def deregister_serializer(cls: type) -> None:
    """Takes a registration back; does nothing if there is none."""
    registry.deregister(cls)
