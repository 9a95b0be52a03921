"""The part of Ray's internal API that programs use: what the cluster's memory is used for."""

from __future__ import annotations

__all__ = ["memory_summary"]


def memory_summary(
    address: str | None = None,
    group_by: str = "NODE_ADDRESS",
    sort_by: str = "OBJECT_SIZE",
    units: str = "B",
    line_wrap: bool = True,
    stats_only: bool = False,
    num_entries: int | None = None,
) -> str:
    """What `ray memory` prints: which refs the processes of the cluster hold and why, and how full its stores are.

    Args:
        address: of the cluster. None: the one that this process is connected to, else the one on this machine.
        group_by: "NODE_ADDRESS" or "STACK_TRACE" (the place where a ref was made).
        sort_by: "PID", "OBJECT_SIZE" or "REFERENCE_TYPE".
        units: "B", "KB", "MB" or "GB".
        line_wrap: columns stand below each other; False: fields are separated by bars, for other programs.
        stats_only: tell of the object stores only.
        num_entries: at most so many refs of each group.

    Raises:
        ConnectionError: there is no such cluster.
        ValueError: an unknown `group_by`, `sort_by` or `units`.
    """
    from ray._runtime import memory_report
    from ray._runtime.observer import looking_at

    with looking_at(address) as session:
        report = memory_report.collect(session, _TIMEOUT_S)
    return memory_report.render(
        report,
        group_by=group_by,
        sort_by=sort_by,
        units=units,
        aligned=line_wrap,
        stats_only=stats_only,
        num_entries=num_entries,
    )


_TIMEOUT_S = 5.0
