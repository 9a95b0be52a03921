"""The rows of the state API: one class for each kind of thing, with the columns that Ray's have.

Columns from `_first_detail` on are only filled where `detail=True` asks for them; what nobody keeps here stays None.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar


class StateSchema:
    """What all rows can do: columns are attributes, and items, too."""

    _first_detail: ClassVar[str | None] = None

    def __getitem__(self, column: str) -> Any:
        if column not in self.columns():
            raise KeyError(column)
        return getattr(self, column)

    def get(self, column: str, default: Any = None) -> Any:
        """The value of that column; `default` where there is no such column."""
        return getattr(self, column) if column in self.columns() else default

    @classmethod
    def columns(cls) -> list[str]:
        """Names of all columns."""
        return [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]  # each subclass is a dataclass

    @classmethod
    def base_columns(cls) -> list[str]:
        """Names of the columns that are filled without `detail`."""
        columns = cls.columns()
        return columns if cls._first_detail is None else columns[: columns.index(cls._first_detail)]

    def asdict(self) -> dict[str, Any]:
        """The row as a dictionary."""
        return {column: getattr(self, column) for column in self.columns()}


@dataclasses.dataclass
class NodeState(StateSchema):
    """A node. `state` is ALIVE or DEAD."""

    _first_detail = "start_time_ms"

    node_id: str
    node_ip: str
    is_head_node: bool
    state: str
    state_message: str | None
    node_name: str
    resources_total: dict[str, float]
    labels: dict[str, str]
    start_time_ms: int | None = None
    end_time_ms: int | None = None


@dataclasses.dataclass
class ActorState(StateSchema):
    """An actor. `state` is DEPENDENCIES_UNREADY, PENDING_CREATION, ALIVE, RESTARTING or DEAD."""

    _first_detail = "serialized_runtime_env"

    actor_id: str
    class_name: str
    state: str
    job_id: str
    name: str
    node_id: str | None
    pid: int
    ray_namespace: str
    serialized_runtime_env: str | None = None
    required_resources: dict[str, float] | None = None
    death_cause: dict[str, Any] | None = None
    is_detached: bool | None = None
    placement_group_id: str | None = None
    repr_name: str | None = None
    num_restarts: int | None = None
    num_restarts_due_to_lineage_reconstruction: int | None = None
    num_restarts_due_to_node_preemption: int | None = None
    call_site: str | None = None
    label_selector: dict[str, str] | None = None
    fallback_strategy: list[Any] | None = None


@dataclasses.dataclass
class JobState(StateSchema):
    """A driver and what it started. `status` is RUNNING or SUCCEEDED."""

    _first_detail = "driver_agent_http_address"

    job_id: str
    submission_id: str | None
    type: str
    status: str
    entrypoint: str
    driver_info: dict[str, Any] | None
    start_time: int
    end_time: int | None
    message: str | None = None
    error_type: str | None = None
    metadata: dict[str, str] | None = None
    runtime_env: dict[str, Any] | None = None
    driver_agent_http_address: str | None = None
    driver_node_id: str | None = None
    driver_exit_code: int | None = None


@dataclasses.dataclass
class PlacementGroupState(StateSchema):
    """A placement group. `state` is PENDING, PREPARED, CREATED, REMOVED or RESCHEDULING."""

    _first_detail = "bundles"

    placement_group_id: str
    name: str
    creator_job_id: str
    state: str
    bundles: list[dict[str, Any]] | None = None
    is_detached: bool | None = None
    stats: dict[str, Any] | None = None
    topology_strategy: dict[str, str] | None = None
    topology_assignments: dict[str, str] | None = None


@dataclasses.dataclass
class WorkerState(StateSchema):
    """A process of a node that runs tasks or an actor, or a driver."""

    _first_detail = "exit_detail"

    worker_id: str
    is_alive: bool
    worker_type: str
    exit_type: str | None
    node_id: str
    ip: str
    pid: int
    exit_detail: str | None = None
    worker_launch_time_ms: int | None = None
    worker_launched_time_ms: int | None = None
    start_time_ms: int | None = None
    end_time_ms: int | None = None
    debugger_port: int | None = None
    num_paused_threads: int | None = None


@dataclasses.dataclass
class TaskState(StateSchema):
    """An attempt at a task. `type` is NORMAL_TASK, ACTOR_CREATION_TASK or ACTOR_TASK; `state` is one of

    PENDING_ARGS_AVAIL, PENDING_NODE_ASSIGNMENT, SUBMITTED_TO_WORKER: as its owner sees it;
    GETTING_AND_PINNING_ARGS, PENDING_ACTOR_TASK_ARGS_FETCH, PENDING_ACTOR_TASK_ORDERING_OR_CONCURRENCY, RUNNING,
    RUNNING_IN_RAY_GET, RUNNING_IN_RAY_WAIT: as its worker does;
    FINISHED, FAILED: then `error_type` says why.
    """

    _first_detail = "language"

    task_id: str
    attempt_number: int
    name: str
    state: str
    job_id: str
    actor_id: str | None
    type: str
    func_or_class_name: str
    parent_task_id: str
    node_id: str | None
    worker_id: str | None
    worker_pid: int | None
    error_type: str | None
    language: str | None = None
    required_resources: dict[str, float] | None = None
    runtime_env_info: dict[str, Any] | None = None
    placement_group_id: str | None = None
    events: list[dict[str, Any]] | None = None
    profiling_data: dict[str, Any] | None = None
    creation_time_ms: int | None = None
    start_time_ms: int | None = None
    end_time_ms: int | None = None
    task_log_info: dict[str, Any] | None = None
    error_message: str | None = None
    is_debugger_paused: bool | None = None
    call_site: str | None = None
    label_selector: dict[str, str] | None = None
    fallback_strategy: dict[str, Any] | None = None

    def without_details(self) -> TaskState:
        """The row with nothing in the columns of details."""
        return TaskState(**{column: getattr(self, column) for column in self.base_columns()})


@dataclasses.dataclass
class ObjectState(StateSchema):
    """A reference to an object as one process holds it. The columns are those of `ray memory`."""

    object_id: str
    object_size: int
    task_status: str
    attempt_number: int
    reference_type: str
    call_site: str
    type: str
    pid: int
    ip: str
