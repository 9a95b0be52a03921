"""`ray._private.serialization`: the pickler under its old names."""

from ray._serialization.context import dumps as pickle_dumps
from ray.util.serialization import deregister_serializer as deregister_serializer
from ray.util.serialization import register_serializer as register_serializer

__all__ = ["deregister_serializer", "pickle_dumps", "register_serializer"]
