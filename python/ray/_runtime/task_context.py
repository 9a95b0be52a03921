"""What code can know of the task it runs in; made by the executor, read through `Session.task`."""

from __future__ import annotations

from typing import Any

from ray._core.executor import TaskRun
from ray._core.ids import ActorID, JobID, TaskID


class ActorState:
    """The actor that lives in this process.

    Attributes:
        instance: the object, once the constructor has returned.
        options: ActorOptions as of its creation.
        owner: address of the process that created it (56 bytes).
    """

    def __init__(self, run: TaskRun) -> None:
        self.actor_id = ActorID(run.actor_id)
        self.options: dict[str, Any] = run.actor_options
        self.owner = run.caller_address
        self.was_restarted = run.was_restarted
        self.placement_group_id = run.template.placement_group_id
        self.capture_child_tasks = run.template.capture_child_tasks
        self.runtime_env: str = run.template.runtime_env
        self.resources: dict[str, float] = run.template.resources
        self.instances = run.instances
        self.instance: Any = None
        self.repr_name = ""  # repr(instance), where the class defines one


class TaskContext:
    """The running task. Everything is read from the run on demand: most tasks never ask."""

    __slots__ = ("_accelerator_ids", "_run", "actor")

    def __init__(self, run: TaskRun, actor: ActorState | None, accelerator_ids: dict[str, list[Any]]) -> None:
        self.begin(run, actor, accelerator_ids)

    def begin(self, run: TaskRun, actor: ActorState | None, accelerator_ids: dict[str, list[Any]]) -> None:
        """From now on this is the context of `run`."""
        self._run = run
        self.actor = actor
        self._accelerator_ids = accelerator_ids

    @property
    def task_id(self) -> TaskID:
        return TaskID(self._run.task_id)

    @property
    def job_id(self) -> JobID:
        return JobID(self._run.job_id)

    @property
    def task_name(self) -> str:
        return str(self._run.template.name)

    @property
    def function_name(self) -> str:
        return str(self._run.template.function_name)

    @property
    def method(self) -> str:
        return str(self._run.template.method_name)

    @property
    def attempt(self) -> int:
        return self._run.attempt

    @property
    def namespace(self) -> str:
        return self._run.ray_namespace

    @property
    def runtime_env(self) -> str:
        return str(self._run.template.runtime_env or (self.actor.runtime_env if self.actor is not None else ""))

    @property
    def actor_id(self) -> ActorID | None:
        return self.actor.actor_id if self.actor is not None else None

    @property
    def actor_name(self) -> str:
        return self.actor.options["name"] if self.actor is not None else ""

    @property
    def actor_instance(self) -> Any:
        return self.actor.instance if self.actor is not None else None

    @property
    def is_async_actor(self) -> bool:
        return self.actor is not None and bool(self.actor.options["is_async"])

    @property
    def was_restarted(self) -> bool:
        return self.actor is not None and self.actor.was_restarted

    @property
    def placement_group_id(self) -> bytes:
        return self.actor.placement_group_id if self.actor is not None else self._run.template.placement_group_id

    @property
    def capture_child_tasks(self) -> bool:
        return bool(
            self.actor.capture_child_tasks if self.actor is not None else self._run.template.capture_child_tasks
        )

    @property
    def assigned_resources(self) -> dict[str, float]:
        return dict(self.actor.resources if self.actor is not None else self._run.template.resources)

    @property
    def accelerator_ids(self) -> dict[str, list[Any]]:
        return self._accelerator_ids

    def is_cancelled(self) -> bool:
        """Whether it was cancelled."""
        return self._run.is_cancelled()
