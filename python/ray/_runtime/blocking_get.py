"""The warning for `ray.get` on an event loop: it blocks all other calls of the actor."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ray._runtime.session import Session

logger = logging.getLogger("ray")


def warn_once(session: Session) -> None:
    """Warns of the first blocking get on a loop of this process; RAY_WARN_BLOCKING_GET_INSIDE_ASYNC=0 says not to."""
    if os.environ.get("RAY_WARN_BLOCKING_GET_INSIDE_ASYNC", "1") == "0":
        return
    plain = session.get, session.get_one

    def watch(get: Callable[..., Any]) -> Callable[..., Any]:
        def watched(refs: Any, timeout: float | None = None) -> Any:
            if asyncio._get_running_loop() is not None:
                session.get, session.get_one = plain  # from now on nothing is in their way
                logger.warning(
                    "Using blocking ray.get inside async actor. This blocks the event loop. "
                    "Please use `await` on object ref, or `asyncio.gather` on several."
                )
            return get(refs, timeout)

        return watched

    session.get, session.get_one = watch(session.get), watch(session.get_one)
