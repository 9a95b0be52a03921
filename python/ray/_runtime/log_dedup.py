"""Folds lines that many workers print alike, so that a driver's output stays readable.

Lines are alike when they are equal but for words with digits. The first is shown at once; those that other processes
print within the window are counted and shown as one, with their number, when the window ends. What one process repeats
is always shown. Pure: the caller gives the time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

_WINDOW_S = 5.0
_MAX_PATTERNS = 10_000  # more different lines than that within a window are not folded
_NUMBERED = re.compile(r"\S*\d\S*")
_HINT = (
    " (Ray deduplicates logs by default. Set RAY_DEDUP_LOGS=0 to disable log deduplication, or see the documentation"
    " of logs for more.)"
)


class Line(NamedTuple):
    """One printed line; `origin`, how it is shown, is for the caller alone."""

    text: str
    source: Any  # the process
    origin: Any


@dataclass
class _Pattern:
    since: float
    sources: set[Any]  # two at most: more tell nothing else
    last: Line
    held: int = 0


class LogDeduplicator:
    """Decides which lines are shown. Not thread-safe."""

    def __init__(self, window_s: float = _WINDOW_S) -> None:
        self._window_s = window_s
        self._patterns: dict[str, _Pattern] = {}  # the oldest window first
        self._hinted = False

    def add(self, line: Line, now: float) -> Iterator[Line]:
        """What is to be shown, now that `line` has come."""
        yield from self.expire(now)
        key = _NUMBERED.sub("", line.text)
        pattern = self._patterns.get(key)
        if pattern is None:
            if key.strip() and len(self._patterns) < _MAX_PATTERNS:
                self._patterns[key] = _Pattern(now, {line.source}, line)
            yield line
            return
        if len(pattern.sources) == 1:
            pattern.sources.add(line.source)
        if len(pattern.sources) == 1:
            yield line
            return
        pattern.last = line
        pattern.held += 1

    def expire(self, now: float) -> Iterator[Line]:
        """The summaries of windows that have ended."""
        while self._patterns:
            key = next(iter(self._patterns))
            pattern = self._patterns[key]
            if now < pattern.since + self._window_s:
                return
            del self._patterns[key]
            if pattern.held:
                yield self._summary(pattern)
            if pattern.held > 1:  # it goes on, probably: none of the next ones is shown by itself
                self._patterns[key] = _Pattern(now, pattern.sources, pattern.last)

    def flush(self) -> Iterator[Line]:
        """The summaries of all windows; they end."""
        patterns, self._patterns = self._patterns, {}
        for pattern in patterns.values():
            if pattern.held:
                yield self._summary(pattern)

    def next_deadline(self) -> float | None:
        """When `expire` may have something, at the earliest."""
        first = next(iter(self._patterns.values()), None)
        return None if first is None else first.since + self._window_s

    def _summary(self, pattern: _Pattern) -> Line:
        if pattern.held == 1:
            return pattern.last
        hint, self._hinted = "" if self._hinted else _HINT, True
        return pattern.last._replace(text=f"{pattern.last.text} [repeated {pattern.held}x across cluster]{hint}")
