"""The attempts at tasks that the processes of a cluster know of, as rows of `ray.util.state`.

Every owner tells of its own tasks, whether they have ended or not, every worker of what it does at the moment, and a
raylet of the tasks of those that have left its node (SUBJECT_KIND_TASKS of explain.proto). They are asked at the same
time, yet not at the same moment: where they differ, who saw the end of an attempt is right, and of one that goes on the
worker knows more than the owner.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ray._core import explain as _core
from ray._runtime.explain import WaitState, state_of
from ray.util.state.common import TaskState

if TYPE_CHECKING:
    from ray._runtime.session import Session

TASK_ID_DIGITS = 48

_TASKS = 7  # SubjectKind
_NO_WORKER = b"\xff" * 28
_NOBODY = "ff" * 24  # the parent of what a driver submits
_TYPES = {1: "NORMAL_TASK", 2: "ACTOR_CREATION_TASK", 3: "ACTOR_TASK"}
_NORMAL, _CREATION = 1, 2
_OWNER_STATES = {
    WaitState.WAITING_FOR_ARGUMENTS: "PENDING_ARGS_AVAIL",
    WaitState.QUEUED_AT_WORKER: "SUBMITTED_TO_WORKER",
    WaitState.FINISHED: "FINISHED",
    WaitState.FAILED: "FAILED",
}  # and else PENDING_NODE_ASSIGNMENT
_RAISED = 3  # ErrorType
_ERRORS = {
    0: "WORKER_DIED",
    1: "ACTOR_DIED",
    3: "TASK_EXECUTION_EXCEPTION",
    5: "TASK_CANCELLED",
    6: "ACTOR_CREATION_FAILED",
    7: "RUNTIME_ENV_SETUP_FAILED",
    8: "OBJECT_LOST",
    9: "OWNER_DIED",
    10: "OBJECT_DELETED",
    11: "TASK_EXECUTION_EXCEPTION",  # DEPENDENCY_RESOLUTION_FAILED: that of an argument is the task's own
    12: "OBJECT_UNRECONSTRUCTABLE_MAX_ATTEMPTS_EXCEEDED",
    13: "OBJECT_UNRECONSTRUCTABLE_LINEAGE_EVICTED",
    14: "OBJECT_FETCH_TIMED_OUT",
    15: "LOCAL_RAYLET_DIED",
    16: "TASK_PLACEMENT_GROUP_REMOVED",
    17: "ACTOR_PLACEMENT_GROUP_REMOVED",
    18: "TASK_UNSCHEDULABLE_ERROR",
    19: "ACTOR_UNSCHEDULABLE_ERROR",
    20: "OUT_OF_DISK_ERROR",
    21: "OBJECT_FREED",
    22: "OUT_OF_MEMORY",
    23: "NODE_DIED",
    24: "END_OF_STREAMING_GENERATOR",
    25: "ACTOR_UNAVAILABLE",
    26: "GENERATOR_TASK_FAILED_FOR_OBJECT_RECONSTRUCTION",
    33: "WORKER_STARTUP_FAILED",
    41: "TASK_TIMED_OUT",
}
"""ErrorType of the core, by the names that Ray gives them."""


@dataclass
class Collected:
    """What was found, and what is known to be missing."""

    rows: list[TaskState]
    notes: list[str] = field(default_factory=list)  # of processes that did not answer
    forgotten_finished: int = 0
    forgotten_failed: int = 0
    left_out: int = 0  # for which there was no room in the answers


def collect(session: Session, timeout: float, task_id: bytes = b"") -> Collected:
    """Asks all live nodes of the cluster, of one task or (b"") of all; each answer may take `timeout` seconds."""
    known = session.list_nodes()
    nodes = [node for node in known if node["alive"]]
    questions = [(bytes(node["node_id"]) + _NO_WORKER, _TASKS, task_id, True) for node in nodes]
    answers = _core.ask(session.core, questions, max(1, int(timeout * 1000)))
    facts: list[dict[str, Any]] = []
    collected = Collected([])
    for node, (found, why) in zip(nodes, answers, strict=True):
        where = f"node {node['node_id'].hex()} ({node['ip']})"
        if why:
            collected.notes.append(f"{where} did not answer: {why}")
            continue
        silent = 0
        for fact in found:
            if "row" in fact:
                facts.append(fact)
            totals = fact.get("totals")
            if totals:
                collected.forgotten_finished += totals["forgotten_finished"]
                collected.forgotten_failed += totals["forgotten_failed"]
                collected.left_out += totals["left_out"]
                silent += totals["silent"]
        if silent:
            collected.notes.append(f"{silent} process(es) of {where} did not answer in time")
    collected.rows = merge(facts)
    ips = {node["node_id"].hex(): node["ip"] for node in known}
    logs = os.path.join(session.session_dir, "logs")
    for row in collected.rows:
        row.profiling_data = _profile(row, ips.get(row.node_id or "", ""))
        row.task_log_info = _log_info(row, logs)
    return collected


def merge(facts: list[dict[str, Any]]) -> list[TaskState]:
    """One row for each attempt that the facts tell of, with details, in the order of the ids."""
    rows: dict[tuple[bytes, int], TaskState] = {}
    live: dict[bytes, TaskState] = {}  # as their owners tell
    for fact in facts:
        if not fact["row"]["owned"]:
            continue
        key = (fact["id"], fact["attempt"])
        row = _row(fact, _OWNER_STATES.get(state_of(fact), "PENDING_NODE_ASSIGNMENT"))
        known = rows.get(key)
        if known is not None and (known.end_time_ms or 0) > (row.end_time_ms or 0):
            continue
        rows[key] = row
        if row.end_time_ms is None:
            live[fact["id"]] = row
    for fact in facts:
        if fact["row"]["owned"]:
            continue
        key = (fact["id"], fact["attempt"])
        state = _executor_state(fact)
        told = live.get(fact["id"])
        if told is None:
            if key not in rows:
                rows[key] = _row(fact, state)  # its owner has not told, or does not know it yet
        # A creation is numbered by the GCS when it is made again.
        elif told.attempt_number == fact["attempt"] or fact["row"]["type"] == _CREATION:
            _overlay(told, fact, state)
    for row in rows.values():
        row.events = _events(row)
    return [rows[key] for key in sorted(rows)]


def _executor_state(fact: dict[str, Any]) -> str:
    state, is_call = state_of(fact), fact["row"]["type"] not in (_NORMAL, _CREATION)
    if state is WaitState.BLOCKED:
        return "RUNNING_IN_RAY_WAIT" if fact["row"]["in_wait"] else "RUNNING_IN_RAY_GET"
    if state is WaitState.WAITING_FOR_ARGUMENTS:
        return "PENDING_ACTOR_TASK_ARGS_FETCH" if is_call else "GETTING_AND_PINNING_ARGS"
    if state is WaitState.QUEUED_AT_WORKER:
        return "PENDING_ACTOR_TASK_ORDERING_OR_CONCURRENCY" if is_call else "SUBMITTED_TO_WORKER"
    return "RUNNING"


def _overlay(row: TaskState, fact: dict[str, Any], state: str) -> None:
    row.state = state
    row.node_id, row.worker_id, row.worker_pid = fact["node_id"].hex(), fact["worker_id"].hex(), fact["pid"]
    row.start_time_ms = fact["row"]["started_at_ms"] or row.start_time_ms


def _row(fact: dict[str, Any], state: str) -> TaskState:
    told = fact["row"]
    task_id, selectors = fact["id"], told["label_selectors"]
    job_id = task_id[-4:].hex()
    parent = told["parent_task_id"].hex()
    failed = state == "FAILED"
    parts = 1 if told["type"] == _NORMAL else 2  # f, or Class.method
    return TaskState(
        task_id=task_id.hex(),
        attempt_number=fact["attempt"],
        name=fact["name"],
        state=state,
        job_id=job_id,
        actor_id=task_id[8:].hex() if told["type"] != _NORMAL else None,
        type=_TYPES.get(told["type"], "NORMAL_TASK"),
        func_or_class_name=".".join(told["function_name"].split(".")[-parts:]),
        parent_task_id=parent if parent != _NOBODY else "ff" * 20 + job_id,
        node_id=fact["node_id"].hex() or None,
        worker_id=fact["worker_id"].hex() or None,
        worker_pid=fact["pid"] or None,
        error_type=_ERRORS.get(told["error_type"], f"ERROR_{told['error_type']}") if failed else None,
        language="PYTHON",
        required_resources=fact["need"],
        runtime_env_info={"serialized_runtime_env": told["runtime_env"] or "{}"},
        placement_group_id=told["placement_group_id"].hex() if told["placement_group_id"].strip(b"\xff") else None,
        creation_time_ms=told["submitted_at_ms"] or None,
        start_time_ms=told["started_at_ms"] or None,
        end_time_ms=told["ended_at_ms"] or None,
        error_message=_error_message(told) if failed else None,
        label_selector=selectors[0] if selectors else {},
        fallback_strategy={"options": [{"label_selector": selector} for selector in selectors[1:]]},
    )


def _error_message(told: dict[str, Any]) -> str:
    text: str = told["error_message"]
    return f"User exception:\n{text}" if told["error_type"] == _RAISED else text


def _events(row: TaskState) -> list[dict[str, Any]]:
    """The moments that are known: of its submission, of the start of its code, of its end."""
    last = row.state if row.end_time_ms is not None else "FINISHED"
    moments = [
        ("PENDING_ARGS_AVAIL", row.creation_time_ms),
        ("RUNNING", row.start_time_ms),
        (last, row.end_time_ms),
    ]
    return [{"state": state, "created_ms": float(at)} for state, at in moments if at is not None]


def _profile(row: TaskState, node_ip: str) -> dict[str, Any]:
    """When its code ran; nothing where it never did, or still does."""
    if row.start_time_ms is None or row.end_time_ms is None:
        return {}
    ran = {
        "event_name": f"task::{row.name}",
        "start_time": float(row.start_time_ms),
        "end_time": float(row.end_time_ms),
        "extra_data": {"name": row.func_or_class_name, "task_id": row.task_id},
    }
    return {
        "component_type": "worker",
        "component_id": row.worker_id,
        "node_ip_address": node_ip,
        "events": [ran],
    }


def _log_info(row: TaskState, logs: str) -> dict[str, Any] | None:
    """The files that its worker writes to, on its machine."""
    if row.worker_id is None or row.worker_pid is None:
        return None
    stem = os.path.join(logs, f"worker-{row.worker_id}-{row.job_id}-{row.worker_pid}")
    return {"stdout_file": f"{stem}.out", "stderr_file": f"{stem}.err"}


def summarize(rows: list[TaskState]) -> dict[str, Any]:
    """How many attempts of each name are in which state, as Ray groups and counts them."""
    summary: dict[str, dict[str, Any]] = {}
    for row in rows:
        of_name = summary.setdefault(row.name, {"func_or_class_name": row.name, "type": row.type, "state_counts": {}})
        counts = of_name["state_counts"]
        counts[row.state] = counts.get(row.state, 0) + 1
    count: Callable[[str], int] = [row.type for row in rows].count
    return {
        "summary": summary,
        "total_tasks": count("NORMAL_TASK"),
        "total_actor_tasks": count("ACTOR_TASK"),
        "total_actor_scheduled": count("ACTOR_CREATION_TASK"),
        "summary_by": "func_name",
    }
