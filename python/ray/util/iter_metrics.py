"""Counts and times that the stages of an iterator share."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from ray.util.annotations import Deprecated
from ray.util.timer import _Timer


@Deprecated
class MetricsContext:
    """What the stages of one iterator have counted.

    Attributes:
        counters, timers, info: by name, for stages to use.
        current_actor: the shard that the item at hand comes from.
    """

    def __init__(self) -> None:
        self.counters: defaultdict[str, int] = defaultdict(int)
        self.timers: defaultdict[str, _Timer] = defaultdict(_Timer)
        self.info: dict[str, Any] = {}
        self.current_actor: Any = None

    def save(self) -> dict[str, Any]:
        """The counters and `info`, to be restored elsewhere."""
        return {"counters": dict(self.counters), "info": dict(self.info), "timers": dict.fromkeys(self.timers)}

    def restore(self, values: dict[str, Any]) -> None:
        """Takes over what `save` gave."""
        self.counters.clear()
        self.counters.update(values["counters"])
        self.timers.clear()
        self.info = values["info"]


@Deprecated
class SharedMetrics:
    """A metrics context that several iterators have in common, also after some of them were joined."""

    def __init__(self, metrics: MetricsContext | None = None, parents: list[SharedMetrics] | None = None) -> None:
        self.metrics = metrics or MetricsContext()
        self.parents = parents or []
        self.set(self.metrics)

    def set(self, metrics: MetricsContext) -> None:
        """Makes `metrics` the context of this one and of all that it was joined from."""
        self.metrics = metrics
        for parent in self.parents:
            parent.set(metrics)

    def get(self) -> MetricsContext:
        """The context."""
        return self.metrics
