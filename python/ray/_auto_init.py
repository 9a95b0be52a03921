"""Which session a call runs in: the one there is, or one started by the first call that needs it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ray._runtime.session import current_session
from ray.exceptions import RaySystemError

if TYPE_CHECKING:
    from ray._runtime.session import Session


def ensure_session() -> Session:
    """The current session; without one, `ray.init()` is called, unless RAY_ENABLE_AUTO_CONNECT=0.

    Raises:
        RaySystemError: not initialised, and starting by itself is switched off.
    """
    session = current_session()
    if session is not None:
        return session
    if os.environ.get("RAY_ENABLE_AUTO_CONNECT", "1") == "0":
        raise RaySystemError("Ray has not been started yet. Call ray.init() first.")
    from ray._init import auto_init  # the one look upwards: a first call may start the cluster

    return auto_init()
