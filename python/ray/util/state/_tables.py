"""Collects the rows of the state API from the tables of the GCS and, for what only they know, from the raylets."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from ray._core import gcs
from ray._private.state import _ACTOR_STATES
from ray._runtime import memory_report, node_stats
from ray._runtime.observer import looking_at
from ray._runtime.session import Session
from ray.util.placement_group import _row as placement_group_row
from ray.util.state import _tasks
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
from ray.util.state.exception import RayStateApiException, UnknownColumnError

Row = TypeVar("Row", bound=StateSchema)
Filter = tuple[str, str, Any]
Found = tuple[list[Any], list[str]]  # rows, and what is missing among them


@dataclass(frozen=True)
class Query:
    """What is asked of a table.

    Args:
        address: of the cluster; see `list_nodes`.
        filters: (column, "=" or "!=", value) each; a row must pass all of them.
        limit: at most so many rows; None: all.
        timeout: seconds that each node may take to answer.
        detail: fill the columns of details.
    """

    address: str | None = None
    filters: Sequence[Filter] = ()
    limit: int | None = None
    timeout: float = 30
    detail: bool = False

    def admits(self, column: str, value: Any) -> bool:
        """Whether a row with that value in that column could pass the filters on it. Case does not count."""
        return all(
            (_text(value) == _text(wanted)) == (predicate == "=")
            for name, predicate, wanted in self.filters
            if name == column
        )


def _text(value: Any) -> str:
    return str(value).lower()


def _nodes(session: Session, query: Query) -> Found:
    return [
        NodeState(
            node_id=node["node_id"].hex(),
            node_ip=node["ip"],
            is_head_node=node["is_head"],
            state="ALIVE" if node["alive"] else "DEAD",
            state_message=node["death_reason"] or None,
            node_name=node["node_name"] or node["ip"],
            resources_total=dict(node["total"]),
            labels=dict(node["labels"]),
            start_time_ms=node["start_time_ms"] or None,
            end_time_ms=node["end_time_ms"] or None,
        )
        for node in session.list_nodes()
        if not node["driver_only"]
    ], []


def _actors(session: Session, query: Query) -> Found:
    rows = []
    for actor in session.list_actors():
        state = actor["state"]
        row = ActorState(
            actor_id=actor["actor_id"].hex(),
            class_name=actor["class_name"],
            state=_ACTOR_STATES[state - 1] if 0 < state <= len(_ACTOR_STATES) else "DEAD",
            job_id=actor["job_id"].hex(),
            name=actor["name"],
            node_id=actor["node_id"].hex() or None,
            pid=actor["pid"],
            ray_namespace=actor["ray_namespace"],
        )
        if query.detail:
            row.is_detached = actor["detached"]
            row.repr_name = actor["repr_name"]
            row.num_restarts = actor["num_restarts"]
        rows.append(row)
    return rows, []


def _jobs(session: Session, query: Query) -> Found:
    return [
        JobState(
            job_id=job["job_id"].hex(),
            submission_id=None,
            type="DRIVER",
            status="SUCCEEDED" if job["end_time_ms"] else "RUNNING",
            entrypoint=job["entrypoint"],
            driver_info={"id": job["job_id"].hex(), "node_ip_address": "", "pid": job["driver_pid"]},
            start_time=job["start_time_ms"],
            end_time=job["end_time_ms"] or None,
            runtime_env=(json.loads(job["config_json"]) if job["config_json"] else {}).get("runtime_env"),
        )
        for job in gcs.list_jobs(session.core)
    ], []


def _placement_groups(session: Session, query: Query) -> Found:
    rows = []
    for group in session.list_placement_groups():
        told = placement_group_row(group)
        row = PlacementGroupState(
            placement_group_id=told["placement_group_id"],
            name=told["name"],
            creator_job_id=group["job_id"].hex(),
            state=told["state"],
        )
        if query.detail:
            row.bundles = [
                {
                    "bundle_id": {"placement_group_id": told["placement_group_id"], "bundle_index": i},
                    "unit_resources": resources,
                    "node_id": told["bundles_to_node_id"][i] or None,
                    "label_selector": group["bundles"][i]["label_selector"],
                }
                for i, resources in told["bundles"].items()
            ]
            row.is_detached = group["detached"]
            row.stats = told["stats"]
            row.topology_strategy = {group["topology_label"]: told["strategy"]} if group["topology_label"] else {}
        rows.append(row)
    return rows, []


def _workers(session: Session, query: Query) -> Found:
    nodes = [node for node in session.list_nodes() if node["alive"] and not node["driver_only"]]
    rows, missing = [], []
    for node, (stats, why) in zip(nodes, node_stats.ask(session, nodes, query.timeout), strict=True):
        if stats is None:
            missing.append(f"node {node['node_id'].hex()} ({node['ip']}) does not answer: {why}")
            continue
        rows += [
            WorkerState(
                worker_id=worker["worker_id"],
                is_alive=worker["state"] != "ending",
                worker_type="DRIVER" if worker["is_driver"] else "WORKER",
                exit_type=None,
                node_id=node["node_id"].hex(),
                ip=node["ip"],
                pid=worker["pid"],
            )
            for worker in stats["workers"]
        ]
    return rows, missing


def _objects(session: Session, query: Query) -> Found:
    report = memory_report.collect(session, query.timeout)
    return [
        ObjectState(
            object_id=reference.object_id,
            object_size=reference.size,
            task_status=reference.status,
            attempt_number=reference.attempt,
            reference_type=reference.reference_type,
            call_site=reference.call_site or "disabled",
            type=reference.process.upper(),
            pid=reference.pid,
            ip=reference.node_address,
        )
        for reference in report.references
    ], report.notes


def tasks(session: Session, query: Query) -> Found:
    """The attempts at tasks that the query may be about, and what is missing among them."""
    wanted = [str(value) for column, predicate, value in query.filters if (column, predicate) == ("task_id", "=")]
    task_id = b""
    if wanted:
        try:
            task_id = bytes.fromhex(wanted[0])
        except ValueError:
            return [], []  # no id at all
        if 2 * len(task_id) != _tasks.TASK_ID_DIGITS:
            return [], []
    collected = _tasks.collect(session, query.timeout, task_id)
    missing = collected.notes
    if not task_id:
        if collected.forgotten_finished and query.admits("state", "FINISHED"):
            missing.append(f"{collected.forgotten_finished} finished tasks are not remembered any more")
        if collected.forgotten_failed and query.admits("state", "FAILED"):
            missing.append(f"{collected.forgotten_failed} failed tasks are not remembered any more")
        if collected.left_out:
            missing.append(f"{collected.left_out} more tasks are known, too many for one answer")
    rows = collected.rows
    return rows if query.detail else [row.without_details() for row in rows], missing


_SOURCES: dict[type[StateSchema], Callable[[Session, Query], Found]] = {
    NodeState: _nodes,
    ActorState: _actors,
    JobState: _jobs,
    PlacementGroupState: _placement_groups,
    WorkerState: _workers,
    ObjectState: _objects,
    TaskState: tasks,
}


def _keeps(row_type: type[StateSchema], filters: Sequence[Filter]) -> Callable[[StateSchema], bool]:
    """Whether a row passes all filters. Texts are compared without regard to case."""
    for one in filters:
        if len(one) != 3:
            raise ValueError(f"A filter is (column, '=' or '!=', value), got {one!r}.")
        column, predicate, _ = one
        if predicate not in ("=", "!="):
            raise ValueError(f"Unsupported filter predicate {predicate!r}; available are '=' and '!='.")
        if column not in row_type.columns():
            raise UnknownColumnError(
                f"{column!r} is not a column that can be filtered by; those are {row_type.columns()}."
            )

    def keeps(row: StateSchema) -> bool:
        return all(
            (_text(getattr(row, column)) == _text(value)) == (predicate == "=") for column, predicate, value in filters
        )

    return keeps


def rows(row_type: type[Row], query: Query, *, raise_on_missing_output: bool = True, tell: bool = False) -> list[Row]:
    """The rows of that type that the query asks for.

    Args:
        tell: give a warning of what is missing, where that is no error.

    Raises:
        ConnectionError: there is no such cluster.
        RayStateApiException: some nodes did not answer, or some rows are not there any more, unless told to do without.
        ValueError: a bad filter or limit.
    """
    found, missing = _find(row_type, query)
    if missing and raise_on_missing_output:
        raise RayStateApiException(f"{_what_is(missing)} raise_on_missing_output=False does without it.")
    if missing and tell:
        warnings.warn(_what_is(missing), RuntimeWarning, stacklevel=3)
    return found


def one(row_type: type[Row], column: str, value: str, *, address: str | None, timeout: float, tell: bool) -> list[Row]:
    """All rows with that id, with details.

    Args:
        tell: give a warning of what is missing, where something was found all the same.

    Raises:
        ConnectionError: there is no such cluster.
        RayStateApiException: none was found, but some nodes did not answer: it may be there.
    """
    query = Query(address, filters=[(column, "=", value)], timeout=timeout, detail=True)
    found, missing = _find(row_type, query)
    if missing and not found:
        raise RayStateApiException(_what_is(missing))
    if missing and tell:
        warnings.warn(_what_is(missing), RuntimeWarning, stacklevel=3)
    return found


def _what_is(missing: list[str]) -> str:
    return f"Not everything could be had: {'; '.join(missing)}."


def _find(row_type: type[Row], query: Query) -> tuple[list[Row], list[str]]:
    keeps = _keeps(row_type, query.filters)
    limit = query.limit
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 0):
        raise ValueError(f"limit must be an integer >= 0, got {limit!r}.")
    # A filter may be on a column that only details have.
    base = row_type.base_columns()
    if any(column not in base for column, _, _ in query.filters):
        query = replace(query, detail=True)
    with looking_at(query.address) as session:
        found, missing = _SOURCES[row_type](session, query)
    return [row for row in found if keeps(row)][:limit], missing
