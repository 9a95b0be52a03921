"""Resources that change while a cluster runs: not any more."""

from __future__ import annotations


def set_resource(resource_name: str, capacity: float, node_id: str | None = None) -> None:
    """Raises DeprecationWarning: resources are given when a node starts."""
    raise DeprecationWarning(
        "Dynamic custom resources were removed from Ray. Consider using placement groups instead, "
        "or give resources when a node starts (`ray start --resources`)."
    )
