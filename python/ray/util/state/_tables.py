"""Collects the rows of the state API from the tables of the GCS and, for what only they know, from the raylets."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from ray._core import gcs
from ray._private.state import _ACTOR_STATES
from ray._runtime import memory_report, node_stats
from ray._runtime.observer import looking_at
from ray._runtime.session import Session
from ray.util.placement_group import _row as placement_group_row
from ray.util.state.common import (
    ActorState,
    JobState,
    NodeState,
    ObjectState,
    PlacementGroupState,
    StateSchema,
    WorkerState,
)
from ray.util.state.exception import RayStateApiException

Row = TypeVar("Row", bound=StateSchema)
Filter = tuple[str, str, Any]
Found = tuple[list[Any], list[str]]  # rows, and what is missing among them


def _nodes(session: Session, timeout: float, detail: bool) -> Found:
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


def _actors(session: Session, timeout: float, detail: bool) -> Found:
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
        if detail:
            row.is_detached = actor["detached"]
            row.repr_name = actor["repr_name"]
            row.num_restarts = actor["num_restarts"]
        rows.append(row)
    return rows, []


def _jobs(session: Session, timeout: float, detail: bool) -> Found:
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


def _placement_groups(session: Session, timeout: float, detail: bool) -> Found:
    rows = []
    for group in session.list_placement_groups():
        told = placement_group_row(group)
        row = PlacementGroupState(
            placement_group_id=told["placement_group_id"],
            name=told["name"],
            creator_job_id=group["job_id"].hex(),
            state=told["state"],
        )
        if detail:
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


def _workers(session: Session, timeout: float, detail: bool) -> Found:
    nodes = [node for node in session.list_nodes() if node["alive"] and not node["driver_only"]]
    rows, missing = [], []
    for node, (stats, why) in zip(nodes, node_stats.ask(session, nodes, timeout), strict=True):
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


def _objects(session: Session, timeout: float, detail: bool) -> Found:
    report = memory_report.collect(session, timeout)
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


_SOURCES: dict[type[StateSchema], Callable[[Session, float, bool], Found]] = {
    NodeState: _nodes,
    ActorState: _actors,
    JobState: _jobs,
    PlacementGroupState: _placement_groups,
    WorkerState: _workers,
    ObjectState: _objects,
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
            raise ValueError(f"{column!r} is not a column that can be filtered by; those are {row_type.columns()}.")

    def text(value: Any) -> str:
        return str(value).lower()

    def keeps(row: StateSchema) -> bool:
        return all(
            (text(getattr(row, column)) == text(value)) == (predicate == "=") for column, predicate, value in filters
        )

    return keeps


def rows(
    row_type: type[Row],
    *,
    address: str | None,
    filters: Sequence[Filter] | None,
    limit: int | None,
    timeout: float,
    detail: bool,
    raise_on_missing_output: bool,
    tell: bool = False,
) -> list[Row]:
    """The rows of that type that pass all filters, at most `limit` of them.

    Args:
        tell: give a warning of what is missing, where that is no error.

    Raises:
        ConnectionError: there is no such cluster.
        RayStateApiException: some nodes did not answer, unless told to do without.
        ValueError: a bad filter or limit.
    """
    found, missing = _find(row_type, address, filters, limit, timeout, detail)
    if missing and raise_on_missing_output:
        raise RayStateApiException(f"{_what_is(missing)} raise_on_missing_output=False does without it.")
    if missing and tell:
        warnings.warn(_what_is(missing), RuntimeWarning, stacklevel=3)
    return found


def one(row_type: type[Row], column: str, value: str, *, address: str | None, timeout: float) -> list[Row]:
    """All rows with that id, with details.

    Raises:
        ConnectionError: there is no such cluster.
        RayStateApiException: none was found, but some nodes did not answer: it may be there.
    """
    found, missing = _find(row_type, address, [(column, "=", value)], None, timeout, True)
    if missing and not found:
        raise RayStateApiException(_what_is(missing))
    return found


def _what_is(missing: list[str]) -> str:
    return f"Not everything could be had: {'; '.join(missing)}."


def _find(
    row_type: type[Row],
    address: str | None,
    filters: Sequence[Filter] | None,
    limit: int | None,
    timeout: float,
    detail: bool,
) -> tuple[list[Row], list[str]]:
    keeps = _keeps(row_type, filters or ())
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 0):
        raise ValueError(f"limit must be an integer >= 0, got {limit!r}.")
    # A filter may be on a column that only details have.
    wants_detail = detail or any(column not in row_type.base_columns() for column, _, _ in filters or ())
    with looking_at(address) as session:
        found, missing = _SOURCES[row_type](session, timeout, wants_detail)
    return [row for row in found if keeps(row)][:limit], missing
