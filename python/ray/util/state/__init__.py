"""What a cluster knows of its objects, tasks, actors and placement groups."""

from __future__ import annotations

from typing import Any

from ray._auto_init import ensure_session
from ray._runtime.explain import UnknownIdError as UnknownIdError
from ray._runtime.explain import explain as _explain
from ray._runtime.explanation import Explanation as Explanation
from ray._runtime.explanation import WaitState as WaitState

__all__ = ["Explanation", "UnknownIdError", "WaitState", "explain"]


def explain(subject: Any, *, timeout: float = 10.0) -> Explanation:
    """Tells what something waits for, where, since when, and what would let it go on.

    The answer is put together from what the owner of the object or task, the raylets, the workers and the GCS know at
    this moment, and follows the chain: a task that waits for an argument, which a task makes, which waits for a worker.
    Nothing is changed by asking.

    Trap: the processes are asked one after the other while they go on, so that two parts of an answer may be of
    different moments.

    Example:
        >>> import ray
        >>> from ray.util.state import explain
        >>> @ray.remote(num_gpus=1000)
        ... def never(): ...
        >>> explanation = explain(never.remote())
        >>> task = explanation.waits_for[0]
        >>> task.kind, task.need
        ('task', {'CPU': 1.0, 'GPU': 1000.0})

    Args:
        subject: an ObjectRef, a generator, an actor handle, a PlacementGroup, an id of one of these or of a task, or
            such an id in hex. Ids of others' programs will do: the whole cluster is asked.
        timeout: seconds for all of it. Processes that did not answer by then are named in `notes`.

    Raises:
        TypeError, ValueError: `subject` names nothing.
        UnknownIdError: nobody knows it (any more).
    """
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or timeout <= 0:
        raise ValueError(f"timeout must be a number of seconds above 0, got {timeout!r}.")
    return _explain(ensure_session(), subject, timeout)
