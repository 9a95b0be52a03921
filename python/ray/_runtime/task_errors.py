"""What a failed task is reported as: a RayTaskError that shows the user's frames only, and that can be pickled."""

from __future__ import annotations

import os
import pickle
import traceback
from types import TracebackType

from ray import exceptions
from ray._core.executor import ArgumentError, TaskRun
from ray._runtime.task_context import ActorState
from ray._serialization.context import dumps

_OUR_FILES = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


def _is_ours(tb: TracebackType) -> bool:
    filename = tb.tb_frame.f_code.co_filename
    return filename.startswith(
        (os.path.join(_OUR_FILES, "_runtime"), os.path.join(_OUR_FILES, "_core"), "ray/_core", "python/ray/_core")
    )


def user_traceback(error: BaseException) -> str:
    """The traceback as text, from the first frame that is not ours."""
    tb = error.__traceback__
    while tb is not None and _is_ours(tb):
        tb = tb.tb_next
    return "".join(traceback.format_exception(type(error), error, tb))


def task_error(error: BaseException, run: TaskRun, actor: ActorState | None, node_ip: str) -> exceptions.RayTaskError:
    """The error to store for a task that raised `error`; sure to be picklable."""
    name = run.template.name
    cause = error
    if isinstance(error, ArgumentError):
        cause = error.cause.cause if isinstance(error.cause, exceptions.RayTaskError) else error.cause
        text = f"At least one of the input arguments for this task could not be computed:\n{_describe(error.cause)}"
    else:
        text = user_traceback(error)
    actor_repr = actor_id = None
    if actor is not None:
        actor_id = actor.actor_id.hex()
        actor_repr = _safe_repr(actor.instance) if actor.instance is not None else actor.options["class_name"]
    details = (f"ray::{name}()", os.getpid(), node_ip, actor_repr, actor_id)
    made = exceptions.RayTaskError(name, text, cause, *details)
    if _survives(made):
        return made
    summary = exceptions.RayError(
        f"The original cause of the RayTaskError ({type(cause)}) isn't serializable: {_describe(cause)}. "
        "Overwriting the cause to a RayError."
    )
    return exceptions.RayTaskError(name, text, summary, *details)


def _survives(error: BaseException) -> bool:
    # Exceptions with an __init__ of their own often pickle well and fail to load, so both ways are tried.
    try:
        pickle.loads(dumps(error))
    except Exception:
        return False
    return True


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
