"""`ray._private.state`: the cluster's tables under their old names."""

from __future__ import annotations

from typing import Any

from ray._runtime.session import require_session
from ray.api import available_resources as available_resources
from ray.api import cluster_resources as cluster_resources
from ray.api import nodes as nodes

_ACTOR_STATES = ("DEPENDENCIES_UNREADY", "PENDING_CREATION", "ALIVE", "RESTARTING", "DEAD")


def _per_node(key: str) -> dict[str, dict[str, float]]:
    return {n["node_id"].hex(): dict(n[key]) for n in require_session().list_nodes() if n["alive"]}


def available_resources_per_node() -> dict[str, dict[str, float]]:
    """What is free now, by hex id of the live nodes."""
    return _per_node("available")


def total_resources_per_node() -> dict[str, dict[str, float]]:
    """What there is, by hex id of the live nodes."""
    return _per_node("total")


def actors(actor_id: str | None = None) -> dict[str, Any]:
    """All actors by hex id, or the one."""
    found = {fields["actor_id"].hex(): _actor(fields) for fields in require_session().list_actors()}
    return found if actor_id is None else found.get(actor_id, {})


def _actor(fields: dict[str, Any]) -> dict[str, Any]:
    state = fields["state"]
    return {
        "ActorID": fields["actor_id"].hex(),
        "ActorClassName": fields["class_name"],
        "IsDetached": fields["detached"],
        "Name": fields["name"],
        "JobID": fields["job_id"].hex(),
        "Address": {"NodeID": fields["node_id"].hex()},
        "OwnerAddress": {},
        "State": _ACTOR_STATES[state - 1] if 0 < state <= len(_ACTOR_STATES) else "DEAD",
        "NumRestarts": fields["num_restarts"],
        "Pid": fields["pid"],
    }


class _State:
    """What `state.state` is."""

    def get_draining_nodes(self) -> dict[str, int]:
        """Nodes that leave, with their deadlines."""
        return {}

    def get_cluster_config(self) -> None:
        """What an autoscaler said of the cluster; None: there is none."""

    def get_max_resources_from_cluster_config(self) -> None:
        """As above."""

    def node_table(self) -> list[dict[str, Any]]:
        """As `ray.nodes()`."""
        return nodes()

    def actor_table(self, actor_id: str | None = None) -> dict[str, Any]:
        """As `actors()`."""
        return actors(actor_id)


state = _State()
