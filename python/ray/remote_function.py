"""`RemoteFunction`: what `@ray.remote` makes of a function."""

from __future__ import annotations

import functools
import inspect
import os
import sys
import types
from collections.abc import Callable
from typing import Any

from ray import _call_shape, _launch_hooks, _placement
from ray import options as opts
from ray._auto_init import ensure_session
from ray._core.call import CallPlan, FunctionBase, set_launch_hook
from ray._launch_hooks import FunctionDescriptor, LaunchHook
from ray._runtime.session import Session
from ray.exceptions import TaskTimeoutError

_DEFAULT_MAX_RETRIES = 3
_STREAMING = -2


def retry_fields(retry_exceptions: Any) -> dict[str, Any]:
    """Fields of `TemplateOptions` for the option retry_exceptions: all, none, or a list of classes.

    A time-out is not an error of the program: it is retried only where a list names it.
    """
    if isinstance(retry_exceptions, (list, tuple)):
        import ray.cloudpickle

        allowlist = tuple(retry_exceptions)
        return {
            "retry_exceptions": bool(allowlist),
            "retry_exception_allowlist": ray.cloudpickle.dumps(allowlist),
            "retry_timeouts": any(issubclass(TaskTimeoutError, cls) for cls in allowlist),
        }
    return {"retry_exceptions": bool(retry_exceptions)}


class RemoteFunction(FunctionBase):
    """A function that runs as a task: `f.remote(...)` submits it and returns its `ObjectRef`s at once."""

    def __init__(self, function: Callable[..., Any], options: dict[str, Any]) -> None:
        if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            raise ValueError(
                "'async def' functions cannot be tasks. Use an async actor, or asyncio.run inside of a function."
            )
        self._function = function
        self._options = options
        self._shape = _call_shape.of(function, getattr(function, "__qualname__", "function"))
        is_generator = inspect.isgeneratorfunction(function)
        self._num_returns = opts.num_returns_code(options.get("num_returns"), is_generator)
        self._is_generator = is_generator
        self._inherits = _placement.inherits(options)
        self._session: Session | None = None  # the one that knows it by the id below
        self._captured: tuple[bytes, CallPlan] | None = None  # the plan for submission from inside a placement group
        self._function_id = b""
        functools.update_wrapper(self, function)
        # Wraps the submission, for whoever marked the function so.
        self._decorator: Callable[..., Any] | None = getattr(function, "__ray_invocation_decorator__", None)
        if self._decorator is not None:
            self._decorate()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        name = getattr(self._function, "__name__", "function")
        raise TypeError(f"Remote functions cannot be called directly. Instead of '{name}()', use '{name}.remote()'.")

    def _decorate(self) -> None:
        submit = self.remote
        decorated = self._decorator(lambda args, kwargs: submit(*args, **kwargs))  # type: ignore[misc]  # it is not None
        self.remote = lambda *args, **kwargs: decorated(args, kwargs)  # type: ignore[method-assign]

    def __getstate__(self) -> dict[str, Any]:
        # A template belongs to one process.
        state = {**self.__dict__, "_session": None, "_captured": None, "_function_id": b""}
        state.pop("remote", None)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self._decorator is not None:
            self._decorate()

    def options(self, **options: Any) -> RemoteFunction:
        """The same function with other options; the original is left as it is.

        Raises:
            ValueError, TypeError: see `ray.options`.
        """
        if options.get("_num_objects_per_yield", 0) in (None, 1):  # says nothing: what the decorator says stays
            del options["_num_objects_per_yield"]
        opts.validate(options, opts.TASK, what="remote functions", in_options=True)
        other = RemoteFunction(self._function, {**self._options, **options})
        other._session, other._function_id = self._session, self._function_id
        return other

    def _remote(self, args: Any = (), kwargs: Any = None, **options: Any) -> Any:
        target = self.options(**options) if options else self
        return target.remote(*args, **(kwargs or {}))

    @property
    def _default_options(self) -> dict[str, Any]:
        return dict(self._options)

    @property
    def _function_name(self) -> str:
        return self._function_descriptor.repr

    @property
    def _function_descriptor(self) -> FunctionDescriptor:
        function = self._function
        name = getattr(function, "__qualname__", type(function).__qualname__)
        return FunctionDescriptor(getattr(function, "__module__", None) or "", name, "", self._function_id)

    def _tell(self, hook: LaunchHook) -> None:
        hook(self._function_descriptor, opts.task_resources(self._options), _launch_hooks.strategy_of(self._options))

    def _captured_plan(self) -> CallPlan | None:
        # Asked for once some task of this process hands its placement group on; None: the caller's task does not.
        session = ensure_session()
        group = session.captured_group if self._inherits else b""
        if not group:
            return None
        if self._captured is None or self._captured[0] != group or self._session is not session:
            self._captured = (group, self._make_plan(group))
        return self._captured[1]

    def _make_plan(self, captured: bytes = b"") -> CallPlan:
        session = ensure_session()
        if session is not self._session:
            self._function_id = session.export_function(self._function)
            self._session = session
        o = self._options
        module = _launch_hooks.module_of(self._function)
        name = getattr(self._function, "__name__", type(self._function).__name__)
        max_calls = _or(o.get("max_calls"), 1 if o.get("num_gpus") else 0)
        retries = o.get("max_retries")
        streams = self._num_returns == _STREAMING  # the options of generators say nothing about other functions
        resources = opts.task_resources(o)
        template = session.register_template(
            type=1,
            function_id=self._function_id,
            function_name=f"{module}.{name}" if module else name,
            name=o.get("name") or name,
            resources=resources,
            num_returns=self._num_returns,
            max_retries=_default_max_retries() if retries is None else retries,
            max_calls=max_calls,
            runtime_env=session.runtime_env_json(o.get("runtime_env")),
            generator_backpressure=_or(o.get("_generator_backpressure_num_objects"), -1) if streams else -1,
            timeout_s=float(o.get("timeout_s") or 0),
            objects_per_yield=opts.objects_per_yield(o) if streams else 0,
            omit_task_events=not o.get("enable_task_events", True),
            **retry_fields(o.get("retry_exceptions", False)),
            **_placement.fields(session, o, resources, captured=captured),
        )
        return CallPlan(session.core, template, self._num_returns, self._shape)


def _default_max_retries() -> int:
    text = os.environ.get("RAY_TASK_MAX_RETRIES", "")
    try:
        return max(-1, int(text)) if text else _DEFAULT_MAX_RETRIES
    except ValueError:
        raise ValueError(f"RAY_TASK_MAX_RETRIES must be an integer, got {text!r}.") from None


def _or(value: int | None, default: int) -> int:
    return default if value is None else value


class _Module(types.ModuleType):
    """This module: it has to notice when a program sets `_task_launch_hook`, which submissions look for in C."""

    @property
    def _task_launch_hook(self) -> LaunchHook | None:
        """Called before each submission of a task; None: nothing is."""
        return self.__dict__.get("_hook")

    @_task_launch_hook.setter
    def _task_launch_hook(self, hook: LaunchHook | None) -> None:
        self.__dict__["_hook"] = hook
        set_launch_hook(None if hook is None else lambda function: function._tell(hook))


sys.modules[__name__].__class__ = _Module
