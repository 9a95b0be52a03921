"""The `Session`: this process as a driver or worker of a cluster, and the context that tells which one is current."""

from __future__ import annotations

import json
import logging
import os
import sys
import textwrap
import threading
from collections.abc import Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypedDict

from ray._core import creation_sites, gcs, object_ref
from ray._core import placement_group as _groups
from ray._core.call import CallPlan
from ray._core.ids import ActorID, JobID, NodeID, TaskID, WorkerID
from ray._core.object_ref import ObjectRef
from ray._core.worker import CoreWorker, Template
from ray._runtime import environment, runtime_env, system_config
from ray._runtime.function_table import FunctionTable
from ray._serialization import context as _context  # noqa: F401  # registers the pickler with the core
from ray.exceptions import RayError, RaySystemError

if TYPE_CHECKING:
    from ray._runtime.cluster_process import Node
    from ray._runtime.connect import Attachment
    from ray._runtime.log_stream import LogStream
    from ray._runtime.task_context import TaskContext

logger = logging.getLogger("ray")

_EXPLAINED_REFS = 5  # that a get waits for, in the message about it
_MAX_BUNDLE_SPECS = 1024
_EXPLAIN_S = 3.0  # for each of them


class Session:
    """A connection to a cluster. One per process at a time; any thread may use it.

    Attributes:
        core: the CoreWorker.
        is_driver: False in workers.
        job_id, node_id, worker_id, address: who and where this process is; `address` owns the refs made here.
        namespace, job_config: of the job.
        runtime_env: of this process; what it submits inherits it.
        cluster: the node that `ray.init` started, to be stopped at the end; else None.
        is_remote: of drivers: connected by an address of the scheme ray://.
        node_dir: of drivers: the sockets of this node are in <node_dir>/sockets; else "".
        plans, method_plans: caches of the API layer.
    """

    def __init__(self, core: CoreWorker, *, is_driver: bool, namespace: str, job_config: dict[str, Any]) -> None:
        info = core.info
        self.core = core
        self.is_driver = is_driver
        self.namespace = namespace
        self.job_config = job_config
        self.runtime_env: dict[str, Any] = job_config.get("runtime_env") or {}
        self.job_id = JobID(info["job_id"]) if len(info["job_id"]) == JobID.SIZE else JobID.nil()
        self.node_id = NodeID(info["node_id"])
        self.worker_id = WorkerID(info["worker_id"])
        self.address: bytes = info["address"]
        self.node_ip: str = info["node_ip"]
        self.session_dir: str = info["session_dir"]
        self.session_name: str = info["session_name"]
        self.gcs_address: str = info["gcs_address"]
        self.plans: dict[Any, CallPlan] = {}  # by type, method and options
        self.method_plans: dict[Any, dict[str, Any]] = {}  # by type; see HandleBase
        self._bundle_specs: dict[bytes, list[dict[str, float]]] = {}  # they never change
        self.functions = FunctionTable(core)
        self.cluster: Node | None = None
        self.node_dir = ""
        self.is_remote = False
        self.log_stream: LogStream | None = None
        self.default_task: TaskContext | None = None  # for threads that user code started
        # The hot calls go straight to the core.
        self.put = core.put if not core.notes_sites else self._put_noted
        self.get = core.get
        self.get_one = core.get_one
        self.wait = core.wait  # of refs only
        core.on_slow_get = self._explain_slow_get

    # --- objects

    def _put_noted(self, value: Any) -> ObjectRef:
        ref = self.core.put(value)
        self.core.note_site(ref, creation_sites.note(ref.binary()))
        return ref

    def wait_mixed(
        self, refs: list[Any], num_returns: int, timeout: float | None, fetch_local: bool = True
    ) -> tuple[list[Any], list[Any]]:
        """Splits `refs` (generators too) into at most `num_returns` ready ones and the rest, in their order."""
        from ray._runtime.generator_wait import wait_mixed

        flags = wait_mixed(self.core, refs, num_returns, timeout, fetch_local)
        ready = [ref for ref, flag in zip(refs, flags, strict=True) if flag]
        return ready, [ref for ref, flag in zip(refs, flags, strict=True) if not flag]

    def _explain_slow_get(self, refs: list[ObjectRef]) -> None:
        # On a thread of its own: the values may come while others are asked.
        threading.Thread(target=self._log_slow_get, args=(refs,), name="ray_explain", daemon=True).start()

    def _log_slow_get(self, refs: list[ObjectRef]) -> None:
        from ray._runtime.explain import explain

        shown = []
        for ref in refs[:_EXPLAINED_REFS]:
            try:
                shown.append(textwrap.indent(str(explain(self, ref, _EXPLAIN_S)), "  "))
            except RayError as error:  # the session has ended, or the ref was dropped
                shown.append(f"  object {ref.hex()}: {error}")
        if len(refs) > _EXPLAINED_REFS:
            shown.append(f"  ... and {len(refs) - _EXPLAINED_REFS} more")
        logger.warning("ray.get has been waiting for 10 s for\n%s", "\n".join(shown))

    def get_locations(self, refs: list[ObjectRef], timeout_ms: int) -> list[tuple[list[bytes], int, bool]]:
        """Of each ref the ids of nodes with a copy, its size (-1: unknown), whether a copy was written to disk."""
        return self.core.get_locations(refs, timeout_ms)

    def get_known_locations(self, refs: list[ObjectRef]) -> list[tuple[list[bytes], int, bool]]:
        """The same without asking the owners."""
        return self.core.get_locations(refs, only_known=True)

    # --- tasks and actors

    def register_template(self, **fields: Any) -> Template:
        """A task's static part; fields as in TemplateOptions of ray/bindings/core.h."""
        return self.core.register_template(fields)

    def runtime_env_json(self, own: dict[str, Any] | None) -> str:
        """The environment of what is submitted with `own`, as it travels."""
        return runtime_env.to_json(runtime_env.merge(self.runtime_env, own))

    def create_actor(
        self, template: Template, options: dict[str, Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> bytes:
        """Starts an actor; its id. Raises ActorAlreadyExistsError."""
        return self.core.create_actor(template, options, args, kwargs)

    def export_function(self, obj: Any) -> bytes:
        """Makes a function or class known to the cluster; its id."""
        return self.functions.export(obj)

    def actor_handle_ref(self, actor_id: bytes) -> ObjectRef:
        """The ref that counts a strong handle, after `create_actor` or `add_actor_handle_ref`."""
        return object_ref.adopt_handle(_handle_id(actor_id))

    def add_actor_handle_ref(self, actor_id: bytes, owner: bytes, options: dict[str, Any]) -> None:
        """A strong handle came from elsewhere: the actor is known and counted once from now on."""
        self.core.register_actor_handle(actor_id, owner, options)
        object_ref.borrow_handle(_handle_id(actor_id), owner)

    def register_actor_handle(self, actor_id: bytes, owner: bytes, options: dict[str, Any]) -> None:
        """A weak handle came from elsewhere."""
        self.core.register_actor_handle(actor_id, owner, options)

    def serialize_actor_handle(self, handle: Any) -> None:
        """Called while `handle` is pickled: a strong one keeps its actor alive from inside the value."""
        if handle._ref is not None:
            object_ref.note_nested(handle._ref)

    def kill_actor(self, actor_id: bytes, no_restart: bool) -> None:
        """Ends an actor's process at once."""
        self.core.kill_actor(actor_id, no_restart)

    def cancel(self, ref: ObjectRef, force: bool, recursive: bool) -> None:
        """Cancels the task that makes `ref`."""
        self.core.cancel(ref, force, recursive)

    def get_named_actor(self, name: str, ray_namespace: str) -> dict[str, Any] | None:
        """Fields of the actor of that name, or None."""
        return gcs.get_named_actor(self.core, name, ray_namespace)

    def list_actors(
        self, *, named_only: bool = False, all_namespaces: bool = True, ray_namespace: str = ""
    ) -> list[dict[str, Any]]:
        """Fields of all actors."""
        return gcs.list_actors(self.core, named_only, all_namespaces, ray_namespace)

    # --- placement groups

    def create_placement_group(self, **fields: Any) -> bytes:
        """Asks for a group, fields as in `ray._core.placement_group.create`; its id. ValueError: the name is taken."""
        return _groups.create(self.core, **fields)

    def remove_placement_group(self, group_id: bytes) -> None:
        """Removes a group; does not wait."""
        _groups.remove(self.core, group_id)

    def wait_placement_group(self, group_id: bytes, timeout: float | None) -> bool:
        """Whether the group is placed, at the latest after `timeout` seconds."""
        return _groups.wait(self.core, group_id, timeout)

    def placement_group_ready(self, group_id: bytes, value: Any) -> ObjectRef:
        """A ref that becomes `value` once the group is placed."""
        return _groups.ready_ref(self.core, group_id, value)

    def find_placement_group(
        self, *, group_id: bytes = b"", name: str = "", ray_namespace: str = ""
    ) -> dict[str, Any] | None:
        """Fields of a group by id, or by name, or None."""
        return _groups.find(self.core, group_id, name, ray_namespace)

    def list_placement_groups(self) -> list[dict[str, Any]]:
        """Fields of all groups, removed ones too."""
        return _groups.list_all(self.core)

    def bundle_specs(self, group_id: bytes) -> list[dict[str, float]]:
        """The resources of a group's bundles. Raises ValueError for a group that is not known (any more)."""
        found = self._bundle_specs.get(group_id)
        if found is None:
            if len(self._bundle_specs) >= _MAX_BUNDLE_SPECS:  # groups come and go
                self._bundle_specs.clear()
            group = self.find_placement_group(group_id=group_id)
            if group is None:
                raise ValueError(f"Placement group {group_id.hex()} does not exist.")
            found = self._bundle_specs[group_id] = [bundle["resources"] for bundle in group["bundles"]]
        return found

    @property
    def captured_group(self) -> bytes:
        """Id of the placement group that the running task hands on to what it submits; empty: none."""
        task = self.task
        return task.placement_group_id if task is not None and task.capture_child_tasks else b""

    # --- tables

    def list_nodes(self) -> list[dict[str, Any]]:
        """Fields of all nodes, dead ones too."""
        return gcs.list_nodes(self.core)

    def kv_get(self, ns: bytes, key: bytes) -> bytes | None:
        """The value of a key, or None."""
        return gcs.kv_get(self.core, ns, key)

    def kv_put(self, ns: bytes, key: bytes, value: bytes, overwrite: bool = True) -> bool:
        """Sets a key; whether it is new."""
        return gcs.kv_put(self.core, ns, key, value, overwrite)

    def kv_del(self, ns: bytes, key: bytes, by_prefix: bool = False) -> int:
        """Deletes keys; how many."""
        return gcs.kv_del(self.core, ns, key, by_prefix)

    def kv_exists(self, ns: bytes, key: bytes) -> bool:
        """Whether there is such a key."""
        return gcs.kv_exists(self.core, ns, key)

    def kv_keys(self, ns: bytes, prefix: bytes) -> list[bytes]:
        """All keys with that prefix."""
        return gcs.kv_keys(self.core, ns, prefix)

    # --- the running task

    @property
    def task(self) -> TaskContext | None:
        """The task that the calling code belongs to; None on drivers."""
        return current_task.get() or self.default_task

    @property
    def current_actor_fields(self) -> dict[str, Any]:
        """Fields of the actor in this process, as the GCS would give them. REQUIRES: inside an actor."""
        task = self.task
        assert task is not None and task.actor is not None
        actor = task.actor
        return {**actor.options, "actor_id": actor.actor_id.binary(), "owner": actor.owner}

    def is_cancelled(self, task: TaskContext) -> bool:
        """Whether the running `task` was cancelled."""
        return task.is_cancelled()

    def shutdown(self, reason: str = "shutdown") -> None:
        """Disconnects; stops the cluster if it was started for this session. Idempotent."""
        if _holder.session is self:
            _holder.session = None
        self.core.shutdown(reason)
        self.core.on_slow_get = None  # no cycle: descriptors go with the last reference to the core
        if self.log_stream is not None:
            self.log_stream.join()
        if self.cluster is not None:
            self.cluster.stop()


def _handle_id(actor_id: bytes) -> bytes:
    """Id of the object that counts the handles of an actor: index 0 of its creation task."""
    return b"\xff" * (TaskID.SIZE - ActorID.SIZE) + actor_id + b"\0\0\0\0"


class _Holder:
    """Where the current session is kept; shared by all threads of the process."""

    __slots__ = ("session",)

    def __init__(self) -> None:
        self.session: Session | None = None


_holder = _Holder()
current_task: ContextVar[TaskContext | None] = ContextVar("ray_task", default=None)


def current_session() -> Session | None:
    """The session of this process, or None."""
    return _holder.session


def require_session() -> Session:
    """The session of this process. Raises RaySystemError where there is none."""
    session = _holder.session
    if session is None:
        raise RaySystemError("Ray has not been started yet. You can start Ray with 'ray.init()'.")
    return session


def set_session(session: Session | None) -> None:
    """Makes `session` the one of this process."""
    _holder.session = session


def _after_fork() -> None:
    # A forked child has the memory of a session but none of its threads.
    _holder.session = None


os.register_at_fork(after_in_child=_after_fork)


class CoreSettings(TypedDict):
    """Arguments of `CoreWorker.start` that the environment sets."""

    log_level: str
    oom_retries: int
    oom_backoff_ms: int
    gcs_timeout_ms: int
    lineage_cap_bytes: int
    max_ended_tasks: int
    max_inline_bytes: int
    rpc_faults: str
    rpc_faults_seed: int


def _lineage_cap_bytes(given: Mapping[str, Any]) -> int:
    """How many bytes this process keeps of tasks that could be run again."""
    if system_config.lookup("lineage_pinning_enabled", given) in (False, 0):  # None: nobody says
        return 0
    cap = _integer("max_lineage_bytes", given, 1 << 30)
    if cap < 0:
        raise ValueError(f"RAY_max_lineage_bytes must be a number of bytes, got {cap}.")
    return cap


def _max_ended_tasks(given: Mapping[str, Any]) -> int:
    """How many attempts at tasks that ended, of those that this process submitted, it remembers for lists."""
    if system_config.lookup("task_events_report_interval_ms", given) == 0:  # so Ray is told to keep none
        return 0
    kept = _integer("max_ended_tasks_per_owner", given, 10_000)
    if not 0 <= kept <= 1_000_000:
        raise ValueError(f"RAY_max_ended_tasks_per_owner must be a number from 0 to 1,000,000, got {kept}.")
    return kept


def _integer(name: str, given: Mapping[str, Any], default: int) -> int:
    if name not in given:
        return environment.integer(f"RAY_{name}", default)
    try:
        return int(given[name])
    except (TypeError, ValueError):
        raise ValueError(f"The setting {name!r} cannot be {given[name]!r}.") from None


def core_options(given: Mapping[str, Any] = MappingProxyType({})) -> CoreSettings:
    """What the environment says of the core of a driver or worker; `given` goes before it.

    Raises:
        ValueError: a variable or setting makes no sense; the text names it.
    """
    return {
        "log_level": environment.log_level(),
        "oom_retries": min(_integer("task_oom_retries", given, -1), (1 << 63) - 1),
        "oom_backoff_ms": _integer("task_oom_retry_delay_base_ms", given, 1000),
        "gcs_timeout_ms": int(float(system_config.lookup(system_config.GCS_TIMEOUT, given) or 60) * 1000),
        "lineage_cap_bytes": _lineage_cap_bytes(given),
        "max_ended_tasks": _max_ended_tasks(given),
        "max_inline_bytes": _integer("max_direct_call_object_size", given, 100 << 10),
        "rpc_faults": system_config.faults(given),
        "rpc_faults_seed": int(system_config.lookup(system_config.FAULTS_SEED, given) or 0),
    }


def start_driver(
    attachment: Attachment,
    *,
    address: str,
    namespace: str,
    job_config: dict[str, Any],
    log_to_driver: bool = True,
    settings: Mapping[str, Any] = MappingProxyType({}),
) -> Session:
    """Connects this process as a driver to the raylet of `attachment` and makes that the current session.

    Args:
        address: what the user gave, for errors.
        settings: `_system_config` of the cluster.

    Raises:
        ValueError: a variable of the environment makes no sense; the text names it.
        ConnectionError: nobody answers there.
    """
    options = core_options(settings)
    worker_id = os.urandom(WorkerID.SIZE)
    try:
        core = CoreWorker.start(
            is_driver=True,
            session_dir=attachment.node_dir,
            worker_id=worker_id,
            ray_namespace=namespace,
            entrypoint=" ".join([sys.executable, *sys.argv]),
            job_config_json=json.dumps(job_config),
            log_file=os.path.join(attachment.logs, f"python-core-driver-{worker_id.hex()}_{os.getpid()}.log"),
            python_version=".".join(map(str, sys.version_info[:3])),
            **options,
        )
    except (RayError, ValueError) as error:  # the core has no other ones
        raise ConnectionError(f"Could not connect to the Ray cluster at {address}: {error}") from error
    core.notes_sites = system_config.records_sites(settings)
    session = Session(core, is_driver=True, namespace=namespace, job_config=job_config)
    session.cluster = attachment.node
    session.node_dir = attachment.node_dir
    session.is_remote = attachment.remote
    from ray._runtime.log_stream import LogStream

    session.log_stream = LogStream(
        core, own_ip=session.node_ip, print_logs=log_to_driver, prefixes="logging_config" not in job_config
    )
    set_session(session)
    return session
