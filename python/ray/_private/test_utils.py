"""`ray._private.test_utils`: what tests of other projects use."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from ray.api import remote


def wait_for_condition(
    condition_predictor: Callable[..., bool],
    timeout: float = 10,
    retry_interval_ms: float = 100,
    raise_exceptions: bool = False,
    **kwargs: Any,
) -> None:
    """Waits until the condition holds.

    Raises:
        RuntimeError: it did not within `timeout` seconds; with what it raised last.
        Exception: what the condition raises, with `raise_exceptions`.
    """
    deadline = time.monotonic() + timeout
    last: Exception | None = None
    while time.monotonic() <= deadline:
        try:
            if condition_predictor(**kwargs):
                return
        except Exception as error:
            if raise_exceptions:
                raise
            last = error
        time.sleep(retry_interval_ms / 1000)
    raise RuntimeError(f"The condition wasn't met before the timeout expired. Last exception: {last!r}") from last


@remote(num_cpus=0)
class SignalActor:
    """A flag that tasks can wait for."""

    def __init__(self) -> None:
        self.ready_event = asyncio.Event()
        self.num_waiters = 0

    def send(self, clear: bool = False) -> None:
        """Lets those who wait go on; with `clear`, later ones wait again."""
        self.ready_event.set()
        if clear:
            self.ready_event.clear()

    async def wait(self, should_wait: bool = True) -> None:
        """Returns after `send`."""
        if should_wait:
            self.num_waiters += 1
            await self.ready_event.wait()
            self.num_waiters -= 1

    async def cur_num_waiters(self) -> int:
        """How many wait now."""
        return self.num_waiters
