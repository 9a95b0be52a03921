"""ray.exceptions: one tree, picklable, errors that are also instances of their cause."""

from __future__ import annotations

import pickle

import pytest

from ray import exceptions as ex


class Quota(RuntimeError):
    """An error with an argument that its text does not show."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"no more than {limit}")
        self.limit = limit

    def __reduce__(self) -> tuple[object, ...]:
        return (Quota, (self.limit,))


def task_error(cause: BaseException) -> ex.RayTaskError:
    return ex.RayTaskError("f", "Traceback ...\nboom", cause, pid=7, ip="127.0.0.1")


def test_a_task_error_can_be_caught_as_its_cause() -> None:
    error = task_error(Quota(3)).as_instanceof_cause()
    assert isinstance(error, Quota) and isinstance(error, ex.RayTaskError)
    assert error.limit == 3
    assert isinstance(error.cause, Quota)
    assert str(error).startswith("ray::f() (pid=7, ip=127.0.0.1)")
    assert type(error).__name__ == "RayTaskError(Quota)"


def test_errors_that_make_their_instances_themselves() -> None:
    error = task_error(MemoryError("none left")).as_instanceof_cause()
    assert isinstance(error, MemoryError) and error.args == ("none left",)


def test_the_text_tells_only_what_is_known() -> None:
    never_ran = ex.RayTaskError("f", "no argument", Quota(1))
    assert str(never_ran.as_instanceof_cause()) == "ray::f()\nno argument"
    # The actor that the cause tells of is not where the task ran.
    of_actor = ex.RayTaskError("f", "no argument", ex.ActorDiedError("ab" * 16, "it died"))
    assert str(of_actor.as_instanceof_cause()) == "ray::f()\nno argument"


def test_the_dual_error_survives_pickling_with_its_cause() -> None:
    error = pickle.loads(pickle.dumps(task_error(Quota(3)).as_instanceof_cause()))
    assert isinstance(error, Quota)
    assert error.cause.limit == 3
    assert error.pid == 7


def test_causes_that_cannot_be_a_base_class_stay_plain_task_errors() -> None:
    class Final(Exception):
        def __init_subclass__(cls) -> None:
            raise TypeError("no subclasses")

    error = task_error(Final()).as_instanceof_cause()
    assert type(error) is ex.RayTaskError
    assert type(task_error(SystemExit(1)).as_instanceof_cause()) is ex.RayTaskError


@pytest.mark.parametrize(
    "cause",
    [ex.GetTimeoutError("late"), ex.ActorDiedError("ab", "gone"), KeyError("k")],
    ids=lambda e: type(e).__name__,
)
def test_errors_of_ours_and_builtin_ones_are_duals_too(cause: Exception) -> None:
    error = task_error(cause).as_instanceof_cause()
    assert isinstance(error, type(cause))


@pytest.mark.parametrize(
    "error",
    [
        ex.TaskCancelledError(None, "stop"),
        ex.WorkerCrashedError(),
        ex.ActorDiedError("ab", "text", True),
        ex.ActorUnavailableError("restarting", b"\x01"),
        ex.OwnerDiedError("aa", b"\x02" * 56),
        ex.ObjectReconstructionFailedError("aa", "PUT"),
        ex.RaySystemError("bad", "trace"),
        ex.GetTimeoutError("late"),
        ex.UnserializableException("trace"),
        ex.ActorAlreadyExistsError("a"),
    ],
    ids=lambda e: type(e).__name__,
)
def test_every_error_survives_pickling_with_its_text(error: Exception) -> None:
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is type(error)
    assert str(back) == str(error)


def test_the_tree_has_the_documented_extra_bases() -> None:
    assert issubclass(ex.GetTimeoutError, TimeoutError)
    assert issubclass(ex.ActorAlreadyExistsError, ValueError)
    assert issubclass(ex.ReferenceCountingAssertionError, AssertionError)
    assert issubclass(ex.OwnerDiedError, ex.ObjectLostError)
    assert issubclass(ex.ActorDiedError, ex.RayActorError)


def test_the_text_of_a_dead_actor_names_it_and_the_cause() -> None:
    fields = {
        "actor_id": b"\xab",
        "class_name": "Counter",
        "pid": 12,
        "actor_name": "c",
        "ray_namespace": "ns",
        "node_ip": "192.0.2.7",
        "message": "killed by signal 9",
    }
    text = str(ex.ActorDiedError.from_fields(fields))
    assert text.splitlines() == [
        "The actor died unexpectedly before finishing this task.",
        "\tclass_name: Counter",
        "\tactor_id: ab",
        "\tpid: 12",
        "\tname: c",
        "\tnamespace: ns",
        "\tip: 192.0.2.7",
        "killed by signal 9",
    ]


def test_the_text_of_an_actor_that_never_had_a_process_names_none() -> None:
    fields = {"actor_id": b"\xab", "class_name": "Counter", "pid": 0, "node_ip": "", "never_ran": True}
    text = str(ex.ActorDiedError.from_fields(fields))
    assert "pid:" not in text and "ip:" not in text
    assert text.endswith("The actor never ran - it was cancelled before it started running.")


def test_an_init_error_carries_the_constructors_error() -> None:
    init = task_error(ValueError("in init"))
    error = ex.ActorDiedError.from_fields({"actor_init_failed": True}, init)
    assert error.actor_init_failed
    assert "in init" not in str(error) or "boom" in str(error)
    assert error.__cause__ is init


@pytest.mark.parametrize(
    "kind",
    [
        ex.TaskUnschedulableError,
        ex.ActorUnschedulableError,
        ex.ActorAlreadyExistsError,
        ex.ActorHandleNotFoundError,
    ],
)
def test_errors_with_an_error_message(kind: type[ex.RayError]) -> None:
    error = pickle.loads(pickle.dumps(kind("no room")))
    assert error.error_message == "no room" and "no room" in str(error)
    assert isinstance(error, ValueError) == (kind in (ex.ActorAlreadyExistsError, ex.ActorHandleNotFoundError))


def test_errors_with_a_message() -> None:
    assert ex.AuthenticationError("no token").message == "no token"
    error = pickle.loads(pickle.dumps(ex.RpcError("cut", 14)))
    assert (error.message, error.rpc_code, str(error)) == ("cut", 14, "cut")
