"""Errors of actors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ray._exceptions.base import ErrorMessageError, RayError

if TYPE_CHECKING:
    from ray._exceptions.task import RayTaskError


def _hex(value: bytes | None) -> str | None:
    return value.hex() if value else None


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
        RayError.__init__(self, actor_id, error_msg, actor_init_failed, preempted)
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
            if init_error is None:
                text = f"The actor died in its creation task: {fields.get('message')}"
            elif init_error.actor_id is None:  # it came with an argument: the constructor never ran
                text = (
                    "The actor died because of an error raised in its creation task, "
                    f"ray::{fields.get('class_name')}.__init__() (actor_id={actor_id})\n"
                    f"At least one of the input arguments for this task could not be computed:\n{init_error}"
                )
            else:
                text = f"The actor died because of an error raised in its creation task, {init_error}"
        else:
            lines = [cls.base_error_msg]
            for label, key in (
                ("class_name", "class_name"),
                ("pid", "pid"),
                ("name", "actor_name"),
                ("namespace", "ray_namespace"),
                ("ip", "node_ip"),
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


class ActorUnschedulableError(ErrorMessageError):
    """The actor can never be placed where it was told to."""

    def __str__(self) -> str:
        return f"The actor is not schedulable: {self.error_message}"


class ActorPlacementGroupRemoved(ActorDiedError, ActorUnschedulableError):
    """The placement group of the actor was removed: the actor is dead for good, or never came to live.

    Programs that were written for Ray await an ActorDiedError of an actor that lived, and an ActorUnschedulableError of
    one that did not.
    """

    base_error_msg = "The placement group corresponding to this actor has been removed."

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.error_message = self.error_msg


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


class PendingCallsLimitExceeded(RayError):
    """An actor handle has more calls in flight than `max_pending_calls` allows."""


class AsyncioActorExit(RayError):
    """Raised inside an async actor by `ray.actor.exit_actor`."""


class ActorAlreadyExistsError(ErrorMessageError, ValueError):
    """The name is taken by another actor of the namespace."""


class ActorHandleNotFoundError(ErrorMessageError, ValueError):
    """The handle belongs to another session."""
