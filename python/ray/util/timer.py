"""A running average of how long something takes, over the last so many times."""

from __future__ import annotations

import time
from collections import deque
from types import TracebackType

from ray.util.annotations import Deprecated


@Deprecated
class _Timer:
    """Use as a context manager around what is to be timed; or `push` times that were measured elsewhere.

    Args:
        window_size: how many of the last times count.
    """

    def __init__(self, window_size: int = 10) -> None:
        self._times: deque[float] = deque(maxlen=window_size)
        self._units: deque[float] = deque(maxlen=window_size)
        self._began: float | None = None
        self._total = 0.0
        self.count = 0

    def __enter__(self) -> None:
        assert self._began is None, "concurrent updates are not supported"
        self._began = time.perf_counter()

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        assert self._began is not None
        self.push(time.perf_counter() - self._began)
        self._began = None

    def push(self, time_delta: float) -> None:
        """Adds a time, in seconds."""
        self._times.append(time_delta)
        self.count += 1
        self._total += time_delta

    def push_units_processed(self, n: float) -> None:
        """Adds how many units were processed in the time that was added last."""
        self._units.append(n)

    def has_units_processed(self) -> bool:
        """Whether numbers of units were added."""
        return bool(self._units)

    @property
    def mean(self) -> float:
        """Of the times in the window; 0 without any."""
        return sum(self._times) / len(self._times) if self._times else 0.0

    @property
    def mean_units_processed(self) -> float:
        """Of the units in the window; 0 without any."""
        return sum(self._units) / len(self._units) if self._units else 0.0

    @property
    def mean_throughput(self) -> float:
        """Units for each second, over the window; 0 where no time has passed."""
        seconds = sum(self._times)
        return sum(self._units) / seconds if seconds else 0.0
