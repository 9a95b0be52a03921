"""Which refs the processes of a cluster hold, and why: what `ray memory` shows.

Every process tells all that it holds (SUBJECT_KIND_REFERENCES of explain.proto); the raylet of a node asks those of its
node. Nothing is collected while nobody asks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ray._core import explain as _core
from ray._runtime import node_stats

if TYPE_CHECKING:
    from ray._runtime.session import Session

GROUPS = ("NODE_ADDRESS", "STACK_TRACE")
SORTS = ("PID", "OBJECT_SIZE", "REFERENCE_TYPE")
UNITS = {"B": 1, "KB": 2**10, "MB": 2**20, "GB": 2**30}

LOCAL_REFERENCE = "LOCAL_REFERENCE"
PINNED_IN_MEMORY = "PINNED_IN_MEMORY"
USED_BY_PENDING_TASK = "USED_BY_PENDING_TASK"
CAPTURED_IN_OBJECT = "CAPTURED_IN_OBJECT"
ACTOR_HANDLE = "ACTOR_HANDLE"
UNKNOWN_STATUS = "UNKNOWN_STATUS"
_TYPES = {
    LOCAL_REFERENCE: "Local References",
    PINNED_IN_MEMORY: "Pinned",
    USED_BY_PENDING_TASK: "Used by task",
    CAPTURED_IN_OBJECT: "Captured in Objects",
    ACTOR_HANDLE: "Actor Handles",
}

_REFERENCES = 6  # SubjectKind
_STATUS = {1: "FINISHED", 2: "FAILED", 3: "PENDING"}  # WaitState, of the task that makes it
_NO_WORKER = b"\xff" * 28
_HANDLE_INDEX = b"\0\0\0\0"  # of the objects that stand for an actor's handles
_DISABLED = "disabled"


@dataclass(frozen=True)
class Reference:
    """One ref as one process holds it."""

    object_id: str
    node_address: str
    pid: int
    process: str  # Driver or Worker
    call_site: str
    status: str  # of the task that makes it; - for what was put, or is not owned
    attempt: int
    size: int  # -1: not known there
    reference_type: str


@dataclass(frozen=True)
class Report:
    """What was found, and which nodes did not answer."""

    references: list[Reference]
    stores: list[dict[str, Any]]  # of the nodes: capacity, used, num_objects ...
    notes: list[str]


def collect(session: Session, timeout: float) -> Report:
    """Asks all live nodes of the cluster; each answer may take `timeout` seconds."""
    nodes = [node for node in session.list_nodes() if node["alive"]]
    questions = [(bytes(node["node_id"]) + _NO_WORKER, _REFERENCES, b"", True) for node in nodes]
    answers = _core.ask(session.core, questions, max(1, int(timeout * 1000)))
    references: list[Reference] = []
    stores: list[dict[str, Any]] = []
    notes: list[str] = []
    with_stores: list[dict[str, Any]] = []
    for node, (facts, why) in zip(nodes, answers, strict=True):
        if why:
            notes.append(f"node {node['node_id'].hex()} ({node['ip']}) did not answer: {why}")
            continue
        references += [_reference(fact, node["ip"]) for fact in facts]
        left_out = sum(fact["more"] for fact in facts)
        if left_out:
            notes.append(f"node {node['node_id'].hex()} ({node['ip']}) has {left_out} more references")
        if not node["driver_only"]:
            with_stores.append(node)
    for node, (stats, why) in zip(with_stores, node_stats.ask(session, with_stores, timeout), strict=True):
        if stats is not None:
            stores.append(stats["store"])
        else:
            notes.append(f"node {node['node_id'].hex()} ({node['ip']}) does not tell of its object store: {why}")
    return Report(references, stores, notes)


def _reference(fact: dict[str, Any], ip: str) -> Reference:
    is_put = fact["id"][27:] >= b"\x80"  # the highest bit of the index
    return Reference(
        object_id=fact["id"].hex(),
        node_address=ip,
        pid=fact["pid"],
        process="Driver" if fact["by_driver"] else "Worker",
        call_site=fact["site"],
        status="-" if is_put or not fact["owned"] else _STATUS.get(fact["state"], "-"),
        attempt=fact["attempt"] + 1,
        size=fact["size"],
        reference_type=_type(fact),
    )


def _type(fact: dict[str, Any]) -> str:
    if fact["id"].endswith(_HANDLE_INDEX):
        return ACTOR_HANDLE
    if fact["submitted"]:
        return USED_BY_PENDING_TASK
    if fact["local"]:
        return LOCAL_REFERENCE
    if fact["contained"]:
        return CAPTURED_IN_OBJECT
    # Held for others only, who may read it at any time.
    return PINNED_IN_MEMORY if fact["borrowers"] else UNKNOWN_STATUS


def _choice(name: str, value: str, allowed: Iterable[str]) -> str:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}.")
    return value


_KEYS: dict[str, Callable[[Reference], Any]] = {
    "PID": lambda reference: reference.pid,
    "OBJECT_SIZE": lambda reference: reference.size,
    "REFERENCE_TYPE": lambda reference: reference.reference_type,
}


def render(
    report: Report,
    *,
    group_by: str = "NODE_ADDRESS",
    sort_by: str = "OBJECT_SIZE",
    units: str = "B",
    aligned: bool = True,
    stats_only: bool = False,
    num_entries: int | None = None,
) -> str:
    """The report as text.

    Args:
        aligned: columns padded with blanks; else the fields stand side by side, for other programs.
        stats_only: of the object stores only.
        num_entries: at most so many refs of each group.

    Raises:
        ValueError: an unknown `group_by`, `sort_by` or `units`.
    """
    _choice("group_by", group_by, GROUPS)
    _choice("sort_by", sort_by, SORTS)
    _choice("units", units, UNITS)
    parts = [] if stats_only else _groups(report.references, group_by, sort_by, units, aligned, num_entries)
    parts.append(_stores(report.stores))
    parts += [f"Note: {note}." for note in report.notes]
    return "\n".join(parts) + "\n"


def _size(size: int, units: str) -> str:
    if size < 0:
        return "?"
    return f"{size} B" if units == "B" else f"{size / UNITS[units]:.2f} {units}"


def _groups(
    references: list[Reference], group_by: str, sort_by: str, units: str, aligned: bool, num_entries: int | None
) -> list[str]:
    groups: dict[str, list[Reference]] = {}
    for reference in references:
        key = reference.node_address if group_by == "NODE_ADDRESS" else reference.call_site or _DISABLED
        groups.setdefault(key, []).append(reference)
    parts = ["======== Object references status ========"]
    for key, members in sorted(groups.items()):
        members.sort(key=_KEYS[sort_by], reverse=sort_by == "OBJECT_SIZE")
        counts = {kind: sum(member.reference_type == kind for member in members) for kind in _TYPES}
        total = sum({member.object_id: max(member.size, 0) for member in members}.values())
        parts.append(f"--- Summary for {group_by.lower().replace('_', ' ')}: {key} ---")
        summary = [["Mem Used by Objects", *_TYPES.values()], [_size(total, units), *map(str, counts.values())]]
        parts += _table(summary, aligned)
        parts.append(f"--- Object references for {group_by.lower().replace('_', ' ')}: {key} ---")
        rows = [["IP Address", "PID", "Type", "Call Site", "Status", "Attempt", "Size", "Reference Type", "Object Ref"]]
        for member in members[:num_entries]:
            rows.append([
                member.node_address, str(member.pid), member.process, member.call_site or _DISABLED, member.status,
                str(member.attempt), _size(member.size, units), member.reference_type, member.object_id,
            ])  # fmt: skip
        parts += _table(rows, aligned)
        if num_entries is not None and len(members) > num_entries:
            parts.append(f"... and {len(members) - num_entries} more")
        parts.append("")
    if any(not reference.call_site for reference in references):
        parts.append(
            "Call sites are recorded where RAY_record_ref_creation_sites=1 is set before a program or node starts,\n"
            "or by the _system_config of the cluster.\n"
        )
    return parts


def _table(rows: list[list[str]], aligned: bool) -> list[str]:
    if not aligned:
        return [" | ".join(row) for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(field.ljust(width) for field, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _stores(stores: list[dict[str, Any]]) -> str:
    def total(name: str) -> int:
        return sum(int(store[name]) for store in stores)

    used, capacity = total("used"), total("capacity")
    lines = [
        "--- Aggregate object store stats across all nodes ---",
        f"Plasma memory usage {used // 2**20} MiB, {total('num_objects')} objects, "
        f"{100 * used / capacity if capacity else 0:.2f}% full",
    ]
    if total("overflow_bytes"):
        lines.append(f"Plasma filesystem mmap usage: {total('overflow_bytes') // 2**20} MiB")
    if total("spilled_objects"):
        lines.append(f"Spilled {total('spilled_bytes') // 2**20} MiB, {total('spilled_objects')} objects")
    return "\n".join(lines)
