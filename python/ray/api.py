"""The functions that a program calls on the module: init, shutdown, remote, get, put, wait, kill, cancel, ..."""

from __future__ import annotations

import inspect
from typing import Any, SupportsFloat, SupportsIndex

from ray import exceptions
from ray import options as opts
from ray._actor_handle import ActorHandle, handle_from_fields
from ray._auto_init import ensure_session
from ray._cluster_tables import available_resources as available_resources
from ray._cluster_tables import cluster_resources as cluster_resources
from ray._cluster_tables import nodes as nodes
from ray._context import RayContext as RayContext
from ray._core.object_ref import distinct
from ray._init import init as init
from ray._init import is_initialized as is_initialized
from ray._init import shutdown as shutdown
from ray._raylet import ActorID, ObjectRef, ObjectRefGenerator
from ray._runtime import session as sessions
from ray.actor import ActorClass
from ray.remote_function import RemoteFunction

SCRIPT_MODE, WORKER_MODE, SPILL_WORKER_MODE, RESTORE_WORKER_MODE = 0, 1, 2, 3


def remote(*args: Any, **kwargs: Any) -> Any:
    """Turns a function into a task or a class into an actor: `@ray.remote` or `@ray.remote(num_cpus=2, ...)`.

    Raises:
        ValueError, TypeError: a bad option, or something callable that is neither a function nor a class.
        AssertionError: arguments that are no options.
    """
    if len(args) == 1 and not kwargs and callable(args[0]):
        return _make_remote(args[0], {})
    assert not args and kwargs, (
        "The @ray.remote decorator must be applied either with no arguments and no parentheses, for example "
        "'@ray.remote', or it must be applied using some of the arguments, for example '@ray.remote(num_returns=2)'."
    )
    return lambda target: _make_remote(target, kwargs)


def _make_remote(target: Any, options: dict[str, Any]) -> Any:
    if isinstance(target, (RemoteFunction, ActorClass)):
        raise TypeError(f"{target!r} is remote already.")
    if inspect.isfunction(target) or _is_compiled_function(target):
        opts.validate(options, opts.TASK, what="remote functions")
        return RemoteFunction(target, options)
    if inspect.isclass(target):
        opts.validate_actor(options)
        opts.warn_of_deprecated(options)
        return ActorClass(target, options)
    raise TypeError("The @ray.remote decorator must be applied to either a function or a class.")


def _is_compiled_function(target: Any) -> bool:
    return type(target).__name__ in ("cython_function_or_method", "builtin_function_or_method")


def _check_number(name: str, value: Any, protocol: type = SupportsFloat, kind: str = "a number") -> None:
    if isinstance(value, bool) or not isinstance(value, protocol):  # numbers of numpy will do
        raise TypeError(f"{name} must be {kind}, got {value!r}.")


def _whole(value: Any) -> Any:
    """An int for a float that is a whole number, as divisions give it."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def get(object_refs: Any, *, timeout: float | None = None, _use_object_store: bool = False) -> Any:
    """The value of a ref, or the values of a list of refs in their order; waits until they are there.

    Args:
        timeout: in seconds; None or -1 waits without end, 0 does not wait.

    Raises:
        ValueError: neither a ref nor a list.
        TypeError: the list holds something else.
        GetTimeoutError: not ready within `timeout`.
        Exception: what the task raised; the first error in the list, without waiting for the rest.
    """
    session = sessions.current_session()
    if session is None:
        session = ensure_session()
    if timeout is not None:
        _check_number("timeout", timeout)
        if timeout < 0:
            if timeout != -1:
                raise ValueError(f"timeout must be None, -1 or >= 0 seconds, got {timeout!r}.")
            timeout = None
    if isinstance(object_refs, ObjectRef):
        return session.get_one(object_refs, timeout)
    if isinstance(object_refs, list):
        return session.get(object_refs, timeout)
    if isinstance(object_refs, ObjectRefGenerator):
        return object_refs
    raise ValueError(
        f"Invalid type of object refs, {type(object_refs)}, is given. "
        "'object_refs' must either be an ObjectRef or a list of ObjectRefs."
    )


def put(value: Any, *, _owner: Any = None, _tensor_transport: str | None = None) -> ObjectRef:
    """Stores a value that this process then owns, and returns its ref.

    Raises:
        TypeError: a ref, or something that cannot be pickled; the text shows which member.
        ObjectStoreFullError: no room for it, even after waiting.
    """
    session = sessions.current_session()
    if session is None:
        session = ensure_session()
    if isinstance(value, ObjectRef):
        raise TypeError(
            "Calling 'put' on an ray.ObjectRef is not allowed. Wrap it in a list if you really want to do this."
        )
    if _owner is not None:
        raise ValueError("The argument `_owner` of ray.put was removed.")
    if _tensor_transport is not None and _tensor_transport.lower() in ("nccl", "gloo"):
        raise ValueError(
            f"ray.put does not support the two-sided transport {_tensor_transport!r}: nobody receives at that moment."
        )
    return session.put(value)


def wait(
    ray_waitables: list[Any], *, num_returns: int = 1, timeout: float | None = None, fetch_local: bool = True
) -> tuple[list[Any], list[Any]]:
    """Splits refs (or generators) into at most `num_returns` that are ready and the rest; both keep their order.

    Waits until `num_returns` are ready or `timeout` seconds have passed.

    Raises:
        TypeError: not a list of refs.
        ValueError: duplicates, a negative timeout, `num_returns` out of range.
    """
    session = sessions.current_session()
    if session is None:
        session = ensure_session()
    if not isinstance(ray_waitables, list):
        raise TypeError(
            f"wait() expected a list of ray.ObjectRef or ray.ObjectRefGenerator, got {type(ray_waitables)}."
        )
    if timeout is not None:
        _check_number("timeout", timeout)
        if timeout < 0:
            raise ValueError(f"The 'timeout' argument must be nonnegative. Received {timeout}.")
    num_returns = _whole(num_returns)
    _check_number("num_returns", num_returns, SupportsIndex, "an integer")
    only_refs = distinct(ray_waitables)
    if not only_refs:
        for ref in ray_waitables:
            if not isinstance(ref, (ObjectRef, ObjectRefGenerator)):
                raise TypeError(
                    "wait() expected a list of ray.ObjectRef or ray.ObjectRefGenerator, "
                    f"got a list containing {type(ref)}."
                )
        if len(set(ray_waitables)) != len(ray_waitables):
            raise ValueError("Wait requires a list of unique ray_waitables.")
    if not ray_waitables:
        return [], []
    if num_returns <= 0:
        raise ValueError(f"Invalid number of objects to return {num_returns}: must be positive.")
    if num_returns > len(ray_waitables):
        raise ValueError(
            f"num_returns ({num_returns}) cannot be greater than the number of ray_waitables provided "
            f"({len(ray_waitables)})."
        )
    if only_refs:
        return session.wait(ray_waitables, num_returns, timeout, fetch_local)
    return session.wait_mixed(ray_waitables, num_returns, timeout, fetch_local)


def kill(actor: ActorHandle, *, no_restart: bool = True) -> None:
    """Ends an actor's process at once, without its exit handlers; its queued calls fail.

    Args:
        no_restart: False lets it restart, if max_restarts allows.

    Raises:
        ValueError: not an actor handle.
        ActorHandleNotFoundError: a ValueError, too; a handle from another session.
    """
    session = ensure_session()
    if not isinstance(actor, ActorHandle):
        raise ValueError(f"ray.kill() only supported for actors. For tasks, try ray.cancel(). Got: {type(actor)}.")
    try:
        session.kill_actor(actor._actor_id_bytes, no_restart)
    except ValueError:
        raise exceptions.ActorHandleNotFoundError(
            f"{actor!r} is not an actor of this cluster; the handle is from another session."
        ) from None


def cancel(ray_waitable: Any, *, force: bool = False, recursive: bool = True) -> None:
    """Cancels the task behind a ref.

    Queued, it never runs; running, it gets KeyboardInterrupt, or with `force` its process ends.

    An async actor's method gets CancelledError; other actor methods can ask `get_runtime_context().is_canceled()`.
    Finished tasks are left alone.

    Raises:
        TypeError: not a ref.
        ValueError: `force` for an actor method.
    """
    session = ensure_session()
    if isinstance(ray_waitable, ObjectRefGenerator):
        ray_waitable = ray_waitable._generator_ref
    if not isinstance(ray_waitable, ObjectRef):
        raise TypeError(
            f"ray.cancel() only supported for object refs. For actors, try ray.kill(). Got: {type(ray_waitable)}."
        )
    if force and not ActorID(ray_waitable.task_id().binary()[8:]).hex().startswith("f" * 24):
        # Known from the id alone, so that a call that has just ended is told the same.
        raise ValueError("force=True is not supported for actor tasks.")
    session.cancel(ray_waitable, force, recursive)


def get_actor(name: str, namespace: str | None = None) -> ActorHandle:
    """A weak handle to the actor of that name.

    Raises:
        ValueError: no such actor, or an empty name.
    """
    if not name:
        raise ValueError(f"Please supply a non-empty value to get_actor, got {name!r}.")
    if not isinstance(name, str):
        raise TypeError(f"The name of an actor is a string, got {name!r}.")
    if namespace == "":
        raise ValueError('"" is not a valid namespace.')
    session = ensure_session()
    fields = session.get_named_actor(name, namespace or session.namespace)
    if fields is None:
        raise ValueError(
            f"Failed to look up actor with name '{name}' in namespace {namespace or session.namespace!r}: "
            "it was never created there, or it died."
        )
    return handle_from_fields(session, fields)


def get_gpu_ids() -> list[Any]:
    """Indices of the GPUs assigned to this task or actor; an empty list on a driver."""
    task = ensure_session().task
    return [] if task is None else list(task.accelerator_ids.get("GPU", []))


__all__ = [
    "RESTORE_WORKER_MODE",
    "SCRIPT_MODE",
    "SPILL_WORKER_MODE",
    "WORKER_MODE",
    "RayContext",
    "available_resources",
    "cancel",
    "cluster_resources",
    "get",
    "get_actor",
    "get_gpu_ids",
    "init",
    "is_initialized",
    "kill",
    "nodes",
    "put",
    "remote",
    "shutdown",
    "wait",
]
