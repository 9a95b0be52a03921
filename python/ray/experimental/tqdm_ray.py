"""A progress bar that works inside tasks and actors: it prints whole lines, which reach the driver through the logs."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

_WIDTH = 30
_FLUSH_S = 1.0


class tqdm:
    """Progress of something, with or without a known end; prints at most one line each `flush_interval_s` (None: 1 s).

    Attributes:
        n: steps so far.
        total: how many there are; None: unknown.
    """

    def __init__(
        self,
        iterable: Iterable[Any] | None = None,
        desc: str | None = None,
        total: int | None = None,
        unit: str | None = None,
        position: int | None = None,
        flush_interval_s: float | None = None,
    ) -> None:
        self._iterable = iterable
        self._desc = desc or ""
        self.total = total if total is not None else (len(iterable) if hasattr(iterable, "__len__") else None)  # type: ignore[arg-type]
        self._unit = unit or "it"
        self._interval = _FLUSH_S if flush_interval_s is None else flush_interval_s
        self.n = 0
        self._began = self._printed_at = time.monotonic()
        self._printed = -1

    def __iter__(self) -> Iterator[Any]:
        if self._iterable is None:
            raise ValueError("No iterable was provided.")
        for item in self._iterable:
            yield item
            self.update(1)
        self.close()

    def set_description(self, desc: str) -> None:
        """Changes the text before the bar."""
        self._desc = desc

    def update(self, n: int = 1) -> None:
        """Counts `n` more steps."""
        self.n += n
        now = time.monotonic()
        if now - self._printed_at >= self._interval:
            self._print(now)

    def refresh(self) -> None:
        """Prints the present state now."""
        self._print(time.monotonic())

    def close(self) -> None:
        """Prints the last state, unless it was printed."""
        if self._printed != self.n:
            self._print(time.monotonic())

    def _print(self, now: float) -> None:
        self._printed_at, self._printed = now, self.n
        rate = self.n / max(now - self._began, 1e-9)
        if self.total:
            filled = min(_WIDTH, _WIDTH * self.n // self.total)
            bar = "#" * filled + "." * (_WIDTH - filled)
            print(
                f"{self._desc}: {100 * self.n // self.total:3d}%|{bar}| {self.n}/{self.total} "
                f"[{rate:.1f}{self._unit}/s]",
                flush=True,
            )
        else:
            print(f"{self._desc}: {self.n}{self._unit} [{rate:.1f}{self._unit}/s]", flush=True)


class _Manager:
    """What `instance()` gives: Ray keeps bars apart with it; here they are whole lines, which need no keeping apart."""

    def hide_bars(self) -> None:
        """Nothing is on the screen that has to go."""

    def unhide_bars(self) -> None:
        """Nothing comes back."""


_manager = _Manager()


def instance() -> _Manager:
    """The one manager of this process."""
    return _manager


def safe_print(*args: Any, **kwargs: Any) -> None:
    """As print; bars are whole lines, so there is nothing to garble."""
    print(*args, **kwargs)
