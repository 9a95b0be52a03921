"""What a cluster has: its nodes and their resources. Public in `ray.api`."""

from __future__ import annotations

import re
from typing import Any

from ray import exceptions
from ray._runtime.session import Session, current_session

# What a placed bundle adds to its node: CPU_group_<index>_<group> and CPU_group_<group>.
_GROUP_RESOURCE = r".+_group_(?:\d+_)?[0-9a-f]{36}"


def _started() -> Session:
    session = current_session()
    if session is None:
        raise exceptions.RaySystemError("Ray has not been started yet. You can start Ray with 'ray.init()'.")
    return session


def nodes() -> list[dict[str, Any]]:
    """All nodes of the cluster, dead ones too. The raylets of remote drivers, which offer nothing, are not listed.

    `State` is "ALIVE", "DRAINING" (alive, but takes no more work and is about to leave) or "DEAD". `Resources` is what
    the node was started with: without what placement groups make of it, and empty once it is dead.

    Raises:
        RaySystemError: not connected.
    """
    return [
        {
            "NodeID": n["node_id"].hex(),
            "Alive": n["alive"],
            "alive": n["alive"],
            "State": ("DRAINING" if n["draining"] else "ALIVE") if n["alive"] else "DEAD",
            "NodeName": n["node_name"],
            "NodeManagerAddress": n["ip"],
            "NodeManagerHostname": n["hostname"],
            "NodeManagerPort": n["port"],
            "ObjectManagerPort": n["port"],
            "ObjectStoreSocketName": n["store_socket"],
            "RayletSocketName": n["raylet_socket"],
            "MetricsExportPort": 0,
            "MetricsAgentPort": 0,
            "RuntimeEnvAgentPort": 0,
            "DashboardAgentListenPort": 0,
            "Resources": _own_resources(n["total"]) if n["alive"] else {},
            "Labels": dict(n["labels"]),
            "DeathReason": n["death_kind"],
            "DeathReasonMessage": n["death_reason"],
        }
        for n in _started().list_nodes()
        if not n["driver_only"]
    ]


def _own_resources(total: dict[str, float]) -> dict[str, float]:
    return {name: amount for name, amount in total.items() if not re.fullmatch(_GROUP_RESOURCE, name)}


def _sum_resources(key: str) -> dict[str, float]:
    total: dict[str, float] = {}
    for node in _started().list_nodes():
        if node["alive"]:
            for name, amount in node[key].items():
                total[name] = total.get(name, 0.0) + amount
    return total


def cluster_resources() -> dict[str, float]:
    """What all live nodes have, with the resources of placement groups. Raises RaySystemError when not connected."""
    return _sum_resources("total")


def available_resources() -> dict[str, float]:
    """What of them is free now; exhausted ones are left out. Raises RaySystemError when not connected."""
    return {name: amount for name, amount in _sum_resources("available").items() if amount > 0}
