"""Metrics of programs: Counter, Gauge and Histogram, kept in the process that records them."""

from __future__ import annotations

import re
import threading
import warnings
from bisect import bisect_left
from typing import Any, NamedTuple

_VALID = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*\Z")
_Tags = tuple[tuple[str, str], ...]


class Series(NamedTuple):
    """What was recorded for one set of tags. Counter: total; gauge: last value; histogram: sum, with its buckets."""

    kind: str
    name: str
    tags: dict[str, str]
    value: float
    buckets: list[int]  # observations up to each boundary, not cumulated; the last: beyond all


class _Recorded:
    """Values by kind, name and tags: objects of the same name share them. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[tuple[str, str, _Tags], tuple[float, list[int]]] = {}

    def add(self, kind: str, name: str, tags: dict[str, str], value: float, bucket: int = 0, buckets: int = 0) -> None:
        key = (kind, name, tuple(sorted(tags.items())))
        with self._lock:
            total, counts = self._values.get(key, (0.0, [0] * buckets))
            if buckets:
                counts[bucket] += 1
            self._values[key] = (value if kind == "gauge" else total + value, counts)

    def snapshot(self) -> list[Series]:
        with self._lock:
            return [Series(k, n, dict(t), v, list(b)) for (k, n, t), (v, b) in self._values.items()]


_RECORDED = _Recorded()


def snapshot() -> list[Series]:
    """Everything that this process has recorded."""
    return _RECORDED.snapshot()


class Metric:
    """What the kinds have in common."""

    def __init__(self, name: str, description: str = "", tag_keys: tuple[str, ...] | None = None) -> None:
        for what, text in (("name", name), ("description", description)):
            if not isinstance(text, str):
                raise TypeError(f"The {what} of a metric must be str, got {text!r}.")
        if not name:
            raise ValueError("Empty name is not allowed. Please provide a metric name.")
        tag_keys = () if tag_keys is None else tag_keys
        if not isinstance(tag_keys, tuple):
            raise TypeError(f"tag_keys should be a tuple type, got: {type(tag_keys)}.")
        for key in tag_keys:
            if not isinstance(key, str):
                raise TypeError(f"Tag keys must be str, got {type(key)}.")
        self._name, self._description, self._tag_keys = name, description, tag_keys
        self._default_tags: dict[str, str] = {}
        self._dropped = _VALID.match(name) is None
        if self._dropped:
            warnings.warn(f"Invalid metric name {name!r}: the metric is dropped.", UserWarning, stacklevel=3)
        elif ":" in name:
            warnings.warn(f"Metric name {name!r}: ':' will not be allowed.", FutureWarning, stacklevel=3)

    def set_default_tags(self, default_tags: dict[str, str]) -> Any:
        """Values for tags that a record does not give. Returns the metric itself.

        Raises:
            ValueError: a key is not in tag_keys.
            TypeError: a value is not a str.
        """
        for key, value in default_tags.items():
            if key not in self._tag_keys:
                raise ValueError(f"Unrecognized tag key {key!r}.")
            if not isinstance(value, str):
                raise TypeError(f"Tag values must be str, got {type(value)}.")
        self._default_tags = dict(default_tags)
        return self

    @property
    def info(self) -> dict[str, Any]:
        """Name, description, tag_keys and default_tags."""
        return {
            "name": self._name,
            "description": self._description,
            "tag_keys": self._tag_keys,
            "default_tags": self._default_tags,
        }

    def _final_tags(self, tags: dict[str, str] | None) -> dict[str, str]:
        for value in (tags or {}).values():
            if not isinstance(value, str):
                raise TypeError(f"Tag values must be str, got {type(value)}.")
        # Tags that the metric was not declared with are no error in Ray; here they are left out.
        final = {key: value for key, value in {**self._default_tags, **(tags or {})}.items() if key in self._tag_keys}
        missing = [key for key in self._tag_keys if key not in final]
        if missing:
            raise ValueError(f"Missing value for tag key(s): {','.join(missing)}.")
        return final

    def _arguments(self) -> tuple[Any, ...]:
        return (self._name, self._description, self._tag_keys)

    def __reduce__(self) -> tuple[Any, ...]:
        return (_restore, (type(self), self._arguments(), self._default_tags))


def _restore(kind: type[Metric], arguments: tuple[Any, ...], default_tags: dict[str, str]) -> Metric:
    metric = kind(*arguments)
    metric.set_default_tags(default_tags)
    return metric


def _number(value: Any) -> float:
    if not isinstance(value, (int, float)):  # booleans will do: gauges show flags
        raise TypeError(f"value must be int or float, got {type(value)}.")
    return float(value)


class Counter(Metric):
    """A sum that only grows."""

    def inc(self, value: float = 1.0, tags: dict[str, str] | None = None) -> None:
        """Adds `value`, which must be > 0 (ValueError)."""
        number = _number(value)
        if number <= 0:
            raise ValueError(f"value must be > 0, got {value!r}.")
        final = self._final_tags(tags)
        if not self._dropped:
            _RECORDED.add("counter", self._name, final, number)


class Gauge(Metric):
    """The last value."""

    def set(self, value: float | None, tags: dict[str, str] | None = None) -> None:
        """Sets the value; None changes nothing."""
        if value is None:
            return
        number = _number(value)
        final = self._final_tags(tags)
        if not self._dropped:
            _RECORDED.add("gauge", self._name, final, number)


class Histogram(Metric):
    """How many observations fell into which range.

    Raises:
        ValueError: there are no boundaries, or one is not positive.
    """

    def __init__(
        self,
        name: str,
        description: str = "",
        boundaries: list[float] | None = None,
        tag_keys: tuple[str, ...] | None = None,
    ) -> None:
        super().__init__(name, description, tag_keys)
        if not boundaries:
            raise ValueError("Histogram needs boundaries, e.g. Histogram('name', boundaries=[1.0, 2.0]).")
        if any(b <= 0 for b in boundaries):
            raise ValueError(f"Boundaries must be positive, got {boundaries}.")
        self.boundaries = sorted(boundaries)

    def observe(self, value: float, tags: dict[str, str] | None = None) -> None:
        """Counts `value`."""
        number = _number(value)
        final = self._final_tags(tags)
        if not self._dropped:
            bucket = bisect_left(self.boundaries, number)
            _RECORDED.add("histogram", self._name, final, number, bucket, len(self.boundaries) + 1)

    @property
    def info(self) -> dict[str, Any]:
        """As of every metric, and the boundaries."""
        return {**super().info, "boundaries": self.boundaries}

    def _arguments(self) -> tuple[Any, ...]:
        return (self._name, self._description, self.boundaries, self._tag_keys)
