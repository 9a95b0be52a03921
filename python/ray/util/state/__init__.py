"""What a cluster knows of its nodes, jobs, workers, actors, tasks, objects and placement groups.

The `list_...` functions give the rows of a table, the `get_...` functions those of one id, the `summarize_...`
functions counts; `explain` tells what something waits for. Nothing is recorded for them while nobody asks: what has
ended is known for as long as the cluster itself needs it. Only of tasks is the end noted for their sake: each process
remembers the last ones that it submitted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ray._auto_init import ensure_session
from ray._core.object_ref import ObjectRef
from ray._runtime.explain import UnknownIdError as UnknownIdError
from ray._runtime.explain import explain as _explain
from ray._runtime.explanation import Explanation as Explanation
from ray._runtime.explanation import WaitState as WaitState
from ray.util.state import _logs, _tables, _tasks
from ray.util.state._tables import Filter, Query, Row
from ray.util.state.common import (
    ActorState,
    JobState,
    NodeState,
    ObjectState,
    PlacementGroupState,
    StateSchema,
    TaskState,
    WorkerState,
)

__all__ = [
    "Explanation",
    "UnknownIdError",
    "WaitState",
    "explain",
    "get_actor",
    "get_job",
    "get_log",
    "get_node",
    "get_objects",
    "get_placement_group",
    "get_task",
    "get_worker",
    "list_actors",
    "list_jobs",
    "list_logs",
    "list_nodes",
    "list_objects",
    "list_placement_groups",
    "list_tasks",
    "list_workers",
    "summarize_actors",
    "summarize_objects",
    "summarize_tasks",
]

_LIMIT = 100
_TIMEOUT_S = 30
_LOOK_AGAIN_S = 0.5  # for what was added to a file that is followed


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


def list_nodes(
    address: str | None = None,
    filters: Sequence[Filter] | None = None,
    limit: int = _LIMIT,
    timeout: int = _TIMEOUT_S,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> list[NodeState]:
    """The nodes of the cluster, dead ones too.

    Args:
        address: of the cluster. None: the one that this process is connected to, else the one on this machine.
        filters: (column, "=" or "!=", value) each; a row must pass all of them. Case does not count.
        limit: at most so many rows.
        timeout: seconds that each node may take to answer, where nodes are asked: all at once, for workers and
            objects. The tables of the GCS come with the time-out of all that is asked there
            (RAY_gcs_server_request_timeout_seconds).
        detail: fill the columns that are marked as details, too.
        raise_on_missing_output: False: leave out what nodes did not tell.
        _explain: give a warning of what is left out.

    Raises:
        ConnectionError: there is no such cluster.
        RayStateApiException: a node did not answer.
        ValueError: a bad filter or limit.
    """
    query = Query(address, filters or (), limit, timeout, detail)
    return _tables.rows(NodeState, query, raise_on_missing_output=raise_on_missing_output, tell=_explain)


def get_node(
    id: str, address: str | None = None, timeout: int = _TIMEOUT_S, _explain: bool = False
) -> NodeState | None:
    """The node of that id, with details; None if there is none. Raises as `list_nodes`."""
    return _first(_one(NodeState, "node_id", id, address, timeout, _explain))


def list_actors(
    address: str | None = None,
    filters: Sequence[Filter] | None = None,
    limit: int = _LIMIT,
    timeout: int = _TIMEOUT_S,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> list[ActorState]:
    """The actors of all jobs, dead ones too. Arguments and errors are those of `list_nodes`."""
    query = Query(address, filters or (), limit, timeout, detail)
    return _tables.rows(ActorState, query, raise_on_missing_output=raise_on_missing_output, tell=_explain)


def get_actor(
    id: str, address: str | None = None, timeout: int = _TIMEOUT_S, _explain: bool = False
) -> ActorState | None:
    """The actor of that id, with details; None if there is none. Raises as `list_actors`."""
    return _first(_one(ActorState, "actor_id", id, address, timeout, _explain))


def list_jobs(
    address: str | None = None,
    filters: Sequence[Filter] | None = None,
    limit: int = _LIMIT,
    timeout: int = _TIMEOUT_S,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> list[JobState]:
    """The jobs of the cluster: one for each driver. Arguments and errors are those of `list_nodes`."""
    query = Query(address, filters or (), limit, timeout, detail)
    return _tables.rows(JobState, query, raise_on_missing_output=raise_on_missing_output, tell=_explain)


def get_job(id: str, address: str | None = None, timeout: int = _TIMEOUT_S, _explain: bool = False) -> JobState | None:
    """The job of that id, with details; None if there is none. Raises as `list_jobs`."""
    return _first(_one(JobState, "job_id", id, address, timeout, _explain))


def list_placement_groups(
    address: str | None = None,
    filters: Sequence[Filter] | None = None,
    limit: int = _LIMIT,
    timeout: int = _TIMEOUT_S,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> list[PlacementGroupState]:
    """The placement groups of all jobs, removed ones too. Arguments and errors are those of `list_nodes`."""
    query = Query(address, filters or (), limit, timeout, detail)
    return _tables.rows(PlacementGroupState, query, raise_on_missing_output=raise_on_missing_output, tell=_explain)


def get_placement_group(
    id: str, address: str | None = None, timeout: int = _TIMEOUT_S, _explain: bool = False
) -> PlacementGroupState | None:
    """The placement group of that id, with details; None if there is none. Raises as `list_placement_groups`."""
    return _first(_one(PlacementGroupState, "placement_group_id", id, address, timeout, _explain))


def list_workers(
    address: str | None = None,
    filters: Sequence[Filter] | None = None,
    limit: int = _LIMIT,
    timeout: int = _TIMEOUT_S,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> list[WorkerState]:
    """The processes of the live nodes: workers and drivers. Arguments and errors are those of `list_nodes`."""
    query = Query(address, filters or (), limit, timeout, detail)
    return _tables.rows(WorkerState, query, raise_on_missing_output=raise_on_missing_output, tell=_explain)


def get_worker(
    id: str, address: str | None = None, timeout: int = _TIMEOUT_S, _explain: bool = False
) -> WorkerState | None:
    """The worker of that id, with details; None if there is none.

    Raises as `list_workers`, of nodes that did not answer only if it was not found.
    """
    return _first(_one(WorkerState, "worker_id", id, address, timeout, _explain))


def list_objects(
    address: str | None = None,
    filters: Sequence[Filter] | None = None,
    limit: int = _LIMIT,
    timeout: int = _TIMEOUT_S,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> list[ObjectState]:
    """The references that the processes of the cluster hold, as `ray memory` shows them.

    Arguments and errors are those of `list_nodes`.
    """
    query = Query(address, filters or (), limit, timeout, detail)
    return _tables.rows(ObjectState, query, raise_on_missing_output=raise_on_missing_output, tell=_explain)


def get_objects(
    id: str, address: str | None = None, timeout: int = _TIMEOUT_S, _explain: bool = False
) -> list[ObjectState]:
    """The references to the object of that id.

    Raises as `list_objects`, of nodes that did not answer only if none was found.
    """
    return _one(ObjectState, "object_id", id, address, timeout, _explain)


def list_tasks(
    address: str | None = None,
    filters: Sequence[Filter] | None = None,
    limit: int = _LIMIT,
    timeout: int = _TIMEOUT_S,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> list[TaskState]:
    """The tasks of all jobs: one row for each attempt, ended ones too.

    Every process remembers of the tasks that it submitted the last 10,000 attempts that finished, and as many that
    failed (RAY_max_ended_tasks_per_owner); a node, of those whose owners have left in good order, the last 20,000. What
    was forgotten counts as missing if a row in that state could pass the filters.

    Arguments and errors are those of `list_nodes`.
    """
    query = Query(address, filters or (), limit, timeout, detail)
    return _tables.rows(TaskState, query, raise_on_missing_output=raise_on_missing_output, tell=_explain)


def get_task(
    id: str | ObjectRef, address: str | None = None, timeout: int = _TIMEOUT_S, _explain: bool = False
) -> TaskState | list[TaskState] | None:
    """The task of that id, or the one that makes what a ref stands for, with details.

    A list if there were several attempts; None if there is none. Raises as `list_tasks`, of nodes that did not answer
    only if none was found.

    Raises:
        TypeError: neither an id in hexadecimal digits nor a ref.
    """
    if not isinstance(id, (str, ObjectRef)):
        raise TypeError(f"Expected the digits of a task's id or an ObjectRef, got {id!r}.")
    task_id = id.task_id().hex() if isinstance(id, ObjectRef) else id
    rows = _one(TaskState, "task_id", task_id, address, timeout, _explain)
    return rows if len(rows) > 1 else _first(rows)


def _one(row_type: type[Row], column: str, id: str, address: str | None, timeout: int, tell: bool) -> list[Row]:
    return _tables.one(row_type, column, id, address=address, timeout=timeout, tell=tell)


def _first(rows: list[Row]) -> Row | None:
    return rows[0] if rows else None


def _counts(rows: Sequence[StateSchema], column: str) -> dict[str, int]:
    counts: dict[str, int] = {}
    for row in rows:
        key = str(row[column])
        counts[key] = counts.get(key, 0) + 1
    return counts


def _grouped(rows: Sequence[Any], column: str) -> dict[str, list[Any]]:
    groups: dict[str, list[Any]] = {}
    for row in rows:
        groups.setdefault(row[column], []).append(row)
    return groups


def _all(
    row_type: type[Row], address: str | None, timeout: int, raise_on_missing_output: bool, tell: bool
) -> list[Row]:
    query = Query(address, timeout=timeout)
    return _tables.rows(row_type, query, raise_on_missing_output=raise_on_missing_output, tell=tell)


def summarize_actors(
    address: str | None = None, timeout: int = _TIMEOUT_S, raise_on_missing_output: bool = True, _explain: bool = False
) -> dict[str, Any]:
    """How many actors of each class are in which state, under "cluster", "summary". Raises as `list_actors`."""
    actors = _all(ActorState, address, timeout, raise_on_missing_output, _explain)
    summary = {
        name: {"class_name": name, "state_counts": _counts(rows, "state")}
        for name, rows in _grouped(actors, "class_name").items()
    }
    return {"cluster": {"summary": summary, "total_actors": len(actors), "summary_by": "class"}}


def summarize_objects(
    address: str | None = None, timeout: int = _TIMEOUT_S, raise_on_missing_output: bool = True, _explain: bool = False
) -> dict[str, Any]:
    """How many objects were made where, and their sizes, under "cluster", "summary". Raises as `list_objects`."""
    objects = _all(ObjectState, address, timeout, raise_on_missing_output, _explain)

    def megabytes(rows: Sequence[Any]) -> float:
        sizes: dict[str, int] = {row.object_id: max(row.object_size, 0) for row in rows}
        return sum(sizes.values()) / 2**20

    summary = {
        site: {
            "total_objects": len({row.object_id for row in rows}),
            "total_size_mb": megabytes(rows),
            "total_num_workers": len({(row.ip, row.pid) for row in rows}),
            "total_num_nodes": len({row.ip for row in rows}),
            "task_state_counts": _counts(rows, "task_status"),
            "task_attempt_number_counts": _counts(rows, "attempt_number"),
            "ref_type_counts": _counts(rows, "reference_type"),
        }
        for site, rows in _grouped(objects, "call_site").items()
    }
    return {
        "cluster": {
            "summary": summary,
            "total_objects": len({row["object_id"] for row in objects}),
            "total_size_mb": megabytes(objects),
            "callsite_enabled": "disabled" not in summary,
            "summary_by": "callsite",
        }
    }


def summarize_tasks(
    address: str | None = None, timeout: int = _TIMEOUT_S, raise_on_missing_output: bool = True, _explain: bool = False
) -> dict[str, Any]:
    """How many attempts at tasks of a name are in which state, under "cluster", "summary". Raises as `list_tasks`."""
    tasks = _all(TaskState, address, timeout, raise_on_missing_output, _explain)
    return {"cluster": _tasks.summarize(tasks)}


def list_logs(
    address: str | None = None,
    node_id: str | None = None,
    node_ip: str | None = None,
    glob_filter: str | None = None,
    timeout: int = _TIMEOUT_S,
) -> dict[str, list[str]]:
    """Names of log files by what they are of, such as "raylet" or "worker_out".

    Nodes of one machine share a folder, so the files of all of them are listed.

    Args:
        address: of the cluster, as for `list_nodes`.
        node_id, node_ip: of which node; none: the head node.
        glob_filter: only names that this pattern matches.
        timeout: accepted, without effect: files are read where they lie.

    Raises:
        ConnectionError: there is no such cluster.
        RayStateApiException: there is no such node, or it is on another machine: logs are files of their machine.
    """
    return _logs.names(address, node_id, node_ip, glob_filter)[1]


def get_log(
    address: str | None = None,
    node_id: str | None = None,
    node_ip: str | None = None,
    filename: str | None = None,
    actor_id: str | None = None,
    task_id: str | None = None,
    pid: int | None = None,
    follow: bool = False,
    tail: int = -1,
    timeout: int = _TIMEOUT_S,
    suffix: str = "out",
    encoding: str | None = "utf-8",
    errors: str | None = "strict",
    submission_id: str | None = None,
    attempt_number: int = 0,
    _interval: float | None = None,
    filter_ansi_code: bool = False,
) -> Iterator[str]:
    """The text of one log file in pieces: that of a name, or what the worker of an actor, task or process wrote.

    Of a task it is all that its worker wrote, before and afterwards, too: a worker runs many tasks.

    Args:
        address: of the cluster, as for `list_nodes`.
        node_id, node_ip: of which node, for `filename` and `pid`; none: the head node.
        filename, actor_id, task_id, pid: exactly one of them.
        submission_id: not supported yet.
        follow: do not end, but wait for what is added.
        tail: only so many lines at the end; -1: all.
        timeout: seconds that each node may take to tell where a task ran.
        attempt_number: which attempt at the task.
        suffix: of a worker's logs: "out" for what it prints, "err" for its stderr.
        encoding, errors: how bytes become text.
        filter_ansi_code: leave out what colours the text.

    Raises:
        ConnectionError: there is no such cluster.
        RayStateApiException: there is no such node, actor, task or file, or it is on another machine.
        ValueError: not exactly one of what names a log, or a bad `suffix` or `tail`.
        NotImplementedError: `submission_id` is given.
    """
    if submission_id is not None:
        raise NotImplementedError(
            "get_log(submission_id=...) is not supported yet: give actor_id, task_id, pid or filename."
        )
    if isinstance(tail, bool) or not isinstance(tail, int) or tail < -1:
        raise ValueError(f"tail must be a number of lines, or -1 for all, got {tail!r}.")
    path = _logs.find(
        address,
        node_id=node_id,
        node_ip=node_ip,
        filename=filename,
        actor_id=actor_id,
        task_id=task_id,
        attempt_number=attempt_number,
        pid=pid,
        suffix=suffix,
        timeout=timeout,
    )
    return _logs.chunks(
        path,
        tail=tail,
        follow=follow,
        interval=_LOOK_AGAIN_S if _interval is None else _interval,
        encoding=encoding or "utf-8",
        errors=errors or "strict",
        filter_ansi_code=filter_ansi_code,
    )
