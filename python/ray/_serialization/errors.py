"""From the error numbers of the core to the exceptions of `ray.exceptions`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ray import exceptions as ex
from ray._core import creation_sites

if TYPE_CHECKING:
    from ray._core.ids import TaskID

_OWNER_DIED, _RECONSTRUCTION_PUT = 9, 27
_OF_ARGUMENT = "At least one of the input arguments for this task could not be computed:"

Fields = dict[str, Any]

# What each number becomes, from the fields of the error and the hex id of the object. Numbers: cpp/ray/common/errors.h.
_MAKERS: dict[int, Callable[[Fields, str], Exception]] = {
    0: lambda f, _: ex.WorkerCrashedError(f["message"] or None),
    1: lambda f, _: ex.ActorDiedError.from_fields(f, f["init_error"]),
    5: lambda f, _: _cancelled(f),
    6: lambda f, _: ex.ActorDiedError.from_fields({**f, "actor_init_failed": True}, f["init_error"]),
    7: lambda f, _: ex.RuntimeEnvSetupError(f["message"]),
    8: lambda f, ref: ex.ObjectLostError(ref, f["owner_address"], _site(ref)),
    9: lambda f, ref: ex.OwnerDiedError(ref, f["owner_address"], _site(ref)),
    10: lambda f, ref: ex.ReferenceCountingAssertionError(ref, f["owner_address"], _site(ref)),
    11: lambda f, _: _dependency(f),
    14: lambda f, ref: ex.ObjectFetchTimedOutError(ref, f["owner_address"], _site(ref)),
    15: lambda f, _: ex.LocalRayletDiedError(f["message"] or None),
    16: lambda f, _: ex.TaskPlacementGroupRemoved(f["message"] or None),
    17: lambda f, _: ex.ActorPlacementGroupRemoved.from_fields(f),
    18: lambda f, _: ex.TaskUnschedulableError(f["message"]),
    19: lambda f, _: ex.ActorUnschedulableError(f["message"]),
    20: lambda f, _: ex.OutOfDiskError(f["message"] or None),
    21: lambda f, ref: ex.ObjectFreedError(ref, f["owner_address"], _site(ref)),
    22: lambda f, _: ex.OutOfMemoryError(f["message"] or None),
    23: lambda f, _: ex.NodeDiedError(f["message"] or None),
    24: lambda f, _: ex.ObjectRefStreamEndOfStreamError(f["message"]),
    25: lambda f, _: ex.ActorUnavailableError(f["message"], f["actor_id"] or None),
    33: lambda f, _: ex.RaySystemError(f["message"]),
    34: lambda f, _: ex.StreamingGeneratorReplayInconsistentError(f["message"]),
    40: lambda f, _: ex.ObjectStoreFullError(f["message"] or None),
    43: lambda f, _: ex.RaySystemError(f["message"]),
    41: lambda f, _: ex.TaskTimeoutError(f["message"], _task_id(f), f["task_name"], f["timeout_s"] or None),
}
# Reasons why an object cannot be made again.
_UNRECONSTRUCTABLE = frozenset({12, 13, 26, 27, 28, 29, 30, 31, 32, 42})


def _site(object_id: str) -> str:
    return creation_sites.of(bytes.fromhex(object_id))


def _task_id(fields: Fields) -> TaskID | None:
    from ray._core.ids import TaskID

    task_id = fields["task_id"]
    return TaskID(task_id) if len(task_id) == TaskID.SIZE else None


def _dependency(fields: Fields) -> Exception:
    cause = fields["init_error"]
    if not isinstance(cause, ex.RayTaskError):
        return ex.RaySystemError(fields["message"])
    text = f"{_OF_ARGUMENT}\n{cause}"
    return ex.RayTaskError(fields["task_name"], text, cause.cause, None, cause.pid, cause.ip).as_instanceof_cause()


def _cancelled(fields: Fields) -> Exception:
    interrupted = fields["init_error"]
    if isinstance(interrupted, ex.RayTaskError):  # it ran, and this tells where it was
        return interrupted.as_instanceof_cause()
    return ex.TaskCancelledError(_task_id(fields), fields["message"] or None)


def make_exception(fields: Fields, object_id: str) -> Exception:
    """The exception for the fields of an ErrorDetail that object `object_id` (hex) holds."""
    if not fields["argument_of"]:
        return _make(fields, object_id)
    # Both a RayTaskError, as of all tasks whose argument has failed, and what the argument is.
    cause = _make(fields, object_id)
    text = f"{_OF_ARGUMENT}\n{type(cause).__module__}.{type(cause).__qualname__}: {cause}"
    pid = fields["pid"] or None
    ip = fields["node_ip"] or None
    inner = cause.cause if isinstance(cause, ex.RayTaskError) else cause
    return ex.RayTaskError(fields["argument_of"], text, inner, None, pid, ip).as_instanceof_cause()


def _make(fields: Fields, object_id: str) -> Exception:
    number = fields["error_type"]
    maker = _MAKERS.get(number)
    if maker is not None:
        return maker(fields, object_id)
    if number in _UNRECONSTRUCTABLE:
        return ex.ObjectReconstructionFailedError(object_id, number, None, fields["owner_address"], _site(object_id))
    return ex.RaySystemError(f"error {number}: {fields['message']}")
