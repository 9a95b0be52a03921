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


def _by_ref(obj_refs: list[ObjectRef], places: list[tuple[list[bytes], int, bool]]) -> dict[ObjectRef, dict[str, Any]]:
    return {
        ref: {"node_ids": [n.hex() for n in nodes], "object_size": size if size > 0 else None, "did_spill": spilled}
        for ref, (nodes, size, spilled) in zip(obj_refs, places, strict=True)
    }


def get_object_locations(obj_refs: list[ObjectRef], timeout_ms: int = -1) -> dict[ObjectRef, dict[str, Any]]:
    """Asks the owners where copies of objects are, and the nodes that have them whether they were written to disk.

    Returns:
        ref -> {"node_ids": hex ids of nodes with a copy, empty for values kept in their owner's memory,
        "object_size": bytes, None if unknown, as of what does not exist yet,
        "did_spill": whether one of these nodes has it on disk, also if it is in memory again}.

    Raises:
        RuntimeError: not connected.
        ray.exceptions.GetTimeoutError: not all have answered in time.
    """
    return _by_ref(obj_refs, _session().get_locations(obj_refs, timeout_ms))


def get_local_object_locations(obj_refs: list[ObjectRef]) -> dict[ObjectRef, dict[str, Any]]:
    """As `get_object_locations`, from what this process knows already.

    Only the nodes know what they have written to disk: they are asked, for a second at most.
    """
    return _by_ref(obj_refs, _session().get_known_locations(obj_refs))
