"""What a failed task is reported as: a RayTaskError that shows the user's frames only, and that can be pickled."""

from __future__ import annotations

import os
import pickle
import traceback

from ray import exceptions
from ray._core.executor import ArgumentError, TaskRun
from ray._core.ids import TaskID
from ray._runtime.task_context import ActorState
from ray._serialization.context import dumps

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_OUR_FILES = (
    *(os.path.join(_PACKAGE, name) for name in ("_runtime", "_core", "_actor_handle.py", "api.py")),
    "ray/_core",  # what is compiled
    "python/ray/_core",
)


def user_traceback(error: BaseException) -> str:
    """The traceback as text, of the user's frames only: the same for the errors that it is chained to."""
    shown = traceback.TracebackException.from_exception(error)
    _drop_our_frames(shown)
    return "".join(shown.format())


def _drop_our_frames(shown: traceback.TracebackException) -> None:
    waiting: list[traceback.TracebackException | None] = [shown]
    while waiting:
        one = waiting.pop()
        if one is None:
            continue
        one.stack[:] = [frame for frame in one.stack if not frame.filename.startswith(_OUR_FILES)]
        waiting += [one.__cause__, one.__context__, *(getattr(one, "exceptions", None) or ())]


def task_error(error: BaseException, run: TaskRun, actor: ActorState | None, node_ip: str) -> exceptions.RayTaskError:
    """The error to store for a task that raised `error`; sure to be picklable."""
    name = run.template.name
    cause = error.cause if isinstance(error, ArgumentError) else error
    while isinstance(cause, exceptions.RayTaskError):  # it got the error of another task
        cause = cause.cause
    if isinstance(error, ArgumentError):
        text = f"At least one of the input arguments for this task could not be computed:\n{_describe(error.cause)}"
    else:
        text = user_traceback(error)
    details = _where(run, actor, node_ip)
    # Exceptions with an __init__ of their own often pickle well and fail to load, so both ways are tried.
    made = exceptions.RayTaskError(name, text, cause, *details)
    replacement: exceptions.RayError
    try:
        pickled = dumps(made)
    except Exception:
        replacement = exceptions.RayError(
            f"The original cause of the RayTaskError ({type(cause)}) isn't serializable: {_describe(cause)}. "
            "Overwriting the cause to a RayError."
        )
    else:
        try:
            pickle.loads(pickled)
        except Exception:
            replacement = exceptions.UnserializableException(text)
        else:
            return made
    return exceptions.RayTaskError(name, text, replacement, *details)


def cancelled_error(
    error: BaseException, run: TaskRun, actor: ActorState | None, node_ip: str
) -> exceptions.RayTaskError:
    """The error to store for a task that was cancelled while it ran, at the place where `error` interrupted it."""
    cause = exceptions.TaskCancelledError(TaskID(run.task_id))
    shown = traceback.TracebackException.from_exception(error)
    _drop_our_frames(shown)
    text = f"{''.join(shown.stack.format())}ray.exceptions.TaskCancelledError: {cause}"
    return exceptions.RayTaskError(run.template.name, text, cause, *_where(run, actor, node_ip))


def _where(run: TaskRun, actor: ActorState | None, node_ip: str) -> tuple[str, int, str, str | None, str | None]:
    actor_repr = actor_id = None
    if actor is not None:
        actor_id = actor.actor_id.hex()
        actor_repr = _safe_repr(actor.instance) if actor.instance is not None else actor.options["class_name"]
    return (f"ray::{run.template.name}()", os.getpid(), node_ip, actor_repr, actor_id)


def _safe_repr(value: object) -> str:
    try:
        return repr(value)
    except Exception:
        return f"<{type(value).__name__} whose repr failed>"


def _describe(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:
        return type(error).__name__


def may_retry(error: BaseException, run: TaskRun) -> bool:
    """Whether retry_exceptions covers `error`."""
    template = run.template
    if not template.retry_exceptions and not template.retry_exception_allowlist:
        return False
    if isinstance(error, (ArgumentError, SystemExit, KeyboardInterrupt)):
        return False
    if not template.retry_exception_allowlist:
        return True
    if isinstance(error, exceptions.UserCodeException) and error.__cause__ is not None:
        error = error.__cause__
    try:
        return isinstance(error, pickle.loads(template.retry_exception_allowlist))
    except Exception:
        return False
