"""`ray.get_runtime_context()`: where and as what the current code runs."""

from __future__ import annotations

import json
import logging
import warnings
from typing import TYPE_CHECKING, Any

from ray._auto_init import ensure_session
from ray._deprecation import RayDeprecationWarning
from ray._raylet import PlacementGroupID
from ray._runtime.session import Session, current_session

if TYPE_CHECKING:
    from ray._raylet import ActorID, JobID, NodeID, TaskID
    from ray._runtime.task_context import TaskContext
    from ray.actor import ActorHandle
    from ray.runtime_env import RuntimeEnv

logger = logging.getLogger("ray")


class RuntimeContext:
    """Facts about the running driver, task or actor. Ids are hex strings."""

    def _session(self) -> Session:
        session = current_session()
        if session is None:
            raise RuntimeError("Ray has not been initialized. Call ray.init() first.")
        return session

    def _task(self) -> TaskContext | None:
        return self._session().task

    def _task_or_warn(self, method: str) -> TaskContext | None:
        task = self._task()
        if task is None:
            logger.warning("%s is only available in a task or actor; a driver has none.", method)
        return task

    def get_job_id(self) -> str:
        """Id of the job of this driver or worker."""
        return str(self._session().job_id.hex())

    def get_node_id(self) -> str:
        """Id of the node this process runs on."""
        return str(self._session().node_id.hex())

    def get_worker_id(self) -> str:
        """Id of this process."""
        return str(self._session().worker_id.hex())

    def get_session_name(self) -> str:
        """Name of the cluster's session: session_<date>_<time>_<us>_<pid>."""
        return self._session().session_name

    def get_temp_dir(self) -> str:
        """The directory that holds the session directories."""
        session_dir = self._session().session_dir
        return session_dir[: session_dir.rindex("/")]

    def get_task_id(self) -> str | None:
        """Id of the running task; None on a driver."""
        task = self._task_or_warn("get_task_id()")
        return None if task is None else str(task.task_id.hex())

    def get_task_name(self) -> str | None:
        """Display name of the running task: the option `name`, else that of the function; None on a driver."""
        task = self._task_or_warn("get_task_name()")
        return None if task is None else task.task_name

    def get_task_function_name(self) -> str | None:
        """Module-qualified name of the running function; None on a driver."""
        task = self._task_or_warn("get_task_function_name()")
        return None if task is None else task.function_name

    def get_actor_id(self) -> str | None:
        """Id of the actor that runs this code; None outside of actors."""
        task = self._task()
        return None if task is None or task.actor_id is None else str(task.actor_id.hex())

    def get_actor_name(self) -> str | None:
        """Name of the actor that runs this code, "" if it has none; None outside of actors."""
        task = self._task()
        return None if task is None or task.actor_id is None else task.actor_name

    @property
    def namespace(self) -> str:
        """The current namespace."""
        return self._session().namespace

    @property
    def was_current_actor_reconstructed(self) -> bool:
        """Whether this actor was restarted; False outside of actors."""
        task = self._task()
        return bool(task is not None and task.was_restarted)

    def get_placement_group_id(self) -> str | None:
        """Id of the placement group this code runs in, or None."""
        task = self._task()
        group = None if task is None else task.placement_group_id
        return group.hex() if group else None

    @property
    def should_capture_child_tasks_in_placement_group(self) -> bool:
        """Whether tasks submitted here inherit the placement group."""
        task = self._task()
        return bool(task is not None and task.capture_child_tasks)

    def get_assigned_resources(self) -> dict[str, float]:
        """The resources this task or actor holds.

        Raises:
            AssertionError: on a driver.
        """
        task = self._task()
        assert task is not None, "get_assigned_resources is only available in a task or actor."
        return dict(task.assigned_resources)

    def get_runtime_env_string(self) -> str:
        """The runtime environment in force, as JSON."""
        return json.dumps(self.runtime_env)

    @property
    def runtime_env(self) -> RuntimeEnv:
        """The runtime environment in force."""
        from ray.runtime_env import RuntimeEnv

        session = self._session()
        task = session.task
        own = json.loads(task.runtime_env) if task is not None and task.runtime_env else None
        return RuntimeEnv(**(own if own is not None else session.job_config.get("runtime_env") or {}))

    @property
    def current_actor(self) -> ActorHandle:
        """A weak handle to the actor that runs this code.

        Raises:
            RuntimeError: outside of actors.
        """
        from ray._actor_handle import current_actor_handle

        return current_actor_handle(self._session())

    @property
    def gcs_address(self) -> str:
        """Address of the cluster's GCS, to give to `ray.init(address=...)`."""
        return self._session().gcs_address

    def get_accelerator_ids(self) -> dict[str, list[str]]:
        """The accelerators assigned to this code, by kind."""
        from ray._runtime.accelerators import RESOURCES

        task = self._task()
        assigned = {} if task is None else task.accelerator_ids
        return {kind: [str(i) for i in assigned.get(kind, [])] for kind in RESOURCES}

    def get_node_labels(self) -> dict[str, str]:
        """Labels of this node."""
        session = self._session()
        for node in session.list_nodes():
            if node["node_id"] == session.node_id.binary():
                return dict(node["labels"])
        return {}

    def is_canceled(self) -> bool:
        """Whether the running task was cancelled.

        Raises:
            RuntimeError: on a driver, or in an async actor, where the coroutine is cancelled instead.
        """
        task = self._task()
        if task is None:
            raise RuntimeError("is_canceled is only available in a task or actor.")
        if task.is_async_actor:
            raise RuntimeError("is_canceled is not available in async actors: their coroutine gets CancelledError.")
        return self._session().is_cancelled(task)

    # --- deprecated: id objects instead of text

    def get(self) -> dict[str, Any]:
        """Deprecated: the ids in one dictionary."""
        _warn("get()", "the methods get_..._id()")
        session = self._session()
        context: dict[str, Any] = {"job_id": session.job_id, "node_id": session.node_id, "namespace": session.namespace}
        task = session.task
        if task is not None:
            context["task_id"] = task.task_id
            if task.actor_id is not None:
                context["actor_id"] = task.actor_id
        return context

    @property
    def job_id(self) -> JobID:
        """Deprecated: as an id object."""
        _warn("job_id", "get_job_id()")
        return self._session().job_id

    @property
    def node_id(self) -> NodeID:
        """Deprecated: as an id object."""
        _warn("node_id", "get_node_id()")
        return self._session().node_id

    @property
    def task_id(self) -> TaskID | None:
        """Deprecated: as an id object; None on a driver."""
        _warn("task_id", "get_task_id()")
        task = self._task()
        return None if task is None else task.task_id

    @property
    def actor_id(self) -> ActorID | None:
        """Deprecated: as an id object; None outside of actors."""
        _warn("actor_id", "get_actor_id()")
        task = self._task()
        return None if task is None else task.actor_id

    @property
    def current_placement_group_id(self) -> PlacementGroupID:
        """Deprecated: as an id object; the nil id outside of placement groups."""
        _warn("current_placement_group_id", "get_placement_group_id()")
        task = self._task()
        group = None if task is None else task.placement_group_id
        return PlacementGroupID(group) if group else PlacementGroupID.nil()

    @property
    def worker(self) -> Any:
        """The state of this process as `ray._private.worker.global_worker`, which libraries look into."""
        from ray._private.worker import global_worker

        return global_worker

    def get_resource_ids(self) -> dict[str, list[str]]:
        """Deprecated: as `get_accelerator_ids`."""
        _warn("get_resource_ids()", "get_accelerator_ids()")
        return self.get_accelerator_ids()


def _warn(old: str, new: str) -> None:
    warnings.warn(f"RuntimeContext.{old} is deprecated; use {new}.", RayDeprecationWarning, stacklevel=3)


_CONTEXT = RuntimeContext()  # without state: everything is read from the session


def get_runtime_context() -> RuntimeContext:
    """The runtime context; starts Ray if it is not running."""
    ensure_session()
    return _CONTEXT
