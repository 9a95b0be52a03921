"""`ray.wait` over generators as well as refs: a generator is ready when its next item is."""

from __future__ import annotations

import time
from typing import Any

from ray._core.generator import ObjectRefGenerator
from ray._core.worker import CoreWorker


def wait_mixed(
    core: CoreWorker, waitables: list[Any], num_returns: int, timeout: float | None, fetch_local: bool
) -> list[bool]:
    """Which of `waitables` are ready, at most `num_returns` of them; waits until so many are, or `timeout` seconds."""
    deadline = None if timeout is None else time.monotonic() + timeout
    queue = core.completion_queue()
    for token, item in enumerate(waitables):
        if isinstance(item, ObjectRefGenerator):
            if item.next_ready() or item.is_finished():
                continue
            queue.watch_generator(item._generator_ref, token)
        else:
            queue.watch(item, token)
    try:
        ready = {
            i
            for i, item in enumerate(waitables)
            if isinstance(item, ObjectRefGenerator) and (item.next_ready() or item.is_finished())
        }
        ready.update(queue.drain())
        while len(ready) < num_returns:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                break
            # In slices, so that Ctrl-C is heard.
            ready.update(queue.wait_drain(100 if left is None else min(100, int(left * 1000) + 1)))
    finally:
        queue.close()
    chosen = sorted(ready)[:num_returns]
    if fetch_local:
        refs = [waitables[i] for i in chosen if not isinstance(waitables[i], ObjectRefGenerator)]
        if refs:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            core.wait(refs, len(refs), left, True)
    picked = set(chosen)
    return [i in picked for i in range(len(waitables))]
