"""How what several processes tell of a task becomes the rows of a list."""

from __future__ import annotations

from typing import Any

import pytest

from ray.util.state import _tables, _tasks
from ray.util.state.common import TaskState

_JOB = b"\x01\0\0\0"
_ACTOR = b"a" * 12 + _JOB
_ARGUMENTS, _LEASE, _QUEUED, _RUNNING, _BLOCKED, _FINISHED, _FAILED = 10, 11, 14, 15, 16, 17, 2


def fact(state: int, *, task: bytes = b"task0000", attempt: int = 0, owned: bool = True, **row: Any) -> dict[str, Any]:
    """As `ray._core.explain.ask` gives them."""
    kind = row.pop("type", 1)
    return {
        "id": task + (_ACTOR if kind != 1 else b"\xff" * 12 + _JOB),
        "state": state,
        "attempt": attempt,
        "name": "f",
        "node_id": b"" if state in (_ARGUMENTS, _LEASE) else b"n" * 28,
        "worker_id": b"" if state in (_ARGUMENTS, _LEASE) else b"w" * 28,
        "pid": 0 if state in (_ARGUMENTS, _LEASE) else 7,
        "need": {"CPU": 1.0},
        "row": {
            "owned": owned, "in_wait": False, "type": kind, "error_type": 0, "submitted_at_ms": 1000 if owned else 0,
            "started_at_ms": 0, "ended_at_ms": 2000 if state in (_FINISHED, _FAILED) else 0,
            "function_name": "module.f" if kind == 1 else "module.A.f", "parent_task_id": b"\xff" * 24,
            "error_message": "", "runtime_env": "", "placement_group_id": b"", "label_selectors": [], **row,
        },
    }  # fmt: skip


def merged(*facts: dict[str, Any]) -> TaskState:
    (row,) = _tasks.merge(list(facts))
    return row


def states(*facts: dict[str, Any]) -> list[tuple[int, str]]:
    return [(row.attempt_number, row.state) for row in _tasks.merge(list(facts))]


@pytest.mark.parametrize(
    ("state", "name"),
    [
        (_ARGUMENTS, "PENDING_ARGS_AVAIL"),
        (_LEASE, "PENDING_NODE_ASSIGNMENT"),
        (_QUEUED, "SUBMITTED_TO_WORKER"),
        (_FINISHED, "FINISHED"),
        (_FAILED, "FAILED"),
    ],
)
def test_the_word_of_the_owner(state: int, name: str) -> None:
    row = merged(fact(state))
    assert (row.state, row.func_or_class_name, row.job_id, row.actor_id) == (name, "f", "01000000", None)
    assert row.parent_task_id == "ff" * 20 + "01000000" and row.creation_time_ms == 1000


def test_the_worker_knows_more_of_what_goes_on() -> None:
    running = fact(_RUNNING, owned=False, started_at_ms=1500)
    row = merged(fact(_QUEUED), running)
    assert (row.state, row.start_time_ms, row.worker_pid, row.creation_time_ms) == ("RUNNING", 1500, 7, 1000)
    assert [event["state"] for event in row.events or []] == ["PENDING_ARGS_AVAIL", "RUNNING"]
    # The owner was asked before it was sent.
    assert states(running, fact(_LEASE)) == [(0, "RUNNING")]
    assert states(fact(_QUEUED), fact(_BLOCKED, owned=False)) == [(0, "RUNNING_IN_RAY_GET")]
    assert states(fact(_QUEUED), fact(_BLOCKED, owned=False, in_wait=True)) == [(0, "RUNNING_IN_RAY_WAIT")]
    assert states(fact(_QUEUED), fact(_ARGUMENTS, owned=False)) == [(0, "GETTING_AND_PINNING_ARGS")]


def test_calls_at_their_actor() -> None:
    sent = fact(_QUEUED, type=3)
    assert states(sent, fact(_QUEUED, type=3, owned=False)) == [(0, "PENDING_ACTOR_TASK_ORDERING_OR_CONCURRENCY")]
    assert states(sent, fact(_ARGUMENTS, type=3, owned=False)) == [(0, "PENDING_ACTOR_TASK_ARGS_FETCH")]
    row = merged(sent)
    assert (row.type, row.actor_id, row.func_or_class_name) == ("ACTOR_TASK", _ACTOR.hex(), "A.f")


def test_who_saw_the_end_is_right() -> None:
    running = fact(_RUNNING, owned=False)
    assert states(running, fact(_FINISHED)) == [(0, "FINISHED")]
    # Its first attempt is over, whatever the process says that ran it; the second is on its way.
    assert states(running, fact(_FAILED), fact(_LEASE, attempt=1)) == [(0, "FAILED"), (1, "PENDING_NODE_ASSIGNMENT")]
    # Told twice: by an owner, and by the raylet that it left it with.
    assert states(fact(_FAILED, ended_at_ms=3000), fact(_FINISHED)) == [(0, "FAILED")]
    assert states(fact(_FINISHED), fact(_FAILED, ended_at_ms=3000)) == [(0, "FAILED")]


def test_a_creation_is_numbered_by_its_owner() -> None:
    """What the GCS sends for a restart does not say which it is."""
    assert states(fact(_LEASE, type=2, attempt=2), fact(_RUNNING, type=2, owned=False)) == [(2, "RUNNING")]


def test_an_owner_that_is_silent() -> None:
    row = merged(fact(_RUNNING, owned=False, started_at_ms=1500))
    assert (row.state, row.creation_time_ms, row.start_time_ms) == ("RUNNING", None, 1500)


def test_errors() -> None:
    row = merged(fact(_FAILED, error_type=3, error_message="ValueError: bad"))
    assert (row.error_type, row.error_message) == ("TASK_EXECUTION_EXCEPTION", "User exception:\nValueError: bad")
    row = merged(fact(_FAILED, error_type=22, error_message="no memory"))
    assert (row.error_type, row.error_message) == ("OUT_OF_MEMORY", "no memory")
    assert merged(fact(_FINISHED)).error_type is None


def test_options() -> None:
    selectors = [{"zone": "a"}, {"zone": "b"}]
    row = merged(fact(_LEASE, label_selectors=selectors, placement_group_id=b"g" * 18, runtime_env='{"a": 1}'))
    assert row.label_selector == {"zone": "a"}
    assert row.fallback_strategy == {"options": [{"label_selector": {"zone": "b"}}]}
    assert row.placement_group_id == (b"g" * 18).hex()
    assert row.runtime_env_info == {"serialized_runtime_env": '{"a": 1}'}
    bare = row.without_details()
    assert bare.task_id == row.task_id and all(bare[column] is None for column in _details())


def _details() -> list[str]:
    return [column for column in TaskState.columns() if column not in TaskState.base_columns()]


def test_a_summary_counts_by_name() -> None:
    rows = _tasks.merge([fact(_FINISHED, task=b"task%04d" % i) for i in range(3)] + [fact(_FAILED, type=3)])
    for row in rows[:2]:
        row.name = "g"
    assert _tasks.summarize(rows) == {
        "summary": {
            "g": {"func_or_class_name": "g", "type": "ACTOR_TASK", "state_counts": {"FAILED": 1, "FINISHED": 1}},
            "f": {"func_or_class_name": "f", "type": "NORMAL_TASK", "state_counts": {"FINISHED": 2}},
        },
        "total_tasks": 3,
        "total_actor_tasks": 1,
        "total_actor_scheduled": 0,
        "summary_by": "func_name",
    }


def test_what_a_query_admits() -> None:
    query = _tables.Query(filters=[("state", "=", "running"), ("name", "=", "x")])
    assert query.admits("state", "RUNNING") and not query.admits("state", "FINISHED") and query.admits("type", "any")
    assert not _tables.Query(filters=[("state", "!=", "FAILED")]).admits("state", "FAILED")
