"""Finding what a rule applies to, and killing it: the calls to raylets and tables, without any policy."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from ray._core import chaos as core_chaos
from ray._runtime.session import Session, current_session
from ray.exceptions import GetTimeoutError, RaySystemError
from ray.util.chaos._rules import KillActor, KillGcs, KillNode, KillWorker, Rule

_NODE_DIES_S = 15.0
# A node that cannot be asked has died, or is about to: there is nothing to kill.
_UNREACHABLE = (RaySystemError, GetTimeoutError)
_LOOK_AGAIN_S = 0.02  # at the table of nodes, which cannot be waited for


@dataclass(frozen=True)
class Target:
    """Something that can be killed."""

    kind: str
    node_id: bytes
    pid: int
    name: str
    lease_id: bytes = b""
    running: str = ""  # killed only while it runs this; "": whatever it runs
    actor_id: bytes = b""


class Targets:
    """What there is to kill in the cluster of a session. Remembers the nodes, for while the GCS is away."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._nodes: list[dict[str, Any]] = []
        self.gcs_is_away = False

    @property
    def connected(self) -> bool:
        """Whether the session is still that of this process."""
        return current_session() is self._session

    def find(self, rule: Rule) -> list[Target]:
        """All that `rule` applies to, in an order that does not change as long as the same is there."""
        if isinstance(rule, KillGcs):
            return [] if self.gcs_is_away else [Target("gcs", b"", 0, "gcs_server")]
        if isinstance(rule, KillNode):
            if self.gcs_is_away:  # which would have to tell that it is dead
                return []
            return [
                Target("node", node["node_id"], 0, node["node_name"])
                for node in self._alive(rule)
                if self._is_spare(node) and fnmatchcase(node["node_name"], rule.node_name)
            ]
        return [target for node in self._alive(rule) for target in self._on(node["node_id"], rule)]

    def describe(self) -> str:
        """What there is, for an error."""
        self._refresh()
        alive = [node for node in self._nodes if node["alive"]]
        spare = sum(map(self._is_spare, alive))
        leased = [row for node in alive for row in self._leased(node["node_id"])]
        actors = sorted({row["class_name"] for row in leased if row["actor_id"]})
        running = sorted({row["running"] for row in leased if not row["actor_id"] and row["running"]})
        return (
            f"There are {len(alive)} nodes alive ({spare} of them neither the head nor that of this process), "
            f"{sum(not row['actor_id'] for row in leased)} workers leased for tasks (running {running or 'nothing'}), "
            f"{sum(bool(row['actor_id']) for row in leased)} actors ({', '.join(actors) or '-'})."
        )

    def kill(self, rule: Rule, target: Target, reason: str) -> bool:
        """Kills it; False if it has gone, or does something else by now."""
        if isinstance(rule, KillGcs):
            assert rule.cluster.head_node is not None
            rule.cluster.head_node.kill_gcs_server()
            self.gcs_is_away = True
            return True
        core = self._session.core
        if target.kind == "node":
            core_chaos.kill_node(core, target.node_id, reason)
            self._wait_dead(target.node_id)
            return True
        try:
            return core_chaos.kill_worker(core, target.node_id, target.lease_id, target.running, reason)
        except _UNREACHABLE:
            return False

    def start_gcs_again(self, rule: KillGcs) -> None:
        """The second half of a kill of the GCS. Raises RaySystemError when it does not start."""
        if rule.cluster.head_node is not None:  # else the cluster was ended meanwhile
            rule.cluster.head_node.start_gcs_server()
        self.gcs_is_away = False

    def _refresh(self) -> None:
        if not self.gcs_is_away:
            self._nodes = sorted(self._session.list_nodes(), key=lambda node: bytes(node["node_id"]))

    def _alive(self, rule: Rule) -> list[dict[str, Any]]:
        self._refresh()
        wanted = rule.node or ""
        return [node for node in self._nodes if node["alive"] and node["node_id"].hex().startswith(wanted)]

    def _is_spare(self, node: dict[str, Any]) -> bool:
        own = node["node_id"] == self._session.node_id.binary()
        return not (own or node["is_head"] or node["driver_only"])

    def _leased(self, node_id: bytes) -> list[dict[str, Any]]:
        try:
            return core_chaos.list_targets(self._session.core, node_id)
        except _UNREACHABLE:
            return []

    def _on(self, node_id: bytes, rule: Rule) -> Iterator[Target]:
        for row in self._leased(node_id):
            running = row["running"]
            if isinstance(rule, KillWorker) and not row["actor_id"]:
                if rule.name == "*":
                    yield Target("worker", node_id, row["pid"], running, row["lease_id"])
                elif running and fnmatchcase(running, rule.name):
                    yield Target("worker", node_id, row["pid"], running, row["lease_id"], running)
            elif isinstance(rule, KillActor) and row["actor_alive"] and _fits(rule, row):
                name = row["actor_name"] or row["class_name"]
                yield Target("actor", node_id, row["pid"], name, row["lease_id"], actor_id=row["actor_id"])

    def _wait_dead(self, node_id: bytes) -> None:
        deadline = time.monotonic() + _NODE_DIES_S
        while any(node["alive"] for node in self._session.list_nodes() if node["node_id"] == node_id):
            if time.monotonic() > deadline:
                raise RaySystemError(f"Node {node_id.hex()} was killed, but is not dead after {_NODE_DIES_S:.0f} s.")
            time.sleep(_LOOK_AGAIN_S)


def _fits(rule: KillActor, row: dict[str, Any]) -> bool:
    if rule.namespace is not None and row["ray_namespace"] != rule.namespace:
        return False
    return fnmatchcase(row["class_name"], rule.class_name) and fnmatchcase(row["actor_name"], rule.name)
