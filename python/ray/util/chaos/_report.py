"""What was killed, and when."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Kill:
    """One kill that was carried out.

    Attributes:
        kind: "worker", "actor", "node" or "gcs".
        rule: number of its rule in the call of `inject`; 0 for `kill`.
        at_s: seconds since the injection began.
        node_id: hex; "" for the GCS.
        pid: of the killed process; 0 where it is not known.
        name: what the worker ran just then ("" if nothing), the name or else the class of the actor, the node's name.
        actor_id: hex; "" but for actors.
    """

    kind: str
    rule: int
    at_s: float
    node_id: str
    pid: int
    name: str
    actor_id: str = ""

    def __str__(self) -> str:
        where = f" on node {self.node_id[:8]}" if self.node_id and self.kind != "node" else ""
        what = self.name or self.node_id[:8] or "-"
        return f"{self.at_s:8.3f} s  {self.kind:6}  {what} (pid {self.pid or '?'}){where}"


@dataclass(frozen=True)
class Report:
    """What an injection has done.

    Attributes:
        seed: with which it can be run again: the same moments, and the same choices among what there is to choose from.
        kills: in their order.
        duration_s: since it began, until its end or now.
    """

    seed: int
    kills: tuple[Kill, ...]
    duration_s: float

    def count(self, kind: str | None = None) -> int:
        """How many were killed, of one kind or altogether."""
        return sum(1 for kill in self.kills if kind is None or kill.kind == kind)

    def __str__(self) -> str:
        head = f"{len(self.kills)} kills in {self.duration_s:.1f} s, seed {self.seed}"
        return "\n".join([head, *map(str, self.kills)])
