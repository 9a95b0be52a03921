"""Errors of objects and of the store."""

from __future__ import annotations

import enum

from ray._exceptions.base import MessageError, RayError


class ObjectStoreFullError(MessageError):
    """The object store has no room, even after waiting."""

    _default = "The local object store is full of objects that are still in use. `ray memory` lists them."


class OutOfDiskError(MessageError):
    """The disk that objects are spilled to is full."""

    _default = "The disk is too full for what has to be spilled. `df` shows it, `ray memory` what the objects are."


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
    OBJECT_UNRECONSTRUCTABLE_OWNER_LEFT = 42


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
    ErrorType.OBJECT_UNRECONSTRUCTABLE_OWNER_LEFT: "its owner, which could have had it made again, has left",
    ErrorType.OBJECT_UNRECONSTRUCTABLE_BORROWED: "its task needs an object of another process that was let go",
    ErrorType.OBJECT_UNRECONSTRUCTABLE_REF_NOT_FOUND: "nothing is known any more of how it was made",
    ErrorType.OBJECT_UNRECONSTRUCTABLE_TASK_CANCELLED: "the task that made it was cancelled",
    ErrorType.OBJECT_UNRECONSTRUCTABLE_LINEAGE_DISABLED: "RAY_max_lineage_bytes=0 or RAY_lineage_pinning_enabled=0",
}


class ObjectReconstructionFailedError(ObjectLostError):
    """The object is lost and its task cannot be run again; `reason`, an `ErrorType`, says why."""

    def __init__(
        self,
        object_ref_hex: str,
        reason: object = None,
        reason_message: str | None = None,
        owner_address: object = None,
        call_site: str = "",
    ) -> None:
        super().__init__(object_ref_hex, owner_address, call_site)
        if isinstance(reason, int) and reason in ErrorType._value2member_map_:
            reason = ErrorType(reason)
        self.args = (object_ref_hex, reason, reason_message, owner_address, call_site)
        self.reason = reason
        self.reason_message = reason_message

    def __str__(self) -> str:
        name = getattr(self.reason, "name", self.reason)
        explanation = self.reason_message or ""
        if not explanation and isinstance(self.reason, ErrorType):
            explanation = _UNRECONSTRUCTABLE.get(self.reason, "")
        return f"{super().__str__()} [{name}] {explanation}".rstrip()


class PlasmaObjectNotAvailable(RayError):
    """The object is not in the store within the time given."""


class ObjectRefStreamEndOfStreamError(RayError):
    """There is no item behind this ref: the stream ended before it."""


class OufOfBandObjectRefSerializationException(RayError):
    """An ObjectRef was pickled outside of Ray although that was forbidden."""
