"""`ray._private.worker`: the process's connection under its old names."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ray._context import address_info
from ray._private.gcs_client import GcsClient
from ray._runtime.session import current_session, require_session
from ray.api import RESTORE_WORKER_MODE as RESTORE_WORKER_MODE
from ray.api import SCRIPT_MODE as SCRIPT_MODE
from ray.api import SPILL_WORKER_MODE as SPILL_WORKER_MODE
from ray.api import WORKER_MODE as WORKER_MODE

if TYPE_CHECKING:
    from ray._core.worker import CoreWorker
    from ray._raylet import ActorID, JobID, NodeID, TaskID, WorkerID

LOCAL_MODE = None  # gone


class GlobalWorker:
    """What `global_worker` is: a view of the current session."""

    @property
    def connected(self) -> bool:
        """Whether this process is a driver or worker of a cluster."""
        return current_session() is not None

    @property
    def mode(self) -> int | None:
        """SCRIPT_MODE in a driver, WORKER_MODE in a worker, None when not connected."""
        session = current_session()
        if session is None:
            return None
        return SCRIPT_MODE if session.is_driver else WORKER_MODE

    @property
    def core_worker(self) -> CoreWorker:
        """The core's object."""
        return require_session().core

    @property
    def gcs_client(self) -> GcsClient:
        """The cluster's key-value table."""
        require_session()
        return GcsClient()

    @property
    def node(self) -> GlobalNode | None:
        """The session's node."""
        return _node()

    @property
    def worker_id(self) -> bytes:
        """Of this process."""
        return require_session().worker_id.binary()

    @property
    def current_job_id(self) -> JobID:
        """Of this driver or worker."""
        return require_session().job_id

    @property
    def current_node_id(self) -> NodeID:
        """Of the node."""
        return require_session().node_id

    @property
    def current_worker_id(self) -> WorkerID:
        """Of this process."""
        return require_session().worker_id

    @property
    def current_task_id(self) -> TaskID | None:
        """Of the running task."""
        task = require_session().task
        return None if task is None else task.task_id

    @property
    def actor_id(self) -> ActorID | None:
        """Of the actor that lives here."""
        task = require_session().task
        return None if task is None else task.actor_id

    @property
    def namespace(self) -> str:
        """Of the job."""
        return require_session().namespace

    @property
    def current_session_name(self) -> str:
        """Of the session."""
        return require_session().session_name

    def check_connected(self) -> None:
        """Raises RaySystemError when not connected."""
        require_session()


class GlobalNode:
    """What `_global_node` is: places of the session."""

    max_bytes = 512 << 20
    backup_count = 5

    @property
    def session_name(self) -> str:
        """Of the session."""
        return require_session().session_name

    @property
    def address(self) -> str:
        """Of the GCS."""
        return require_session().gcs_address

    gcs_address = address

    @property
    def node_ip_address(self) -> str:
        """Of this node."""
        return require_session().node_ip

    @property
    def address_info(self) -> dict[str, Any]:
        """As in the context that `ray.init` returns."""
        session = require_session()
        info = address_info(session.node_ip, session.gcs_address, session.session_dir, session.node_dir)
        return {**info, "node_id": session.node_id.hex()}

    def get_session_dir_path(self) -> str:
        """The session's directory."""
        return require_session().session_dir

    def get_logs_dir_path(self) -> str:
        """Where its logs are."""
        return f"{require_session().session_dir}/logs"

    def get_temp_dir_path(self) -> str:
        """Where session directories are."""
        return require_session().session_dir.rpartition("/")[0]


global_worker = GlobalWorker()
_view = GlobalNode()
_post_init_hooks: list[Callable[[], None]] = []  # called at the end of every ray.init
blocking_get_inside_async_warned = False


def _node() -> GlobalNode | None:
    return None if current_session() is None else _view


def _mode() -> int | None:
    return global_worker.mode


def __getattr__(name: str) -> Any:
    if name == "_global_node":
        return _node()
    import ray

    if name in ("get", "put", "wait", "init", "shutdown", "remote", "kill", "cancel", "get_gpu_ids", "is_initialized"):
        return getattr(ray, name)
    raise AttributeError(f"module 'ray._private.worker' has no attribute {name!r}")
