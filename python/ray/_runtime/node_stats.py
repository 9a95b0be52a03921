"""What the raylets of many nodes tell of themselves, asked at the same time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from ray._core import gcs
from ray.exceptions import RayError

if TYPE_CHECKING:
    from ray._runtime.session import Session

_AT_ONCE = 64

Stats = dict[str, Any]


def ask(session: Session, nodes: Sequence[dict[str, Any]], timeout: float) -> list[tuple[Stats | None, str]]:
    """For each of `nodes` its stats, or None and why it did not tell them within `timeout` seconds."""
    if not nodes:
        return []
    timeout_ms = max(1, int(timeout * 1000))

    def ask_one(node: dict[str, Any]) -> tuple[Stats | None, str]:
        try:
            return json.loads(gcs.node_stats(session.core, bytes(node["node_id"]), timeout_ms)), ""
        except RayError as error:
            return None, str(error)

    with ThreadPoolExecutor(min(len(nodes), _AT_ONCE), thread_name_prefix="ray_node_stats") as pool:
        return list(pool.map(ask_one, nodes))
