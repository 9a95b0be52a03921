"""Public helpers. Each is loaded when it is first asked for: importing ray must stay fast."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# Not lazily: a module and a function share the name, and the function has to win whatever is imported first.
from ray.util.placement_group import PlacementGroup as PlacementGroup
from ray.util.placement_group import get_current_placement_group as get_current_placement_group
from ray.util.placement_group import get_placement_group as get_placement_group
from ray.util.placement_group import placement_group as placement_group
from ray.util.placement_group import placement_group_table as placement_group_table
from ray.util.placement_group import remove_placement_group as remove_placement_group

if TYPE_CHECKING:
    from ray.util.actor_pool import ActorPool as ActorPool
    from ray.util.check_serialize import inspect_serializability as inspect_serializability
    from ray.util.client import connect as connect
    from ray.util.client import disconnect as disconnect
    from ray.util.client import num_connected_contexts as num_connected_contexts
    from ray.util.debug import disable_log_once_globally as disable_log_once_globally
    from ray.util.debug import enable_periodic_logging as enable_periodic_logging
    from ray.util.debug import log_once as log_once
    from ray.util.helpers import as_completed as as_completed
    from ray.util.helpers import map_unordered as map_unordered
    from ray.util.named_actors import list_named_actors as list_named_actors
    from ray.util.node import get_node_instance_id as get_node_instance_id
    from ray.util.node import get_node_ip_address as get_node_ip_address
    from ray.util.serialization import deregister_serializer as deregister_serializer
    from ray.util.serialization import register_serializer as register_serializer

_HOME = {
    "ActorPool": "actor_pool",
    "as_completed": "helpers",
    "connect": "client",
    "deregister_serializer": "serialization",
    "disconnect": "client",
    "disable_log_once_globally": "debug",
    "enable_periodic_logging": "debug",
    "get_node_instance_id": "node",
    "get_node_ip_address": "node",
    "inspect_serializability": "check_serialize",
    "list_named_actors": "named_actors",
    "log_once": "debug",
    "map_unordered": "helpers",
    "num_connected_contexts": "client",
    "register_serializer": "serialization",
}
_MODULES = {
    "accelerators",
    "actor_group",
    "annotations",
    "chaos",
    "check_serialize",
    "client",
    "debug",
    "helpers",
    "iter",
    "iter_metrics",
    "joblib",
    "metrics",
    "multiprocessing",
    "pdb",
    "queue",
    "rpdb",
    "scheduling_strategies",
    "serialization",
    "state",
    "timer",
    "tpu",
}

__all__ = sorted(
    {
        *_HOME,
        "get_current_placement_group",
        "get_placement_group",
        "placement_group",
        "placement_group_table",
        "remove_placement_group",
    }
)


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"ray.util.{name}")
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'ray.util' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"ray.util.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME, *_MODULES})
