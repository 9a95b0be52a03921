"""The pickler for values that are not plain: cloudpickle with buffers out of band, and our registered serializers."""

from __future__ import annotations

import io
import pickle
import traceback
from collections.abc import Callable
from typing import Any

from ray._core import values
from ray._serialization import errors, tensors
from ray._serialization.registry import reduce_registered


def _make_pickler() -> type[pickle.Pickler]:
    from cloudpickle import Pickler  # takes 30 ms to import, so not before it is needed

    zero_copy_tensors = tensors.wanted()

    class ValuePickler(Pickler):  # type: ignore[misc]  # cloudpickle has no types
        def reducer_override(self, obj: Any) -> Any:
            reduced = reduce_registered(obj)
            if reduced is None:
                reduced = tensors.reduce_tensor(obj, zero_copy_tensors)
            return super().reducer_override(obj) if reduced is None else reduced

    return ValuePickler


_pickler: type[pickle.Pickler] | None = None  # made once, on the first value that needs it


def _class() -> type[pickle.Pickler]:
    global _pickler
    if _pickler is None:
        _pickler = _make_pickler()
    return _pickler


def dumps(value: Any, views: list[memoryview] | None = None) -> bytes:
    """Pickles `value`; contiguous buffers go to `views`, if given.

    Raises:
        TypeError: it cannot be pickled; the text says which part of it.
    """
    file = io.BytesIO()
    callback: Callable[[pickle.PickleBuffer], None] | None = None
    if views is not None:
        out = views

        def callback(buffer: pickle.PickleBuffer) -> None:
            out.append(buffer.raw())

    try:
        _class()(file, protocol=5, buffer_callback=callback).dump(value)
    except (TypeError, pickle.PicklingError, AttributeError) as error:
        from ray.util.check_serialize import explain

        raise TypeError(f"Could not serialize {_short(value)}:\n{explain(value)}") from error
    return file.getvalue()


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except Exception:
        text = f"an object of {type(value)!r}"
    return text if len(text) <= 200 else text[:200] + "..."


def load_failed(error: Exception) -> Exception:
    """What a value that cannot be unpickled is replaced by."""
    from ray.exceptions import RaySystemError

    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    made = RaySystemError(str(error), text)
    made.__cause__ = error
    return made


def load_error_failed(error: Exception, data: bytes, buffers: list[Any]) -> Exception:
    """What the error of a task that cannot be unpickled is replaced by: one that still tells what happened there."""
    from ray.exceptions import RayTaskError, UnserializableException

    try:
        found = _Salvage(io.BytesIO(data), buffers=buffers).load()
    except Exception:
        found = None
    if not isinstance(found, RayTaskError):
        return RayTaskError("unknown", str(load_failed(error)), UnserializableException(str(error)))
    cause = UnserializableException(found.traceback_str)
    cause.__cause__ = error
    where = (found.proctitle, found.pid, found.ip, found.actor_repr, found.actor_id)
    return RayTaskError(found.function_name, found.traceback_str, cause, *where)


class _Lost:
    """Stands for what could not be made again."""

    def __new__(cls, *_: Any, **__: Any) -> _Lost:
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        pass

    def __call__(self, *_: Any, **__: Any) -> _Lost:
        return _Lost()


class _Salvage(pickle.Unpickler):
    """Reads the pickle of a RayTaskError for the sake of its texts; all else in it becomes a `_Lost`."""

    def find_class(self, module: str, name: str) -> Any:
        from ray.exceptions import RayTaskError

        return RayTaskError if (module, name) == (RayTaskError.__module__, RayTaskError.__name__) else _Lost


values.register(dumps, errors.make_exception, load_failed, load_error_failed)
