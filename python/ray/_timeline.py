"""`ray.timeline`: when the tasks of a cluster ran, as its task table tells. Public as `ray.timeline`."""

from __future__ import annotations

import json
import warnings
from typing import Any

from ray._runtime.session import Session, current_session

_TIMEOUT_S = 30


def timeline(filename: str | None = None) -> list[dict[str, Any]] | None:
    """When the tasks of the cluster ran, as events of Chrome's tracing format, to the millisecond.

    There is one event for each attempt that has ended, as far as `ray.util.state.list_tasks` knows them: not for those
    of tasks and actors with the option `enable_task_events=False`, nor for those that never ran. A call of an async
    actor lasts from its first step to its last, with its waits. Gives a RuntimeWarning where a node did not answer.

    Args:
        filename: where to write them as JSON, to be loaded in chrome://tracing; None: they are returned.

    Raises:
        RuntimeError: not connected.
    """
    session = current_session()
    if session is None:
        raise RuntimeError("Ray has not been initialized. Call ray.init() first.")
    events = events_of(session)
    if filename is None:
        return events
    write(events, filename)
    return None


def events_of(session: Session) -> list[dict[str, Any]]:
    """What `timeline` returns, of the cluster that `session` is connected to."""
    from ray.util.state import _tasks

    collected = _tasks.collect(session, _TIMEOUT_S)
    if collected.notes:
        warnings.warn(f"The timeline is not complete: {'; '.join(collected.notes)}.", RuntimeWarning, stacklevel=3)
    events = [
        {
            "cat": event["event_name"],
            "name": row.name,
            "pid": profile["node_ip_address"],
            "tid": f"{profile['component_type']}:{profile['component_id']}",
            "ts": event["start_time"] * 1000,
            "dur": (event["end_time"] - event["start_time"]) * 1000,
            "ph": "X",
            "cname": "generic_work",
            "args": event["extra_data"],
        }
        for row in collected.rows
        if (profile := row.profiling_data)
        for event in profile["events"]
    ]
    return sorted(events, key=lambda event: event["ts"])


def write(events: list[dict[str, Any]], filename: str) -> None:
    """Writes them as JSON."""
    with open(filename, "w") as file:
        json.dump(events, file)
