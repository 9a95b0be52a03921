"""What the value layer does without a cluster; refs inside values are tested on a real one."""

import threading

import pytest

import ray._runtime.session  # noqa: F401  # registers the pickler
from ray._core import values
from ray._raylet import ObjectRef
from ray._serialization import registry
from ray._serialization.errors import make_exception
from ray.exceptions import (
    ActorDiedError,
    ObjectLostError,
    RaySystemError,
    RayTaskError,
    TaskCancelledError,
    WorkerCrashedError,
)


def _round_trip(value):
    return values.deserialize(values.serialize(value))


@pytest.mark.parametrize("value", [1, 1.5, "a", True, None, b"raw", (1, [2, {"k": b"v"}]), {1, 2}, list(range(1000))])
def test_round_trip(value):
    assert _round_trip(value) == value


def test_bytes_are_raw():
    packed = values.serialize(b"abc")
    assert packed.metadata == "RAW" and packed.data == b"abc"
    assert values.serialize("abc").metadata == "PYTHON"


def test_functions_travel_by_value():
    offset = 3
    assert _round_trip(lambda x: x + offset)(4) == 7


@pytest.mark.parametrize("depth", [1, 15, 16, 17, 100])
def test_nested_tuples(depth):
    value = ()
    for _ in range(depth):
        value = (value,)
    assert _round_trip(value) == value


def test_tuples_nested_without_bound_fail_cleanly():
    value = ()
    for _ in range(1_000_000):
        value = (value,)
    with pytest.raises(TypeError, match="deep recursion"):
        values.serialize(value)


def test_large_buffers_leave_the_pickle():
    numpy = pytest.importorskip("numpy")
    array = numpy.arange(100_000)
    packed = values.serialize({"a": array})
    assert len(packed.buffers) == 1 and len(packed.data) < 1000
    assert (values.deserialize(packed)["a"] == array).all()


def test_refs_inside_are_noted():
    ref = ObjectRef(b"\1" * 28)
    assert set(values.serialize([ref]).nested_ids()) == {b"\1" * 28}


def test_registered_serializer():
    class Locked:
        def __init__(self, x):
            self.x, self.lock = x, threading.Lock()

    registry.register(Locked, lambda v: v.x, lambda x: Locked(x))
    try:
        assert _round_trip([Locked(5)])[0].x == 5
    finally:
        registry.deregister(Locked)
    with pytest.raises(TypeError):
        values.serialize(Locked(5))


def test_unserializable_says_what():
    with pytest.raises(TypeError, match="lock"):
        values.serialize({"a": threading.Lock()})


def _fields(number, **changes):
    fields = dict.fromkeys(("message", "class_name", "actor_name", "ray_namespace", "node_ip", "argument_of"), "")
    fields.update(
        dict.fromkeys(("actor_id", "owner_address", "task_id"), b""), init_error=None, error_type=number, pid=0
    )
    fields.update(dict.fromkeys(("actor_init_failed", "never_ran", "preempted"), False))
    fields.update(changes)
    return fields


@pytest.mark.parametrize(
    ("number", "cls"),
    [(0, WorkerCrashedError), (1, ActorDiedError), (5, TaskCancelledError), (8, ObjectLostError), (99, RaySystemError)],
)
def test_error_numbers(number, cls):
    assert type(make_exception(_fields(number, message="why"), "ab" * 28)) is cls
    of_argument = make_exception(_fields(number, message="why", argument_of="use"), "ab" * 28)
    assert isinstance(of_argument, RayTaskError) and isinstance(of_argument, cls)
    assert of_argument.function_name == "use" and type(of_argument.cause) is cls
    assert "input arguments" in str(of_argument) and cls.__name__ in str(of_argument)
