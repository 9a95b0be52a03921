"""Where objects are."""

from __future__ import annotations

from typing import Any

from ray._raylet import ObjectRef
from ray._runtime.session import Session, current_session


def _session() -> Session:
    session = current_session()
    if session is None:
        raise RuntimeError("Ray hasn't been initialized.")
    return session


def get_object_locations(obj_refs: list[ObjectRef], timeout_ms: int = -1) -> dict[ObjectRef, dict[str, Any]]:
    """Asks the owners where copies of objects are.

    Returns:
        ref -> {"node_ids": hex ids of nodes with a copy, empty for values kept in their owner's memory,
        "object_size": bytes, None if unknown, as of what does not exist yet}.

    Raises:
        RuntimeError: not connected.
    """
    node_ids, sizes = _session().get_locations(obj_refs, timeout_ms)
    return {
        ref: {"node_ids": [n.hex() for n in nodes], "object_size": size if size > 0 else None}
        for ref, nodes, size in zip(obj_refs, node_ids, sizes, strict=True)
    }


def get_local_object_locations(obj_refs: list[ObjectRef]) -> dict[ObjectRef, dict[str, Any]]:
    """As `get_object_locations`, from what this process knows already."""
    return get_object_locations(obj_refs, timeout_ms=0)
