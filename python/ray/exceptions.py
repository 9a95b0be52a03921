"""Every error that Ray raises, in one tree under `RayError`.

Names, bases and attributes follow the public surface of Ray 2.60. All of them can be pickled, and keep their cause.
"""

from __future__ import annotations

from ray._exceptions.actor import ActorAlreadyExistsError as ActorAlreadyExistsError
from ray._exceptions.actor import ActorDiedError as ActorDiedError
from ray._exceptions.actor import ActorHandleNotFoundError as ActorHandleNotFoundError
from ray._exceptions.actor import ActorPlacementGroupRemoved as ActorPlacementGroupRemoved
from ray._exceptions.actor import ActorUnavailableError as ActorUnavailableError
from ray._exceptions.actor import ActorUnschedulableError as ActorUnschedulableError
from ray._exceptions.actor import AsyncioActorExit as AsyncioActorExit
from ray._exceptions.actor import PendingCallsLimitExceeded as PendingCallsLimitExceeded
from ray._exceptions.actor import RayActorError as RayActorError
from ray._exceptions.base import MessageError
from ray._exceptions.base import RayError as RayError
from ray._exceptions.object import ErrorType as ErrorType
from ray._exceptions.object import ObjectFetchTimedOutError as ObjectFetchTimedOutError
from ray._exceptions.object import ObjectFreedError as ObjectFreedError
from ray._exceptions.object import ObjectLostError as ObjectLostError
from ray._exceptions.object import ObjectReconstructionFailedError as ObjectReconstructionFailedError
from ray._exceptions.object import ObjectRefStreamEndOfStreamError as ObjectRefStreamEndOfStreamError
from ray._exceptions.object import ObjectStoreFullError as ObjectStoreFullError
from ray._exceptions.object import OufOfBandObjectRefSerializationException as OufOfBandObjectRefSerializationException
from ray._exceptions.object import OutOfDiskError as OutOfDiskError
from ray._exceptions.object import OwnerDiedError as OwnerDiedError
from ray._exceptions.object import PlasmaObjectNotAvailable as PlasmaObjectNotAvailable
from ray._exceptions.object import ReferenceCountingAssertionError as ReferenceCountingAssertionError
from ray._exceptions.task import OutOfMemoryError as OutOfMemoryError
from ray._exceptions.task import RayTaskError as RayTaskError
from ray._exceptions.task import TaskCancelledError as TaskCancelledError
from ray._exceptions.task import TaskPlacementGroupRemoved as TaskPlacementGroupRemoved
from ray._exceptions.task import TaskTimeoutError as TaskTimeoutError
from ray._exceptions.task import TaskUnschedulableError as TaskUnschedulableError
from ray._exceptions.task import WorkerCrashedError as WorkerCrashedError


class LocalRayletDiedError(MessageError):
    """The raylet of this node died."""

    _default = "The task's local raylet died. raylet.out in the session's log directory tells more."


class NodeDiedError(MessageError):
    """The node that ran the task died."""


class RuntimeEnvSetupError(RayError):
    """The runtime environment could not be made."""

    def __init__(self, error_message: str | None = None) -> None:
        super().__init__(error_message)
        self.error_message = error_message

    def __str__(self) -> str:
        text = "Failed to set up runtime environment."
        return f"{text}\n{self.error_message}" if self.error_message else text


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

    @property
    def message(self) -> str:
        """The text."""
        return str(self)


class UserCodeException(RayError):
    """Wrapper of libraries around an error in user code; `retry_exceptions` looks at its cause."""


class GetTimeoutError(RayError, TimeoutError):
    """The time given to `ray.get` or another call ran out."""


class RpcError(RayError):
    """A remote procedure call failed."""

    def __init__(self, message: str, rpc_code: int | None = None) -> None:
        super().__init__(message, rpc_code)
        self.message = message
        self.rpc_code = rpc_code

    def __str__(self) -> str:
        return self.message


class CrossLanguageError(RayError):
    """A task in another language failed."""


class UnserializableException(RayError):
    """An error arrived that could not be unpickled; the text is its original trace."""

    def __init__(self, original_stack_trace: str) -> None:
        super().__init__(original_stack_trace)
        self.original_stack_trace = original_stack_trace

    def __str__(self) -> str:
        return f"Failed to deserialize exception. Original exception:\n{self.original_stack_trace}"


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
for _cls in (*RAY_EXCEPTION_TYPES, ErrorType):
    _cls.__module__ = __name__  # where programs know them: in tracebacks and in pickles
