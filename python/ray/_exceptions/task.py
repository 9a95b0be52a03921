"""Errors of tasks."""

from __future__ import annotations

import builtins
import contextlib
import sys
import types
from typing import TYPE_CHECKING, Any

from ray._exceptions.base import ErrorMessageError, MessageError, RayError

if TYPE_CHECKING:
    from ray._raylet import TaskID

_GROUPS: Any = getattr(builtins, "BaseExceptionGroup", ())  # none before Python 3.11
_CYAN, _RESET = "\033[36m", "\033[39m"


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
        told = self.__dict__  # the cause of a dual error may have an `actor_id`, too: that of the actor which died
        where = [f"{name}={told[name]}" for name in ("pid", "ip") if told[name] is not None]  # none: it never ran
        if told["actor_id"]:
            where += [f"actor_id={told['actor_id']}", f"repr={told['actor_repr']}"]
        colours = sys.stderr is not None and sys.stderr.isatty()
        title = f"{_CYAN}{self.proctitle}{_RESET}" if colours else self.proctitle
        return f"{title} ({', '.join(where)})" if where else title

    def __str__(self) -> str:
        return f"{self._header()}\n{self.traceback_str.rstrip()}"

    def as_instanceof_cause(self) -> RayError:
        """An error to raise that is both a `RayTaskError` and an instance of the cause's class."""
        innermost: BaseException = self.cause
        while isinstance(innermost, RayTaskError):  # a task that got the error of another one
            innermost = innermost.cause
        cause_class = type(innermost)
        if issubclass(RayTaskError, cause_class) or issubclass(cause_class, (SystemExit, KeyboardInterrupt)):
            return self  # a class as general as this one; or one that would end the caller's program
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
            # MemoryError makes its instances itself, but not those of a class that is made like an Exception.
            make = Exception.__new__ if issubclass(cause_class, MemoryError) else dual_class.__new__
            dual: RayTaskError = make(dual_class, *args)
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


class WorkerCrashedError(MessageError):
    """The worker process died while it ran the task, and no retry was left."""

    _default = (
        "The worker died unexpectedly while executing this task. "
        "The python-core-worker-*.log files of the session tell more."
    )

    @property
    def error_message(self) -> str:
        return self.message


class OutOfMemoryError(MessageError):
    """The memory monitor ended the worker, and no retry was left. The text tells what filled the memory."""

    _default = "Task was killed due to the node running low on memory."


class TaskPlacementGroupRemoved(WorkerCrashedError):
    """The placement group of the task was removed.

    Programs that were written for Ray await a WorkerCrashedError of a task that ran in it.
    """

    _default = "The placement group corresponding to this task has been removed."


class TaskUnschedulableError(ErrorMessageError):
    """The task can never run where it was told to."""

    def __str__(self) -> str:
        return f"The task is not schedulable: {self.error_message}"
