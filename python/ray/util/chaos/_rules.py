"""The rules: what may be killed, and when. They are values, checked when they are made; nothing here acts."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ray.util.chaos._errors import ChaosRuleError

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What all rules have in common. Use one of the classes derived from it.

    Attributes:
        every_s: a kill each so many seconds. Either this or `every_calls` has to be given for `inject`.
        jitter_s: each of these intervals is longer or shorter by up to so many seconds, evenly distributed.
        every_calls: a kill after each so many calls, of tasks and of actors' methods, that this process submits.
        calls: a pattern (as of a shell) for the calls that are counted: functions by their name, methods by
            "Class.method".
        after_s: seconds from the begin in which nothing is killed and no call is counted.
        max_kills: no more than so many; None: without end.
        node: hex id of the only node where something is killed, or the first digits of it; None: any.

    Raises:
        ChaosRuleError: a number out of its range, both or (for `inject`) none of `every_s` and `every_calls`.
    """

    kind: ClassVar[str]

    every_s: float | None = None
    jitter_s: float = 0.0
    every_calls: int | None = None
    calls: str = "*"
    after_s: float = 0.0
    max_kills: int | None = None
    node: str | None = None

    def __post_init__(self) -> None:
        if self.every_s is not None:
            self._demand("every_s", _is_number(self.every_s) and self.every_s > 0, "a positive number of seconds")
            if self.every_calls is not None:
                raise self._error("every_s and every_calls cannot be given both: make two rules")
        most = self.every_s or 0.0
        fits = _is_number(self.jitter_s) and 0 <= self.jitter_s <= most
        self._demand("jitter_s", fits, "a number of seconds between 0 and every_s")
        self._demand("every_calls", self.every_calls is None or _is_count(self.every_calls), "a positive integer")
        self._demand("calls", isinstance(self.calls, str), "a pattern of names")
        self._demand("after_s", _is_number(self.after_s) and self.after_s >= 0, "a number of seconds, 0 or more")
        self._demand("max_kills", self.max_kills is None or _is_count(self.max_kills), "a positive integer or None")
        if self.node is not None:
            hexadecimal = isinstance(self.node, str) and self.node and not self.node.strip("0123456789abcdef")
            self._demand("node", bool(hexadecimal), "the beginning of a node's id in hex, or None")

    def _error(self, text: str) -> ChaosRuleError:
        return ChaosRuleError(f"{type(self).__name__}: {text}.")

    def _demand(self, field: str, holds: bool, what: str) -> None:
        if not holds:
            raise self._error(f"{field} must be {what}, got {getattr(self, field)!r}")


@dataclass(frozen=True, kw_only=True)
class KillWorker(Rule):
    """Kills a worker that is leased for tasks of this job.

    The task that it runs is lost with it, and so are those that wait behind it there: they are run again if they have
    retries left.

    Attributes:
        name: only a worker that runs, at that moment, a task whose name fits this pattern (as of a shell). "*": any
            that is leased, even if it runs nothing just now.
    """

    kind: ClassVar[str] = "worker"

    name: str = "*"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._demand("name", isinstance(self.name, str) and bool(self.name), "a pattern of names")


@dataclass(frozen=True, kw_only=True)
class KillActor(Rule):
    """Kills the process of an actor of this job that is alive. It counts as a crash: restarts are used up.

    Attributes:
        class_name: pattern (as of a shell) for the name of its class.
        name: pattern for the name that it was given. "*": unnamed ones, too.
        namespace: only of this namespace; None: any.
    """

    kind: ClassVar[str] = "actor"

    class_name: str = "*"
    name: str = "*"
    namespace: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("class_name", "name"):
            value = getattr(self, field)
            self._demand(field, isinstance(value, str) and bool(value), "a pattern of names")
        self._demand("namespace", self.namespace is None or isinstance(self.namespace, str), "a name or None")


@dataclass(frozen=True, kw_only=True)
class KillNode(Rule):
    """Kills the raylet of a node, and with it all that runs there, of other jobs too.

    Never the node of the calling process, nor the head; nor any while `KillGcs` has the GCS down.

    Attributes:
        node_name: pattern (as of a shell) for the name of the node.
        then: called with the `Kill` after each, once the cluster knows of the death: to start another node, for
            example. What it raises ends the injection.
    """

    kind: ClassVar[str] = "node"

    node_name: str = "*"
    then: Callable[[Any], object] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._demand("node_name", isinstance(self.node_name, str) and bool(self.node_name), "a pattern of names")
        self._demand("then", self.then is None or callable(self.then), "a function of one argument or None")


@dataclass(frozen=True, kw_only=True)
class KillGcs(Rule):
    """Kills the GCS and starts it again.

    Attributes:
        cluster: a `ray.cluster_utils.Cluster` of this process, whose GCS keeps its tables (environment variable
            RAY_gcs_storage=sqlite before the cluster was made): otherwise the cluster would end with it.
        down_s: seconds until it is started again.
    """

    kind: ClassVar[str] = "gcs"

    cluster: Cluster
    down_s: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        head = getattr(self.cluster, "head_node", None)
        self._demand("cluster", head is not None, "a ray.cluster_utils.Cluster with a head node")
        if head is not None and not head.gcs_is_durable:
            raise self._error(
                "the GCS of this cluster keeps its tables in memory, so the cluster would end with it: set "
                "RAY_gcs_storage=sqlite before the cluster is made"
            )
        self._demand("down_s", _is_number(self.down_s) and self.down_s >= 0, "a number of seconds, 0 or more")
        self._demand("node", self.node is None, "left out")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
