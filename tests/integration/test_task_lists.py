"""`list_tasks`, `get_task` and `summarize_tasks`: what becomes of tasks, as the state API tells it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from support.processes import run_driver, wait_until

import ray
from ray.cli.main import cli
from ray.util import placement_group, remove_placement_group, state
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy
from ray.util.state.common import TaskState
from ray.util.state.exception import RayStateApiException


@ray.remote(num_cpus=0)
class Gate:
    """Lets tasks wait until a test has looked at them."""

    def __init__(self) -> None:
        self.path = ""

    def pid(self) -> int:
        return os.getpid()

    def fail(self) -> None:
        raise KeyError("of the actor")

    def wait_for(self, path: str) -> None:
        _wait_for(path)


def _wait_for(path: str) -> None:
    deadline = time.monotonic() + 60
    while not os.path.exists(path) and time.monotonic() < deadline:
        time.sleep(0.01)


@ray.remote
def give(value: Any = None) -> Any:
    return value


@ray.remote
def wait_for(path: str) -> str:
    _wait_for(path)
    return path


@pytest.fixture(scope="module", autouse=True)
def session() -> Iterator[None]:
    ray.init(address="local", num_cpus=2, resources={"thing": 1}, logging_level="ERROR", log_to_driver=False)
    yield
    ray.shutdown()


def named(name: str, **wanted: Any) -> TaskState:
    """The one attempt of that name, with details."""
    (row,) = attempts(name)
    for column, value in wanted.items():
        assert row[column] == value, (column, row)
    return row


def attempts(name: str) -> list[TaskState]:
    return state.list_tasks(filters=[("name", "=", name)], detail=True, limit=1000)


def await_state(name: str, wanted: str) -> TaskState:
    wait_until(lambda: [row.state for row in attempts(name)] == [wanted], 20, f"{name} is {wanted}")
    return named(name)


def test_a_task_that_finished() -> None:
    before = time.time() * 1000
    ref = give.options(name="done", num_cpus=0.5, resources={"thing": 0.25}).remote(3)
    assert ray.get(ref) == 3
    row = named("done", state="FINISHED", type="NORMAL_TASK", func_or_class_name="give", attempt_number=0)
    context = ray.get_runtime_context()
    assert row.task_id == ref.task_id().hex() and row.job_id == context.get_job_id() and row.actor_id is None
    assert row.parent_task_id == "ff" * 20 + context.get_job_id()
    assert row.node_id == context.get_node_id()
    (worker,) = [worker for worker in state.list_workers() if worker.worker_id == row.worker_id]
    assert worker.pid == row.worker_pid != os.getpid()
    assert row.required_resources == {"CPU": 0.5, "thing": 0.25}
    assert row.error_type is None and row.error_message is None and row.placement_group_id is None
    assert row.creation_time_ms is not None and row.end_time_ms is not None and row.start_time_ms is not None
    assert before - 2000 <= row.creation_time_ms <= row.end_time_ms <= time.time() * 1000 + 2000
    assert row.start_time_ms <= row.end_time_ms
    assert row.events is not None and [event["state"] for event in row.events][-1] == "FINISHED"
    assert state.get_task(ref) == state.get_task(row.task_id) == row
    assert row.profiling_data is not None and row.profiling_data["component_id"] == row.worker_id
    (ran,) = row.profiling_data["events"]
    assert (ran["event_name"], ran["start_time"], ran["end_time"]) == ("task::done", row.start_time_ms, row.end_time_ms)
    assert row.task_log_info is not None and all(os.path.exists(file) for file in row.task_log_info.values())
    (base,) = state.list_tasks(filters=[("task_id", "=", row.task_id)])
    assert base.events is None and base.required_resources is None and base.worker_pid == row.worker_pid


def test_what_has_a_result_is_in_the_list() -> None:
    """The row is there before anybody can have the result."""
    for i in range(200):
        ref = give.options(name="at once").remote(i)
        ray.get(ref)
        row = state.get_task(ref)
        assert isinstance(row, TaskState) and row.state == "FINISHED"


def test_tasks_on_their_way(tmp_path: Path) -> None:
    first = wait_for.options(name="runs").remote(str(tmp_path / "go"))
    waits = give.options(name="waits for its argument").remote(first)
    never = give.options(name="never", resources={"nothing": 1}).remote()
    runs = await_state("runs", "RUNNING")
    assert runs.worker_pid and runs.start_time_ms and runs.end_time_ms is None
    named("waits for its argument", state="PENDING_ARGS_AVAIL", worker_id=None, worker_pid=None, start_time_ms=None)
    named("never", state="PENDING_NODE_ASSIGNMENT", node_id=None, required_resources={"CPU": 1.0, "nothing": 1.0})
    (tmp_path / "go").touch()
    ray.get(waits)
    assert named("runs", state="FINISHED").worker_pid == runs.worker_pid
    named("waits for its argument", state="FINISHED")
    ray.cancel(never)
    with pytest.raises(ray.exceptions.TaskCancelledError):
        ray.get(never)
    named("never", state="FAILED", error_type="TASK_CANCELLED", worker_id=None)


def test_a_task_blocked_in_get_or_wait(tmp_path: Path) -> None:
    @ray.remote(num_cpus=0.1)
    def getter(path: str) -> Any:
        return ray.get(wait_for.options(name="child", num_cpus=0.1).remote(path))

    @ray.remote(num_cpus=0.1)
    def waiter(refs: list[Any]) -> int:
        return len(ray.wait(refs)[0])

    ref = getter.remote(str(tmp_path / "go"))
    parent = await_state("getter", "RUNNING_IN_RAY_GET")
    child = await_state("child", "RUNNING")
    assert child.parent_task_id == parent.task_id and child.worker_id != parent.worker_id
    waits = waiter.remote([ref])
    await_state("waiter", "RUNNING_IN_RAY_WAIT")
    (tmp_path / "go").touch()
    ray.get(waits)
    named("getter", state="FINISHED")
    # Its owner, the worker that ran its parent, tells of it.
    named("child", state="FINISHED")


def test_failures() -> None:
    @ray.remote(max_retries=1)
    def die() -> None:
        os._exit(1)

    @ray.remote
    def bad() -> None:
        raise ValueError("bad luck")

    for task in (bad, die):
        with pytest.raises(ray.exceptions.RayError):
            ray.get(task.remote())
    row = named("bad", state="FAILED", error_type="TASK_EXECUTION_EXCEPTION", attempt_number=0)
    assert row.error_message is not None
    assert row.error_message.startswith("User exception:") and "ValueError: bad luck" in row.error_message
    first, second = attempts("die")
    for number, row in enumerate((first, second)):
        assert (row.state, row.error_type, row.attempt_number) == ("FAILED", "WORKER_DIED", number)
        assert row.worker_pid and row.error_message and "died" in row.error_message
    assert first.worker_pid != second.worker_pid and first.task_id == second.task_id
    both = state.get_task(first.task_id)
    assert isinstance(both, list) and [row.attempt_number for row in both] == [0, 1]
    argument = give.options(name="with a bad argument").remote(bad.remote())
    with pytest.raises(ValueError, match="bad luck"):
        ray.get(argument)
    named("with a bad argument", state="FAILED", error_type="TASK_EXECUTION_EXCEPTION", worker_id=None)


def test_retries_of_exceptions(tmp_path: Path) -> None:
    @ray.remote(max_retries=3, retry_exceptions=True)
    def flaky(path: str) -> None:
        with open(path, "a") as file:
            file.write("x")
        if os.path.getsize(path) < 3:
            raise RuntimeError("again")

    ray.get(flaky.remote(str(tmp_path / "tries")))
    assert [(row.attempt_number, row.state, row.error_type) for row in attempts("flaky")] == [
        (0, "FAILED", "TASK_EXECUTION_EXCEPTION"),
        (1, "FAILED", "TASK_EXECUTION_EXCEPTION"),
        (2, "FINISHED", None),
    ]


def test_a_cancelled_task_that_runs(tmp_path: Path) -> None:
    ref = wait_for.options(name="interrupted").remote(str(tmp_path / "never"))
    running = await_state("interrupted", "RUNNING")
    ray.cancel(ref)
    with pytest.raises(ray.exceptions.TaskCancelledError):
        ray.get(ref)
    row = named("interrupted", state="FAILED", error_type="TASK_CANCELLED")
    assert row.worker_id == running.worker_id


def test_actor_tasks(tmp_path: Path) -> None:
    actor = Gate.options(name="gate").remote()
    pid = ray.get(actor.pid.remote())
    creation = named("Gate.__init__", state="FINISHED", type="ACTOR_CREATION_TASK", worker_pid=pid)
    assert creation.actor_id == actor._actor_id.hex() and creation.func_or_class_name == "Gate.__init__"
    call = named("Gate.pid", state="FINISHED", type="ACTOR_TASK", worker_pid=pid, func_or_class_name="Gate.pid")
    assert call.actor_id == actor._actor_id.hex() and call.worker_id == creation.worker_id
    with pytest.raises(KeyError):
        ray.get(actor.fail.remote())
    named("Gate.fail", state="FAILED", error_type="TASK_EXECUTION_EXCEPTION", worker_pid=pid)
    running = actor.wait_for.options(name="call that runs").remote(str(tmp_path / "go"))
    queued = actor.pid.options(name="call behind it").remote()
    await_state("call that runs", "RUNNING")
    row = await_state("call behind it", "PENDING_ACTOR_TASK_ORDERING_OR_CONCURRENCY")
    assert row.worker_pid == pid and row.func_or_class_name == "Gate.pid"
    (tmp_path / "go").touch()
    ray.get([running, queued])
    named("call behind it", state="FINISHED")
    late = actor.wait_for.options(name="call that dies").remote(str(tmp_path / "never"))
    await_state("call that dies", "RUNNING")
    ray.kill(actor)
    with pytest.raises(ray.exceptions.ActorDiedError):
        ray.get(late)
    named("call that dies", state="FAILED", error_type="ACTOR_DIED", worker_pid=pid)


def test_creations_of_actors(tmp_path: Path) -> None:
    @ray.remote(num_cpus=0, max_restarts=1)
    class Restarted:
        def pid(self) -> int:
            return os.getpid()

        def die(self) -> None:
            os._exit(1)

    @ray.remote(num_cpus=0)
    class Broken:
        def __init__(self, _: Any = None) -> None:
            raise ValueError("cannot be made")

        def call(self) -> None: ...

    actor = Restarted.remote()
    first = ray.get(actor.pid.remote())
    actor.die.remote()
    wait_until(lambda: _pid_of(actor) not in (None, first), 20, "it is restarted")
    made = attempts("Restarted.__init__")
    assert [(row.attempt_number, row.state) for row in made] == [(0, "FINISHED"), (1, "FINISHED")]
    assert [row.worker_pid for row in made] == [first, _pid_of(actor)]

    broken = Broken.remote()
    with pytest.raises(ray.exceptions.ActorDiedError):
        ray.get(broken.call.remote())
    row = named("Broken.__init__", state="FAILED", type="ACTOR_CREATION_TASK")
    assert row.error_type == "ACTOR_CREATION_FAILED"
    named("Broken.call", state="FAILED", error_type="ACTOR_CREATION_FAILED")

    unplaced = Gate.options(resources={"nothing": 1}).remote()
    pending = unplaced.pid.options(name="of one that has no place").remote()
    filters = [("actor_id", "=", unplaced._actor_id.hex()), ("type", "=", "ACTOR_CREATION_TASK")]
    creation = state.list_tasks(filters=filters)
    assert [row.state for row in creation] == ["PENDING_NODE_ASSIGNMENT"]
    named("of one that has no place", state="PENDING_NODE_ASSIGNMENT", worker_id=None)
    gate = wait_for.options(name="an argument").remote(str(tmp_path / "go"))
    late = Broken.options().remote(gate)
    (creation_row,) = state.list_tasks(filters=[("actor_id", "=", late._actor_id.hex())])
    assert creation_row.state == "PENDING_ARGS_AVAIL"
    (tmp_path / "go").touch()
    ray.kill(unplaced)
    with pytest.raises(ray.exceptions.ActorDiedError):
        ray.get(pending)


def _pid_of(actor: Any) -> int | None:
    try:
        return int(ray.get(actor.pid.remote()))
    except ray.exceptions.RayActorError:
        return None


def test_placement_group_and_environment() -> None:
    group = placement_group([{"CPU": 1}])
    assert group.wait(30)
    strategy = PlacementGroupSchedulingStrategy(group)
    environment = {"env_vars": {"WHO": "me"}}
    ray.get(give.options(name="in a group", scheduling_strategy=strategy, runtime_env=environment).remote())
    row = named("in a group", placement_group_id=group.id.hex())
    assert row.runtime_env_info is not None
    assert json.loads(row.runtime_env_info["serialized_runtime_env"])["env_vars"] == {"WHO": "me"}
    remove_placement_group(group)


def test_filters_limits_and_what_is_left_out() -> None:
    ray.get([give.options(name=f"many {i % 2}").remote(i) for i in range(20)])
    ray.get(give.options(name="hidden", enable_task_events=False).remote())
    assert len(attempts("MANY 0")) == 10 and attempts("hidden") == []
    assert len(state.list_tasks(limit=5)) == 5 and state.list_tasks(limit=0) == []
    rows = state.list_tasks(filters=[("name", "=", "many 1"), ("state", "!=", "finished")])
    assert rows == []
    ids = [row.task_id for row in state.list_tasks(limit=10_000)]
    assert ids == sorted(ids)
    assert state.get_task("00" * 24) is None
    assert state.list_tasks(filters=[("task_id", "=", "no id")]) == []
    with pytest.raises(TypeError, match="17"):
        state.get_task(17)  # type: ignore[arg-type]
    with pytest.raises(RayStateApiException, match="no_such_column"):
        state.list_tasks(filters=[("no_such_column", "=", 1)])
    with pytest.raises(ValueError, match="predicate"):
        state.list_tasks(filters=[("name", ">", 1)])


MANY_LARGE = """
import ray
from ray.util import state
from ray.util.state.exception import RayStateApiException

# A cluster of its own: lists of it say for ever that rows are left out.
ray.init(address="local", num_cpus=2, logging_level="ERROR")

@ray.remote(runtime_env={"env_vars": {"LONG": "x" * 100_000}})
def one():
    return 1

assert ray.get([one.remote() for _ in range(200)]) == [1] * 200
told = state.list_tasks(limit=1000, raise_on_missing_output=False)
assert 100 < len(told) < 200, len(told)
try:
    state.list_tasks(limit=1000)
except RayStateApiException as e:
    print(f"{200 - len(told)} more tasks are known, too many for one answer" in str(e))
ray.shutdown()
"""


def test_rows_that_are_too_large_for_an_answer_are_counted() -> None:
    done = run_driver(MANY_LARGE)
    assert done.stdout.strip() == "True", done


def test_a_summary() -> None:
    ray.get([give.options(name="counted").remote() for _ in range(3)])
    summary = state.summarize_tasks()["cluster"]
    assert summary["summary"]["counted"] == {
        "func_or_class_name": "counted",
        "type": "NORMAL_TASK",
        "state_counts": {"FINISHED": 3},
    }
    assert summary["summary_by"] == "func_name"
    assert summary["total_tasks"] >= 3 and summary["total_actor_tasks"] >= 1 and summary["total_actor_scheduled"] >= 1


def command(*arguments: str) -> str:
    done = CliRunner().invoke(cli, list(arguments))
    assert done.exit_code == 0, done.output
    return str(done.output)


def test_commands() -> None:
    ref = give.options(name="from a shell").remote()
    ray.get(ref)
    (row,) = json.loads(command("list", "tasks", "--format=json", "--filter", "name=from a shell"))
    assert row["state"] == "FINISHED" and "events" not in row
    table = command("list", "tasks", "-f", "name=from a shell").splitlines()
    assert "TASK_ID" in table[0] and "from a shell" in table[1] and len(table) == 2
    assert "end_time_ms" in command("get", "tasks", ref.task_id().hex())
    assert "from a shell" in command("summary", "tasks")


@pytest.mark.parametrize("detached", [False, True])
def test_tasks_of_a_worker_that_has_left(detached: bool) -> None:
    """A process that leaves in good order tells its raylet what it knew."""

    @ray.remote(num_cpus=0)
    class Submitter:
        def submit(self, name: str) -> int:
            ray.get(give.options(name=name, num_cpus=0.1).remote())
            return os.getpid()

    name = f"of one that leaves {detached}"
    actor = Submitter.options(lifetime="detached" if detached else None, name=name).remote()
    pid = ray.get(actor.submit.remote(name))
    actor.__ray_terminate__.remote()
    wait_until(lambda: pid not in [worker.pid for worker in state.list_workers()], 20, "it has left")
    named(name, state="FINISHED")


def test_tasks_of_a_driver_that_has_left() -> None:
    """What it did not wait for has failed."""
    program = """
        import sys, ray
        ray.init(address=sys.argv[1], logging_level="ERROR", log_to_driver=False)
        @ray.remote(num_cpus=0)
        def task():
            pass
        ray.get(task.options(name="of the other driver").remote())
        left = task.options(name="left behind", resources={"nothing": 1}).remote()
    """
    address = ray.get_runtime_context().gcs_address
    subprocess.run([sys.executable, "-c", textwrap.dedent(program), address], check=True, timeout=60)
    row = named("of the other driver", state="FINISHED")
    assert row.job_id != ray.get_runtime_context().get_job_id()
    left = named("left behind", state="FAILED", error_type="WORKER_DIED")
    assert left.error_message == "its owner left before it had ended"
    assert state.get_task(row.task_id) == row


def test_bounds() -> None:
    """Each process remembers so many; what it forgot counts as missing only where it could be asked for."""
    ray.shutdown()
    ray.init(
        address="local", num_cpus=1, logging_level="ERROR", log_to_driver=False,
        _system_config={"max_ended_tasks_per_owner": 10},
    )  # fmt: skip

    @ray.remote
    def bad() -> None:
        raise ValueError

    with pytest.raises(ValueError):
        ray.get(bad.remote())
    ray.get([give.remote() for _ in range(25)])
    with pytest.raises(RayStateApiException, match="15 finished"):
        state.list_tasks()
    rows = state.list_tasks(raise_on_missing_output=False)
    assert sorted(row.name for row in rows) == ["bad"] + ["give"] * 10
    assert [row.name for row in state.list_tasks(filters=[("state", "=", "failed")])] == ["bad"]
    assert state.list_tasks(filters=[("state", "=", "RUNNING")]) == []
    with pytest.warns(RuntimeWarning, match="not remembered"):
        state.list_tasks(raise_on_missing_output=False, _explain=True)
    assert "give" in command("summary", "tasks")
    ray.shutdown()
    ray.init(
        address="local", num_cpus=1, logging_level="ERROR", log_to_driver=False,
        _system_config={"task_events_report_interval_ms": 0},
    )  # fmt: skip
    ray.get(give.remote())
    assert state.list_tasks() == []
