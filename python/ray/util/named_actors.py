"""Listing named actors."""

from __future__ import annotations

from typing import Any

from ray._auto_init import ensure_session


def list_named_actors(all_namespaces: bool = False) -> list[Any]:
    """Names of the live named actors of the current namespace, or of all as {"name", "namespace"}."""
    session = ensure_session()
    actors = session.list_actors(named_only=True, all_namespaces=all_namespaces, ray_namespace=session.namespace)
    if all_namespaces:
        return [{"name": a["name"], "namespace": a["ray_namespace"]} for a in actors]
    return [a["name"] for a in actors]
