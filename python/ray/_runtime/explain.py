"""What something waits for, followed through the whole cluster. Public in `ray.util.state`.

Every process knows a part: the owner of a task which arguments are late and which raylet it asked for a worker, that
raylet its queue, the worker what runs and blocks, the GCS its actors and placement groups. Each answers with facts that
point to who knows more; `Explainer` follows them. Whoever does not answer within the time is said not to have.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ray._core import explain as _core
from ray._core.ids import ActorID, BaseID, PlacementGroupID, TaskID
from ray._core.object_ref import ObjectRef
from ray._runtime.explanation import Explanation, WaitState, unblock_of
from ray.exceptions import RayError

if TYPE_CHECKING:
    from ray._runtime.session import Session

_ID_SIZES = {28: "object", 24: "task", 16: "actor", 18: "placement group"}
_KINDS = {"object": 1, "task": 2, "actor": 3, "placement group": 4, "lease": 5}  # SubjectKind
_KIND_NAMES = {number: name for name, number in _KINDS.items()}
_GCS = b""
_NO_WORKER = b"\xff" * 28
_HOP_S = 1.5  # for one answer; a raylet waits a second for its processes
_MAX_STEPS = 100  # subjects in one explanation
_MAX_DEPTH = 30


class UnknownIdError(RayError):
    """Nobody in the cluster knows the id: what it names has ended and was forgotten, or never was."""


_STATES = {
    1: WaitState.READY,
    2: WaitState.FAILED,
    3: WaitState.PENDING,
    4: WaitState.RECONSTRUCTING,
    5: WaitState.WAITING_FOR_OWNER,
    6: WaitState.PULLING,
    7: WaitState.SPILLED,
    10: WaitState.WAITING_FOR_ARGUMENTS,
    11: WaitState.WAITING_FOR_LEASE,
    12: WaitState.WAITING_FOR_PLACEMENT_GROUP,
    13: WaitState.WAITING_FOR_ACTOR,
    14: WaitState.QUEUED_AT_WORKER,
    15: WaitState.RUNNING,
    16: WaitState.BLOCKED,
    17: WaitState.FINISHED,
    18: WaitState.WAITING_FOR_RETRY,
    20: WaitState.DEPENDENCIES_UNREADY,
    21: WaitState.PENDING_CREATION,
    22: WaitState.ALIVE,
    23: WaitState.RESTARTING,
    24: WaitState.DEAD,
    25: WaitState.CREATED,
    26: WaitState.RESCHEDULING,
    27: WaitState.REMOVED,
    30: WaitState.WAITING_FOR_LEASE,
    31: WaitState.INFEASIBLE,
    32: WaitState.STARTING_WORKER,
    33: WaitState.QUEUED_AT_WORKER,  # granted: the owner is about to push
}
"""By WaitState of explain.proto; what a raylet says of a lease is said of the task that waits for it."""


def state_of(fact: dict[str, Any]) -> WaitState:
    """What a WaitFact says of its subject."""
    return _STATES.get(fact["state"], WaitState.UNKNOWN)


Question = tuple[bytes, int, bytes, bool]
Answer = tuple[list[dict[str, Any]], str]


class Explainer:
    """One explanation under way.

    Args:
        ask: puts questions to processes, all at once, with a time-out in seconds.
        self_address: of this process.
        nodes: of the cluster, as `Session.list_nodes` gives them.
        deadline: on the monotonic clock.
    """

    def __init__(
        self,
        ask: Callable[[list[Question], float], list[Answer]],
        *,
        self_address: bytes,
        nodes: list[dict[str, Any]],
        deadline: float,
    ) -> None:
        self._ask = ask
        self._self = self_address
        self._nodes = {bytes(node["node_id"]): node for node in nodes}
        self._deadline = deadline
        self._wall = time.time()
        self._path: list[tuple[str, bytes]] = []
        self._steps = 0

    def explain(self, kind: str, subject: bytes) -> Explanation:
        """Raises UnknownIdError."""
        if kind in ("actor", "placement group"):
            explained = self._follow(kind, subject, _GCS)
        else:
            facts, _ = self._put([(self._self, _KINDS[kind], subject, False)])[0]
            explained = self._follow(kind, subject, self._self, facts) if facts else self._follow(kind, subject, None)
        if explained.state is WaitState.UNKNOWN and not explained.notes:
            raise UnknownIdError(
                f"No process of the cluster knows {kind} {subject.hex()}: it has ended and was forgotten, or never was."
            )
        return explained

    def _put(self, questions: list[Question]) -> list[Answer]:
        left = self._deadline - time.monotonic()
        if left <= 0:
            return [([], "the time for this explanation is over")] * len(questions)
        return self._ask(questions, min(left, _HOP_S))

    def _everywhere(self, kind: str, subject: bytes) -> Answer:
        """What all processes of live nodes know; and which nodes did not answer."""
        alive = [node_id for node_id, node in self._nodes.items() if node["alive"]]
        answers = self._put([(node_id + _NO_WORKER, _KINDS[kind], subject, True) for node_id in alive])
        facts = [fact for found, _ in answers for fact in found]
        silent = [f"node {node_id.hex()}: {why}" for node_id, (_, why) in zip(alive, answers, strict=True) if why]
        return facts, "; ".join(silent)

    def _follow(
        self, kind: str, subject: bytes, address: bytes | None, facts: list[dict[str, Any]] | None = None
    ) -> Explanation:
        """Explains it from what `address` knows (None: all processes), or from `facts` that are known already."""
        made = Explanation(kind, subject.hex(), WaitState.UNKNOWN)
        if (kind, subject) in self._path:
            return replace(
                made, detail="it is explained above: this is a circle in which each waits for the next, a deadlock"
            )
        self._steps += 1
        if self._steps > _MAX_STEPS or len(self._path) >= _MAX_DEPTH:
            return replace(made, detail="not followed any further")
        self._path.append((kind, subject))
        try:
            return self._explain(made, kind, subject, address, facts)
        finally:
            self._path.pop()

    def _explain(
        self, made: Explanation, kind: str, subject: bytes, address: bytes | None, facts: list[dict[str, Any]] | None
    ) -> Explanation:
        notes: list[str] = []
        asked = {(address, _KINDS[kind], subject)} if address is not None else set()
        if facts is None and address is None:
            facts, silent = self._everywhere(kind, subject)
            if silent:
                notes.append(f"no answer from {silent}")
        elif facts is None:
            assert address is not None
            facts, why = self._put([(address, _KINDS[kind], subject, False)])[0]
            if why:
                notes.append(f"{self._who(address)} did not answer: {why}")
        elsewhere: list[tuple[bytes, int, bytes]] = []
        omitted = 0
        todo = sorted(facts, key=_is_vague)
        while todo:
            fact = todo.pop(0)
            if _better(fact, made):
                made = self._merge(made, fact)
            omitted += fact["more"]
            # Who knows more of the same thing, or of the lease that stands for it, is asked now.
            more: list[Question] = []
            for pointer in fact["next"]:
                where, number, ident = pointer
                same = (number == _KINDS[kind] and ident == subject) or number == _KINDS["lease"]
                if not same:
                    if pointer not in elsewhere:
                        elsewhere.append(pointer)
                elif pointer not in asked:
                    asked.add(pointer)
                    more.append((where, number, ident, False))
            for question, (found, why) in zip(more, self._put(more) if more else [], strict=True):
                todo += found
                if why:
                    made, note, further = self._on_silence(made, question, why)
                    notes.append(note)
                    todo += further
        causes = [self._follow(_KIND_NAMES[number], ident, where) for where, number, ident in elsewhere]
        made = replace(made, waits_for=tuple(causes), omitted=omitted, notes=tuple(notes))
        return replace(made, unblock=unblock_of(made))

    def _on_silence(
        self, made: Explanation, question: Question, why: str
    ) -> tuple[Explanation, str, list[dict[str, Any]]]:
        """An address that a fact pointed to did not answer."""
        where, number, ident, _ = question
        note = f"{self._who(where)} did not answer: {why}"
        if made.state is not WaitState.WAITING_FOR_OWNER:
            return made, note, []
        # An owner that has left in good order has handed its objects to the head.
        heads = [node_id for node_id, node in self._nodes.items() if node["alive"] and node["is_head"]]
        for facts, _ in self._put([(head + _NO_WORKER, number, ident, False) for head in heads]):
            kept = [fact for fact in facts if state_of(fact) in (WaitState.READY, WaitState.FAILED)]
            if kept:
                return made, "its owner has left; the head of the cluster answers for it", kept
        if self._is_dead(where) or "dead" in why or "no such" in why.lower():
            return replace(made, state=WaitState.OWNER_DIED, detail="the process that owned it is dead"), note, []
        return made, note, []

    def _is_dead(self, address: bytes) -> bool:
        node = self._nodes.get(address[:28])
        return node is not None and not node["alive"]

    def _who(self, address: bytes) -> str:
        if not address:
            return "the GCS"
        node, worker = address[:28], address[28:]
        return f"node {node.hex()}" if worker == _NO_WORKER else f"worker {worker.hex()} on node {node.hex()}"

    def _merge(self, made: Explanation, fact: dict[str, Any]) -> Explanation:
        state = state_of(fact)
        of_lease = fact["kind"] == _KINDS["lease"]
        changes: dict[str, Any] = {"state": state}
        if made.kind == "actor" and (
            of_lease or (made.state is WaitState.RESTARTING and state is WaitState.PENDING_CREATION)
        ):
            del changes["state"]  # the node tells how far it is, the GCS what it is
        if fact["age_ms"] >= 0 and not (of_lease and made.since is not None):
            changes["since"] = self._wall - fact["age_ms"] / 1000
        if of_lease and fact["ahead"] >= 0:
            changes["ahead"] = (made.ahead or 0) + fact["ahead"]
        elif fact["ahead"] >= 0 and made.ahead is None:  # an owner knows the order of its own calls
            changes["ahead"] = fact["ahead"]
        if fact["owner"]:
            changes["owner_id"] = fact["owner"][28:].hex()
        for key in ("node_id", "worker_id"):
            if fact[key] and fact[key] != _NO_WORKER:
                changes[key] = fact[key].hex()
        for key in ("name", "detail", "pid", "attempt", "need", "available", "total"):
            if fact[key]:
                changes[key] = fact[key]
        return replace(made, **changes)


def _is_vague(fact: dict[str, Any]) -> bool:
    """Of several facts on one thing, those that only point to its owner come last."""
    return state_of(fact) is WaitState.WAITING_FOR_OWNER


_RANK = {WaitState.UNKNOWN: 0, WaitState.WAITING_FOR_OWNER: 1, WaitState.SPILLED: 3, WaitState.PULLING: 4}


def _better(fact: dict[str, Any], known: Explanation) -> bool:
    """Whether a fact says more than what is known: who was asked later knows better, but for copies of objects."""
    state = state_of(fact)
    if known.kind == "object":
        # The owner says that it is READY somewhere; the stores say how. That one copy is spilled matters only if no
        # other is in memory.
        if state is WaitState.READY and known.state is WaitState.READY:
            return not known.detail or known.detail.startswith("in the object store")
        if known.state is WaitState.READY and state is WaitState.SPILLED:
            return known.detail.startswith("in the object store")
        if known.state is WaitState.SPILLED and state is WaitState.READY:
            return True
        return _RANK.get(state, 2) >= _RANK.get(known.state, 2)
    return state is not WaitState.UNKNOWN


def subject_of(thing: Any) -> tuple[str, bytes]:
    """The kind and id that `thing` names: a ref, a generator, an actor handle, a placement group, an id, or hex.

    Raises:
        TypeError: it names nothing.
        ValueError: it is a string that is no id.
    """
    if isinstance(thing, ObjectRef):
        return "object", thing.binary()
    if isinstance(thing, (TaskID, ActorID, PlacementGroupID)):
        kind = {TaskID: "task", ActorID: "actor", PlacementGroupID: "placement group"}[type(thing)]
        return kind, thing.binary()
    if isinstance(thing, str):
        text = thing.strip()
        try:
            binary = bytes.fromhex(text)
        except ValueError:
            raise ValueError(f"{thing!r} is not an id: ids are given in hexadecimal digits.") from None
        if len(binary) not in _ID_SIZES:
            raise ValueError(
                f"{thing!r} is not an id of an object (56 digits), task (48), placement group (36) or actor (32): "
                f"it has {len(text)}."
            )
        return _ID_SIZES[len(binary)], binary
    for attribute in ("_generator_ref", "_actor_id", "_ray_actor_id", "id"):  # generators, handles, placement groups
        named = getattr(thing, attribute, None)
        if isinstance(named, (ObjectRef, BaseID)):
            return subject_of(named)
    raise TypeError(
        f"Expected an ObjectRef, an actor, a placement group, an id or its digits, got {type(thing).__name__}."
    )


def explain(session: Session, thing: Any, timeout: float) -> Explanation:
    """See `ray.util.state.explain`."""
    kind, subject = subject_of(thing)
    deadline = time.monotonic() + timeout
    nodes = session.list_nodes()
    if kind == "object" and any(bytes(node["node_id"]) == subject for node in nodes):
        raise ValueError(f"{subject.hex()} is the id of a node; `ray status` and ray.nodes() tell of nodes.")

    def ask(questions: list[Question], hop: float) -> list[Answer]:
        return _core.ask(session.core, questions, max(1, int(hop * 1000)))

    explainer = Explainer(ask, self_address=session.address, nodes=nodes, deadline=deadline)
    return explainer.explain(kind, subject)


__all__ = ["Explainer", "Explanation", "UnknownIdError", "WaitState", "explain", "subject_of"]
