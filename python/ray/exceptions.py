"""Every error that Ray raises, in one tree under `RayError`.

Names, bases and attributes follow the public surface of Ray 2.60. All of them can be pickled, and keep their cause.
"""

from __future__ import annotations

import builtins
import contextlib
import enum
import sys
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ray._raylet import TaskID

_GROUPS: Any = getattr(builtins, "BaseExceptionGroup", ())  # none before Python 3.11
_CYAN, _RESET = "\033[36m", "\033[39m"


def _hex(value: bytes | None) -> str | None:
    return value.hex() if value else None


class RayError(Exception):
    """Base of all errors that Ray raises."""


class RayTaskError(RayError):
    """User code raised inside a task or actor method.

    `ray.get` raises `as_instanceof_cause()`, an error that is also an instance of the cause's class, so that
    `except ZeroDivisionError` works across processes.

    Attributes:
        cause: the original exception.
        function_name: display name of the task.
        traceback_str: traceback as text, without Ray's own frames.
        proctitle, pid, ip: where it ran.
        actor_repr, actor_id: of the actor, or None.
    """

    def __init__(
        self,
        function_name: str,
        traceback_str: str,
        cause: BaseException,
        proctitle: str | None = None,
        pid: int | None = None,
        ip: str | None = None,
        actor_repr: str | None = None,
        actor_id: str | None = None,
    ) -> None:
        super().__init__(function_name, traceback_str, cause, proctitle, pid, ip, actor_repr, actor_id)
        self.function_name = function_name
        self.traceback_str = traceback_str
        self.cause: Any = cause
        self.proctitle = proctitle or f"ray::{function_name}()"
        self.pid = pid
        self.ip = ip
        self.actor_repr = actor_repr
        self.actor_id = actor_id

    def _header(self) -> str:
        where = [f"pid={self.pid}", f"ip={self.ip}"]
        if self.actor_id:
            where += [f"actor_id={self.actor_id}", f"repr={self.actor_repr}"]
        colours = sys.stderr is not None and sys.stderr.isatty()
        title = f"{_CYAN}{self.proctitle}{_RESET}" if colours else self.proctitle
        return f"{title} ({', '.join(where)})"

    def __str__(self) -> str:
        return f"{self._header()}\n{self.traceback_str.rstrip()}"

    def as_instanceof_cause(self) -> RayError:
        """An error to raise that is both a `RayTaskError` and an instance of the cause's class."""
        innermost: BaseException = self.cause
        while isinstance(innermost, RayTaskError):  # a task that got the error of another one
            innermost = innermost.cause
        cause_class = type(innermost)
        if not issubclass(cause_class, Exception):
            return self
        return self._dual(cause_class) or self

    def _dual(self, cause_class: type[BaseException]) -> RayTaskError | None:
        name = f"RayTaskError({cause_class.__name__})"
        try:
            dual_class: Any = type(
                name, (_DualTaskError, cause_class), {"__module__": "ray.exceptions", "__qualname__": name}
            )
            args: tuple[Any, ...] = ()
            if issubclass(cause_class, _GROUPS):  # they cannot be made without
                args = (self.cause.message, self.cause.exceptions)
            dual: RayTaskError = dual_class.__new__(dual_class, *args)
        except TypeError:  # a final class, or a layout that cannot be combined
            return None
        _DualTaskError.__init__(dual, self)  # type: ignore[arg-type]  # dual_class derives from it
        return dual

    def __reduce__(self) -> tuple[Any, ...]:
        args = (
            self.function_name,
            self.traceback_str,
            self.cause,
            self.proctitle,
            self.pid,
            self.ip,
            self.actor_repr,
            self.actor_id,
        )
        return (RayTaskError, args)


class _DualTaskError(RayTaskError):
    """The part of a dual error that is the RayTaskError; the other base is the class of the cause."""

    def __init__(self, error: RayTaskError) -> None:
        self.__dict__.update(getattr(error.cause, "__dict__", {}))
        self.__dict__.update(error.__dict__)
        self.args = getattr(error.cause, "args", ())
        for cls in type(error.cause).__mro__:  # what a built-in class keeps outside of __dict__, such as OSError.errno
            for name, member in vars(cls).items():
                if isinstance(member, types.MemberDescriptorType) and not name.startswith("__"):
                    with contextlib.suppress(AttributeError):  # read-only: what groups of errors are made with
                        setattr(self, name, getattr(error.cause, name, None))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "cause":
            raise AttributeError(name)
        return getattr(self.cause, name)

    def __str__(self) -> str:
        return RayTaskError.__str__(self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.cause!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        _, args = RayTaskError.__reduce__(self)
        return (_rebuild_dual, args)


def _rebuild_dual(*args: Any) -> RayError:
    return RayTaskError(*args).as_instanceof_cause()


class TaskCancelledError(RayError):
    """The task was cancelled, before or while it ran."""

    def __init__(self, task_id: TaskID | None = None, error_message: str | None = None) -> None:
        super().__init__(task_id, error_message)
        self.task_id = task_id
        self.error_message = error_message

    def __str__(self) -> str:
        if self.error_message:
            return self.error_message
        if self.task_id is None:
            return "This task or its dependency was cancelled."
        return f"Task {self.task_id} was cancelled."


class TaskTimeoutError(RayError, TimeoutError):
    """The task ran longer than its `timeout_s` option allows and was ended. Our own addition.

    Attributes:
        task_id: the task, or None.
        task_name: its display name.
        timeout_s: what it was allowed, in seconds.
    """

    def __init__(
        self, message: str, task_id: TaskID | None = None, task_name: str = "", timeout_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.args = (message, task_id, task_name, timeout_s)
        self.task_id = task_id
        self.task_name = task_name
        self.timeout_s = timeout_s

    def __str__(self) -> str:
        return str(self.args[0])


class _MessageError(RayError):
    """An error with one text, which subclasses may default."""

    _default = ""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message)
        self.message = message or self._default

    def __str__(self) -> str:
        return self.message


class WorkerCrashedError(_MessageError):
    """The worker process died while it ran the task, and no retry was left."""

    _default = (
        "The worker died unexpectedly while executing this task. "
        "The python-core-worker-*.log files of the session tell more."
    )

    @property
    def error_message(self) -> str:
        return self.message


class LocalRayletDiedError(_MessageError):
    """The raylet of this node died."""

    _default = "The task's local raylet died. raylet.out in the session's log directory tells more."


class NodeDiedError(_MessageError):
    """The node that ran the task died."""


class OutOfMemoryError(_MessageError):
    """The memory monitor ended the worker, and no retry was left. The text tells what filled the memory."""

    _default = "Task was killed due to the node running low on memory."


class ObjectStoreFullError(_MessageError):
    """The object store has no room, even after waiting."""

    _default = "The local object store is full of objects that are still in use. `ray memory` lists them."


class OutOfDiskError(_MessageError):
    """The disk that objects are spilled to is full."""

    _default = "Local disk is full."


class RuntimeEnvSetupError(RayError):
    """The runtime environment could not be made."""

    def __init__(self, error_message: str | None = None) -> None:
        super().__init__(error_message)
        self.error_message = error_message

    def __str__(self) -> str:
        text = "Failed to set up runtime environment."
        return f"{text}\n{self.error_message}" if self.error_message else text


class TaskPlacementGroupRemoved(_MessageError):
    """The placement group of the task was removed."""

    _default = "The placement group corresponding to this task has been removed."


class TaskUnschedulableError(_MessageError):
    """The task can never run where it was told to."""

    def __str__(self) -> str:
        return f"The task is not schedulable: {self.message}"


class ActorUnschedulableError(_MessageError):
    """The actor can never be placed where it was told to."""

    def __str__(self) -> str:
        return f"The actor is not schedulable: {self.message}"


class RayActorError(RayError):
    """Base of the errors of dead and unreachable actors.

    Attributes:
        actor_id: hex, or None if unknown.
        error_msg: the text.
        actor_init_failed: the constructor raised.
    """

    base_error_msg = "The actor experienced an error before finishing this task."

    def __init__(
        self,
        actor_id: str | None = None,
        error_msg: str | None = None,
        actor_init_failed: bool = False,
        preempted: bool = False,
    ) -> None:
        super().__init__(actor_id, error_msg, actor_init_failed, preempted)
        self._actor_id = actor_id
        self.error_msg = error_msg or self.base_error_msg
        self._actor_init_failed = actor_init_failed
        self._preempted = preempted

    @property
    def actor_id(self) -> str | None:
        return self._actor_id

    @property
    def actor_init_failed(self) -> bool:
        return self._actor_init_failed

    @property
    def preempted(self) -> bool:
        return self._preempted

    def __str__(self) -> str:
        return self.error_msg


class ActorDiedError(RayActorError):
    """The actor is dead for good. The text says who it was and why it died."""

    base_error_msg = "The actor died unexpectedly before finishing this task."

    @classmethod
    def from_fields(cls, fields: dict[str, Any], init_error: RayTaskError | None = None) -> ActorDiedError:
        """Makes the error of an ErrorDetail; `init_error` is what the constructor raised."""
        actor_id = _hex(fields.get("actor_id"))
        if fields.get("actor_init_failed"):
            text = (
                f"The actor died because of an error raised in its creation task, {init_error}"
                if init_error is not None
                else f"The actor died in its creation task: {fields.get('message')}"
            )
        else:
            lines = [cls.base_error_msg]
            for label, key in (
                ("class_name", "class_name"),
                ("pid", "pid"),
                ("name", "actor_name"),
                ("namespace", "ray_namespace"),
            ):
                if fields.get(key):
                    lines.append(f"\t{label}: {fields[key]}")
            if actor_id:
                lines.insert(2, f"\tactor_id: {actor_id}")
            if fields.get("message"):
                lines.append(fields["message"])
            if fields.get("never_ran"):
                lines.append("The actor never ran - it was cancelled before it started running.")
            text = "\n".join(lines)
        error = cls(actor_id, text, bool(fields.get("actor_init_failed")), bool(fields.get("preempted")))
        error.__cause__ = init_error
        return error


class ActorPlacementGroupRemoved(ActorDiedError):
    """The placement group of the actor was removed: the actor is dead for good, or never came to live."""

    base_error_msg = "The placement group corresponding to this actor has been removed."


class ActorUnavailableError(RayActorError):
    """The actor cannot be reached now, but may be again; the call may or may not have run."""

    def __init__(self, error_message: str, actor_id: bytes | str | None = None) -> None:
        text = actor_id.hex() if isinstance(actor_id, bytes) else actor_id
        super().__init__(
            text,
            f"The actor {text} is unavailable: {error_message}. "
            "The task may or may not have been executed on the actor.",
        )
        self.args = (error_message, text)


class RaySystemError(RayError):
    """Something of Ray itself failed, or Ray was not started."""

    def __init__(self, client_exc: object, traceback_str: str | None = None) -> None:
        super().__init__(client_exc, traceback_str)
        self.client_exc = client_exc
        self.traceback_str = traceback_str

    def __str__(self) -> str:
        text = f"System error: {self.client_exc}"
        return f"{text}\ntraceback: {self.traceback_str}" if self.traceback_str else text


class StreamingGeneratorReplayInconsistentError(RaySystemError):
    """A generator that was run again gave another number of items."""


class AuthenticationError(RayError):
    """The token is missing or wrong."""


class UserCodeException(RayError):
    """Wrapper of libraries around an error in user code; `retry_exceptions` looks at its cause."""


class ObjectLostError(RayError):
    """All copies of the object are lost and it cannot be made again.

    Attributes:
        object_ref_hex: id of the object.
        owner_address: of its owner, as bytes.
        call_site: where the ref was made, if recorded.
    """

    _reason = "all copies of it are lost"

    def __init__(self, object_ref_hex: str, owner_address: object = None, call_site: str = "") -> None:
        super().__init__(object_ref_hex, owner_address, call_site)
        self.object_ref_hex = object_ref_hex
        self.owner_address = owner_address
        self.call_site = call_site

    def __str__(self) -> str:
        text = f"Failed to retrieve object {self.object_ref_hex}: {self._reason}."
        return f"{text} The ObjectRef was created at: {self.call_site}" if self.call_site else text


class ObjectFetchTimedOutError(ObjectLostError):
    """No copy of the object was found in time."""

    _reason = "no copy was found in time"


class ReferenceCountingAssertionError(ObjectLostError, AssertionError):
    """The object was deleted while a ref to it existed."""

    _reason = "it was deleted although references to it remain"


class ObjectFreedError(ObjectLostError):
    """The object was freed explicitly."""

    _reason = "it was freed"


class OwnerDiedError(ObjectLostError):
    """The process that owned the object is gone."""

    @property
    def _owner_text(self) -> str:
        owner = self.owner_address
        if isinstance(owner, bytes) and len(owner) == 56:
            return f"worker {owner[28:].hex()} on node {owner[:28].hex()}"
        return "unknown"

    def __str__(self) -> str:
        return (
            f"Failed to retrieve object {self.object_ref_hex}: its owner, the Python process that created the first "
            f"ObjectRef with ray.put or .remote(), has exited ({self._owner_text})."
        )


class ErrorType(enum.IntEnum):
    """Why a lost object cannot be made again; the numbers are those of the core (cpp/ray/common/errors.h)."""

    DEPENDENCY_RESOLUTION_FAILED = 11
    OBJECT_UNRECONSTRUCTABLE_MAX_ATTEMPTS_EXCEEDED = 12
    OBJECT_UNRECONSTRUCTABLE_LINEAGE_EVICTED = 13
    GENERATOR_TASK_FAILED_FOR_OBJECT_RECONSTRUCTION = 26
    OBJECT_UNRECONSTRUCTABLE_PUT = 27
    OBJECT_UNRECONSTRUCTABLE_RETRIES_DISABLED = 28
    OBJECT_UNRECONSTRUCTABLE_BORROWED = 29
    OBJECT_UNRECONSTRUCTABLE_REF_NOT_FOUND = 30
    OBJECT_UNRECONSTRUCTABLE_TASK_CANCELLED = 31
    OBJECT_UNRECONSTRUCTABLE_LINEAGE_DISABLED = 32


_UNRECONSTRUCTABLE = {
    ErrorType.DEPENDENCY_RESOLUTION_FAILED: "an argument of the task that made it could not be had",
    ErrorType.OBJECT_UNRECONSTRUCTABLE_MAX_ATTEMPTS_EXCEEDED: "the task that made it has no retry left; "
    "`max_retries` (for actors: `max_task_retries`) sets how many it gets",
    ErrorType.OBJECT_UNRECONSTRUCTABLE_LINEAGE_EVICTED: "what its task was made of had to be forgotten; "
    "RAY_max_lineage_bytes (1 GiB by default) limits how much is kept in each process",
    ErrorType.GENERATOR_TASK_FAILED_FOR_OBJECT_RECONSTRUCTION: "its generator failed when it was run again",
    ErrorType.OBJECT_UNRECONSTRUCTABLE_PUT: "it was made by ray.put; only what tasks return can be made again",
    ErrorType.OBJECT_UNRECONSTRUCTABLE_RETRIES_DISABLED: "the task that made it may not be retried (`max_retries=0`, "
    "for actors `max_task_retries=0`, the default)",
    ErrorType.OBJECT_UNRECONSTRUCTABLE_BORROWED: "its task needs an object of another process that was let go",
    ErrorType.OBJECT_UNRECONSTRUCTABLE_REF_NOT_FOUND: "nothing is known any more of how it was made",
    ErrorType.OBJECT_UNRECONSTRUCTABLE_TASK_CANCELLED: "the task that made it was cancelled",
    ErrorType.OBJECT_UNRECONSTRUCTABLE_LINEAGE_DISABLED: "RAY_max_lineage_bytes=0 or RAY_lineage_pinning_enabled=0",
}


class ObjectReconstructionFailedError(ObjectLostError):
    """The object is lost and its task cannot be run again; `reason`, an `ErrorType`, says why."""

    def __init__(
        self, object_ref_hex: str, reason: object = None, owner_address: object = None, call_site: str = ""
    ) -> None:
        super().__init__(object_ref_hex, owner_address, call_site)
        if isinstance(reason, int) and reason in ErrorType._value2member_map_:
            reason = ErrorType(reason)
        self.args = (object_ref_hex, reason, owner_address, call_site)
        self.reason = reason

    def __str__(self) -> str:
        name = getattr(self.reason, "name", self.reason)
        explanation = _UNRECONSTRUCTABLE.get(self.reason, "") if isinstance(self.reason, ErrorType) else ""
        return f"{super().__str__()} [{name}] {explanation}".rstrip()


class GetTimeoutError(RayError, TimeoutError):
    """The time given to `ray.get` or another call ran out."""


class PlasmaObjectNotAvailable(RayError):
    """The object is not in the store within the time given."""


class AsyncioActorExit(RayError):
    """Raised inside an async actor by `ray.actor.exit_actor`."""


class RpcError(RayError):
    """A remote procedure call failed."""

    def __init__(self, message: str, rpc_code: int | None = None) -> None:
        super().__init__(message, rpc_code)
        self.rpc_code = rpc_code

    def __str__(self) -> str:
        return str(self.args[0])


class CrossLanguageError(RayError):
    """A task in another language failed."""


class PendingCallsLimitExceeded(RayError):
    """An actor handle has more calls in flight than `max_pending_calls` allows."""


class ObjectRefStreamEndOfStreamError(RayError):
    """There is no item behind this ref: the stream ended before it."""


class OufOfBandObjectRefSerializationException(RayError):
    """An ObjectRef was pickled outside of Ray although that was forbidden."""


class UnserializableException(RayError):
    """An error arrived that could not be unpickled; the text is its original trace."""

    def __init__(self, original_stack_trace: str) -> None:
        super().__init__(original_stack_trace)
        self.original_stack_trace = original_stack_trace

    def __str__(self) -> str:
        return f"Failed to deserialize exception. Refer to the original stack trace:\n{self.original_stack_trace}"


class ActorAlreadyExistsError(ValueError, RayError):
    """The name is taken by another actor of the namespace."""


class ActorHandleNotFoundError(ValueError, RayError):
    """The handle belongs to another session."""


class RayChannelError(RaySystemError):
    """A channel of a compiled graph failed."""


class RayChannelTimeoutError(RayChannelError, TimeoutError):
    """A channel of a compiled graph was not ready in time."""


class RayCgraphCapacityExceeded(RaySystemError):
    """A compiled graph has more executions in flight than allowed."""


class RayDirectTransportError(RaySystemError):
    """A direct tensor transfer failed."""


RAY_EXCEPTION_TYPES: list[type[BaseException]] = [
    value for value in list(globals().values()) if isinstance(value, type) and issubclass(value, RayError)
]
