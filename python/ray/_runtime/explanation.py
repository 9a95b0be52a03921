"""`Explanation`: where something stands and what it waits for, as a value and as text. Made by `explain`."""

from __future__ import annotations

import enum
import time
from dataclasses import dataclass, field


class WaitState(str, enum.Enum):
    """Where something stands. The names tell; those of objects come first, then tasks, actors, placement groups."""

    READY = "READY"
    FAILED = "FAILED"
    PENDING = "PENDING"
    RECONSTRUCTING = "RECONSTRUCTING"
    WAITING_FOR_OWNER = "WAITING_FOR_OWNER"
    PULLING = "PULLING"
    SPILLED = "SPILLED"
    OWNER_DIED = "OWNER_DIED"
    WAITING_FOR_ARGUMENTS = "WAITING_FOR_ARGUMENTS"
    WAITING_FOR_LEASE = "WAITING_FOR_LEASE"
    WAITING_FOR_PLACEMENT_GROUP = "WAITING_FOR_PLACEMENT_GROUP"
    WAITING_FOR_ACTOR = "WAITING_FOR_ACTOR"
    WAITING_FOR_RETRY = "WAITING_FOR_RETRY"
    STARTING_WORKER = "STARTING_WORKER"
    INFEASIBLE = "INFEASIBLE"
    QUEUED_AT_WORKER = "QUEUED_AT_WORKER"
    RUNNING = "RUNNING"
    BLOCKED = "BLOCKED"
    FINISHED = "FINISHED"
    DEPENDENCIES_UNREADY = "DEPENDENCIES_UNREADY"
    PENDING_CREATION = "PENDING_CREATION"
    ALIVE = "ALIVE"
    RESTARTING = "RESTARTING"
    DEAD = "DEAD"
    CREATED = "CREATED"
    RESCHEDULING = "RESCHEDULING"
    REMOVED = "REMOVED"
    UNKNOWN = "UNKNOWN"
    """Nobody who should know it answered, or they know nothing of it."""

    def __str__(self) -> str:
        return self.value


_UNBLOCK = {
    WaitState.READY: "nothing: the value is there",
    WaitState.FAILED: "nothing: it has ended with an error",
    WaitState.PENDING: "the end of the task that makes it",
    WaitState.RECONSTRUCTING: "the end of the task that makes it again",
    WaitState.WAITING_FOR_OWNER: "the answer of the process that owns it",
    WaitState.PULLING: "the rest of its bytes",
    WaitState.SPILLED: "nothing: whoever gets it has it read back from disk",
    WaitState.OWNER_DIED: "nothing: it is lost with its owner; whoever gets it gets an OwnerDiedError",
    WaitState.WAITING_FOR_ARGUMENTS: "its arguments",
    WaitState.WAITING_FOR_PLACEMENT_GROUP: "its placement group being placed",
    WaitState.WAITING_FOR_ACTOR: "its actor becoming alive",
    WaitState.WAITING_FOR_RETRY: "the pause before the next attempt",
    WaitState.STARTING_WORKER: "the start of its worker process",
    WaitState.RUNNING: "the end of its own code",
    WaitState.BLOCKED: "what it waits for in ray.get or ray.wait",
    WaitState.FINISHED: "nothing: it has ended",
    WaitState.DEPENDENCIES_UNREADY: "the arguments of its constructor",
    WaitState.ALIVE: "nothing: it is alive",
    WaitState.DEAD: "nothing: it is dead for good",
    WaitState.CREATED: "nothing: it is placed",
    WaitState.REMOVED: "nothing: it was removed",
    WaitState.UNKNOWN: "",
}


@dataclass(frozen=True)
class Explanation:
    """Where an object, task, actor or placement group stands, and what it waits for. `str()` of it is for people.

    Attributes:
        kind: "object", "task", "actor" or "placement group".
        id: in hex.
        name: of the function, method or class; "" if there is none or it is not known.
        state: where it stands.
        detail: the particulars, for people.
        unblock: what would let it go on, for people; "" if nobody knows.
        since: Unix time since when it stands there (or was submitted); None if unknown. From the clock of this process.
        node_id: in hex, where it is, runs, or is queued; None if nowhere, or unknown.
        worker_id, pid: of the process that has it; None if there is none.
        owner_id: worker id, in hex, of the process that answers for it; None if unknown.
        need: resources that it waits for; empty if it waits for none.
        available, total: what the node of `node_id` has; of actors without a node and of placement groups: `total` of
            the cluster.
        ahead: how many others come before it; None if it is in no queue.
        attempt: number of the run of a task, from 0; restarts of an actor.
        waits_for: what it waits for, each explained in turn.
        omitted: how many of those were left out.
        notes: what could not be found out, and why.
    """

    kind: str
    id: str
    state: WaitState
    name: str = ""
    detail: str = ""
    unblock: str = ""
    since: float | None = None
    node_id: str | None = None
    worker_id: str | None = None
    pid: int | None = None
    owner_id: str | None = None
    need: dict[str, float] = field(default_factory=dict)
    available: dict[str, float] = field(default_factory=dict)
    total: dict[str, float] = field(default_factory=dict)
    ahead: int | None = None
    attempt: int = 0
    waits_for: tuple[Explanation, ...] = ()
    omitted: int = 0
    notes: tuple[str, ...] = ()

    def chain(self) -> list[Explanation]:
        """This one, and everything that it waits for, however indirectly."""
        found = [self]
        for cause in self.waits_for:
            found += cause.chain()
        return found

    def __str__(self) -> str:
        return "\n".join(_render(self, time.time(), ""))


def _render(e: Explanation, now: float, indent: str) -> list[str]:
    head = f"{e.kind} {e.name + ' ' if e.name else ''}{e.id}: {e.state}"
    if e.since is not None:
        head += f" for {_age(now - e.since)}"
    if e.attempt:
        head += f", {'restart' if e.kind == 'actor' else 'attempt'} {e.attempt}"
    lines = [indent + head]
    inner = indent + "  "
    if e.detail:
        lines.append(f"{inner}{e.detail}")
    if e.node_id is not None:
        lines.append(f"{inner}on node {e.node_id}" + (f", pid {e.pid}" if e.pid else ""))
    if e.need:
        has = f"; free there: {_amounts(e.available, e.need)}" if e.available else ""
        lines.append(f"{inner}needs {_amounts(e.need)}{has}")
    if e.ahead:
        lines.append(f"{inner}behind {e.ahead} other(s)")
    if e.unblock:
        lines.append(f"{inner}unblocked by: {e.unblock}")
    lines += [f"{inner}note: {note}" for note in e.notes]
    if e.waits_for:
        lines.append(f"{inner}waits for:")
    for cause in e.waits_for:
        lines += _render(cause, now, inner + "  ")
    if e.omitted:
        lines.append(f"{inner}  ... and {e.omitted} more")
    return lines


def _age(seconds: float) -> str:
    if seconds < 120:
        return f"{max(seconds, 0.0):.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _amounts(amounts: dict[str, float], of: dict[str, float] | None = None) -> str:
    names = sorted(of if of is not None else amounts)
    return "{" + ", ".join(f"{name}: {amounts.get(name, 0.0):g}" for name in names) + "}"


def unblock_of(e: Explanation) -> str:
    """What would let it go on, for people, as far as that can be told."""
    need = _amounts(e.need) if e.need else "what it needs"
    if e.state is WaitState.INFEASIBLE:
        if e.waits_for:
            return "a bundle of its placement group coming to a node that fulfils its constraints"
        return f"a node joining the cluster that has {need} in all and fulfils its constraints"
    if e.state is WaitState.WAITING_FOR_LEASE:
        if e.node_id is None or not e.available:
            return "a worker of its owner becoming free, or one more being granted"
        return f"{need} becoming free on a node: what holds it ending, or a node joining"
    if e.state is WaitState.QUEUED_AT_WORKER:
        return f"the end of the {e.ahead} before it" if e.ahead else "the end of what its worker runs now"
    if e.state in (WaitState.PENDING_CREATION, WaitState.RESTARTING):
        if e.waits_for:
            return "what it waits for"
        return f"{need} on a node that fulfils its constraints" if e.need else "the start of its process"
    if e.kind == "placement group" and e.state in (WaitState.PENDING, WaitState.RESCHEDULING):
        return f"room for its bundles{': ' + need if e.need else ''}, as resources become free or nodes join"
    return _UNBLOCK.get(e.state, "")
