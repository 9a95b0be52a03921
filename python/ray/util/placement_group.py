"""Placement groups: bundles of resources that are reserved together, on one node or spread over several."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any

from ray import options as opts
from ray._auto_init import ensure_session
from ray._raylet import ActorID, NodeID, PlacementGroupID
from ray._runtime.session import Session, current_session

if TYPE_CHECKING:
    from ray._raylet import ObjectRef

_STRATEGIES = {"PACK": 1, "SPREAD": 2, "STRICT_PACK": 3, "STRICT_SPREAD": 4}  # PlacementStrategy
_STATES = ("UNSPECIFIED", "PENDING", "PREPARED", "CREATED", "REMOVED", "RESCHEDULING")  # PlacementGroupState
_NODE_LABEL = "ray.io/node-id"  # in topology_strategy: the nodes themselves


class PlacementGroup:
    """A placement group, placed or not. Equal ones name the same group; they can be passed to tasks.

    >>> pg = placement_group([{"CPU": 1}])
    >>> ray.get(pg.ready(), timeout=10) == pg
    True
    """

    def __init__(self, id: PlacementGroupID, bundle_cache: list[dict[str, float]] | None = None) -> None:
        self.id = id
        self.bundle_cache = bundle_cache

    @staticmethod
    def empty() -> PlacementGroup:
        """No group: options that get it use none."""
        return PlacementGroup(PlacementGroupID.nil(), [])

    @property
    def is_empty(self) -> bool:
        """Whether this is no group."""
        return bool(self.id.is_nil())

    @property
    def bundle_specs(self) -> list[dict[str, float]]:
        """The resources of each bundle, as they were asked for.

        Raises:
            ValueError: the group is not known (any more).
        """
        if self.bundle_cache is None:
            self.bundle_cache = ensure_session().bundle_specs(self.id.binary())
        return self.bundle_cache

    @property
    def bundle_count(self) -> int:
        """How many bundles there are."""
        return len(self.bundle_specs)

    def ready(self) -> ObjectRef:
        """A ref that resolves to this group once it is placed; TaskPlacementGroupRemoved if that never happens."""
        return ensure_session().placement_group_ready(self.id.binary(), self)

    def wait(self, timeout_seconds: float = 30) -> bool:
        """Whether the group is placed, at the latest after that time."""
        return ensure_session().wait_placement_group(self.id.binary(), timeout_seconds)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PlacementGroup) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"PlacementGroup({self.id.hex()})"

    def __reduce__(self) -> tuple[Any, ...]:
        return (PlacementGroup, (self.id, self.bundle_cache))


def placement_group(
    bundles: list[dict[str, float]],
    strategy: str | None = None,
    name: str = "",
    lifetime: str | None = None,
    _soft_target_node_id: str | None = None,
    bundle_label_selector: list[dict[str, str]] | None = None,
    topology_strategy: dict[str, str] | None = None,
) -> PlacementGroup:
    """Asks for a placement group; returns at once, placing it goes on by itself.

    Args:
        bundles: the resources of each bundle, such as `[{"CPU": 1}, {"GPU": 1}]`.
        strategy: "PACK" (few nodes; the default), "SPREAD" (many), "STRICT_PACK" (one) or "STRICT_SPREAD" (one for
            each bundle).
        name: to find it with `get_placement_group`, unique in the namespace.
        lifetime: "detached" outlives its job; None goes with it.
        bundle_label_selector: for each bundle, what the labels of its node have to be.
        topology_strategy: instead of `strategy`, by label: `{"zone": "STRICT_PACK"}` keeps all bundles on nodes that
            agree in that label; the key "ray.io/node-id" gives the strategy for nodes.

    Raises:
        ValueError: a bad argument, or the name is taken.
        TypeError: a name that is no text.
    """
    bundles = _checked_bundles(bundles)
    chosen, topology_label = _strategy(strategy, topology_strategy)
    if lifetime not in (None, "detached"):
        raise ValueError(f"The lifetime of a placement group must be None or 'detached', got {lifetime!r}.")
    if not isinstance(name, str):
        raise TypeError(f"The name of a placement group must be a string, got {name!r}.")
    target = b""
    if _soft_target_node_id is not None:
        if chosen != "STRICT_PACK":
            raise ValueError(f"_soft_target_node_id needs the strategy STRICT_PACK, got {chosen}.")
        try:
            target = NodeID.from_hex(_soft_target_node_id).binary()
        except (TypeError, ValueError) as error:
            raise ValueError(f"Invalid _soft_target_node_id: {_soft_target_node_id!r}.") from error
    selectors = _checked_selectors(bundle_label_selector, len(bundles))
    session = ensure_session()
    task = session.task
    actor = task.actor_id if task is not None else None
    group_id = session.create_placement_group(
        bundles=[{key: float(amount) for key, amount in bundle.items() if amount} for bundle in bundles],
        selectors=selectors,
        strategy=_STRATEGIES[chosen],
        name=name,
        ray_namespace=session.namespace,
        creator_actor_id=actor.binary() if isinstance(actor, ActorID) else b"",
        detached=lifetime == "detached",
        soft_target_node_id=target,
        topology_label=topology_label,
    )
    return PlacementGroup(PlacementGroupID(group_id), bundles)


def remove_placement_group(placement_group: PlacementGroup) -> None:
    """Removes a group and gives its resources back. Tasks and actors in it are ended and fail with
    TaskPlacementGroupRemoved and ActorPlacementGroupRemoved; so do those that wait for it. Does not wait; a group that
    is gone already is fine.
    """
    ensure_session().remove_placement_group(placement_group.id.binary())


def get_placement_group(placement_group_name: str) -> PlacementGroup:
    """The group of that name in the current namespace.

    Raises:
        ValueError: there is none.
    """
    if not placement_group_name:
        raise ValueError("Please supply a non-empty value to get_placement_group.")
    session = ensure_session()
    found = session.find_placement_group(name=placement_group_name, ray_namespace=session.namespace)
    if found is None:
        raise ValueError(f"Failed to look up placement group with name: {placement_group_name!r}.")
    return PlacementGroup(PlacementGroupID(found["id"]), [bundle["resources"] for bundle in found["bundles"]])


def get_current_placement_group() -> PlacementGroup | None:
    """The group that the running task or actor is in; None outside of groups."""
    session: Session | None = current_session() or ensure_session()
    task = session.task if session is not None else None
    group_id = task.placement_group_id if task is not None else b""
    return PlacementGroup(PlacementGroupID(group_id)) if group_id else None


def placement_group_table(placement_group: PlacementGroup | None = None) -> dict[str, Any]:
    """The state of one group, or of all by their hex ids; `{}` for one that is not known (any more)."""
    session = ensure_session()
    if placement_group is not None:
        found = session.find_placement_group(group_id=placement_group.id.binary())
        return _row(found) if found is not None else {}
    return {group["id"].hex(): _row(group) for group in session.list_placement_groups()}


def _row(group: dict[str, Any]) -> dict[str, Any]:
    latency = max(group["placed_at_ms"] - group["created_at_ms"], 0) if group["placed_at_ms"] else 0
    strategies = {number: name for name, number in _STRATEGIES.items()}
    return {
        "placement_group_id": group["id"].hex(),
        "name": group["name"],
        "bundles": {i: _plain(bundle["resources"]) for i, bundle in enumerate(group["bundles"])},
        "bundles_to_node_id": {i: bundle["node_id"].hex() for i, bundle in enumerate(group["bundles"])},
        "strategy": strategies[group["strategy"]],
        "state": _STATES[group["state"]],
        "stats": {
            "end_to_end_creation_latency_ms": float(latency),
            "scheduling_latency_ms": float(latency),
            "scheduling_attempt": group["attempts"],
            "highest_retry_delay_ms": float(group["highest_retry_delay_ms"]),
            "scheduling_state": _scheduling_state(group),
        },
    }


def _scheduling_state(group: dict[str, Any]) -> str:
    """In Ray's words; what exactly keeps it waiting tells `ray.util.state.explain`."""
    state = _STATES[group["state"]]
    if state == "CREATED":
        return "FINISHED"
    if state == "REMOVED":
        return "REMOVED"
    if state == "PREPARED":
        return "SCHEDULING_STARTED"
    return "INFEASIBLE" if group["infeasible"] else "NO_RESOURCES"


def _plain(resources: dict[str, float]) -> dict[str, float]:
    return {key: int(amount) if amount == int(amount) else amount for key, amount in resources.items()}


def _checked_bundles(bundles: Any) -> list[dict[str, float]]:
    if not isinstance(bundles, list) or not bundles:
        raise ValueError(f"The bundles of a placement group must be a non-empty list of dicts, got {bundles!r}.")
    for bundle in bundles:
        if not isinstance(bundle, dict) or not bundle:
            raise ValueError(f"A bundle must be a non-empty dict of resources, got {bundle!r}.")
        for key, amount in bundle.items():
            if not isinstance(key, str) or not key or key == "bundle":
                raise ValueError(f"A bundle's resources have names, and 'bundle' is reserved; got {key!r}.")
            if isinstance(amount, bool) or not isinstance(amount, (int, float)) or not math.isfinite(amount):
                raise ValueError(f"The quantity of {key!r} in a bundle must be a number, got {amount!r}.")
            if amount < 0 or (amount and not opts.whole_units(amount)):
                raise ValueError(f"The quantity of {key!r} in a bundle must be 0 or at least 0.0001, got {amount!r}.")
            if key == "object_store_memory":
                warnings.warn(
                    "'object_store_memory' in a bundle is deprecated: it does not reserve memory of the object store.",
                    stacklevel=3,
                )
        if not any(bundle.values()):
            raise ValueError(f"Bundles cannot consist of zeros only, got {bundle!r}.")
    return [
        {key: amount if isinstance(amount, int) else opts.whole_units(amount) for key, amount in bundle.items()}
        for bundle in bundles
    ]


def _strategy(strategy: Any, topology: Any) -> tuple[str, str]:
    """The strategy for nodes, and the label that all nodes must agree in ("": none)."""
    if topology is not None and topology != {}:
        if strategy is not None:
            raise ValueError("Give either strategy or topology_strategy, not both.")
        if not isinstance(topology, dict) or not 1 <= len(topology) <= 2:
            raise ValueError(f"topology_strategy must be a dict of one or two labels, got {topology!r}.")
        rest = dict(topology)
        strategy = rest.pop(_NODE_LABEL, None)
        for label, wanted in rest.items():
            if wanted != "STRICT_PACK":
                raise ValueError(f"topology_strategy: label {label!r} can only be 'STRICT_PACK', got {wanted!r}.")
        if len(rest) > 1:
            raise ValueError(f"topology_strategy takes one label besides {_NODE_LABEL!r}, got {topology!r}.")
        label = next(iter(rest), "")
    else:
        label = ""
    if strategy is None:
        strategy = "PACK"
    if strategy not in _STRATEGIES:
        raise ValueError(f"Invalid placement group strategy {strategy!r}; valid ones are {sorted(_STRATEGIES)}.")
    return strategy, label


def _checked_selectors(selectors: Any, count: int) -> list[dict[str, str]]:
    if selectors is None:
        return [{} for _ in range(count)]
    if not isinstance(selectors, list) or len(selectors) != count:
        raise ValueError(f"bundle_label_selector must be a list with one selector for each of the {count} bundle(s).")
    for selector in selectors:
        if not isinstance(selector, dict) or not all(isinstance(text, str) for text in (*selector, *selector.values())):
            raise ValueError(f"A label selector must be a dict of strings, got {selector!r}.")
        opts.COMMON["label_selector"].validate("bundle_label_selector", selector)
    return [dict(selector) for selector in selectors]
