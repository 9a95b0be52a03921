"""From the options of a task or actor to the fields that say where it may run."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from ray._deprecation import RayDeprecationWarning
from ray._runtime.session import Session

if TYPE_CHECKING:
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

_SPREAD, _AFFINITY, _GROUP, _LABELS = 1, 2, 3, 4  # StrategyKind of types.proto


def inherits(options: dict[str, Any]) -> bool:
    """Whether these options leave it to the submitting task's placement group: they name neither strategy nor group."""
    return options.get("scheduling_strategy") is None and options.get("placement_group", "default") == "default"


def fields(
    session: Session, options: dict[str, Any], resources: dict[str, float], *, captured: bytes = b""
) -> dict[str, Any]:
    """Fields of `TemplateOptions` for options that were validated.

    Args:
        resources: what has to fit into one bundle, where a placement group is used.
        captured: the group that the submitting task hands on to its children; used if the options allow it.

    Raises:
        TypeError: the group of a strategy is none.
        ValueError: no bundle of the placement group fits, it has no such bundle, or a bundle is named without a group.
    """
    from ray.util.placement_group import PlacementGroup
    from ray.util.scheduling_strategies import (
        NodeAffinitySchedulingStrategy,
        NodeLabelSchedulingStrategy,
        PlacementGroupSchedulingStrategy,
    )

    made: dict[str, Any] = {}
    strategy = _deprecated_group(options) or options.get("scheduling_strategy")
    index = options.get("placement_group_bundle_index", -1)
    selectors = [dict(s) for s in _selectors(options)]
    if isinstance(strategy, NodeAffinitySchedulingStrategy):
        made = {
            "strategy_kind": _AFFINITY,
            "strategy_node_id": bytes.fromhex(strategy.node_id),
            "strategy_soft": strategy.soft,
            "strategy_spill_on_unavailable": strategy._spill_on_unavailable,
            "strategy_fail_on_unavailable": strategy._fail_on_unavailable,
        }
    elif isinstance(strategy, NodeLabelSchedulingStrategy):
        hard = {key: _label_text(key, value) for key, value in strategy.hard.items()}
        selectors = [{**selector, **hard} for selector in selectors or [{}]]
        preferred = {key: _label_text(key, value) for key, value in strategy.soft.items()}
        made = {"strategy_kind": _LABELS, "strategy_preferred": preferred}
    elif isinstance(strategy, PlacementGroupSchedulingStrategy):
        group, index = strategy.placement_group, strategy.placement_group_bundle_index
        if group is not None and not isinstance(group, PlacementGroup):
            raise TypeError(f"The group of PlacementGroupSchedulingStrategy must be a PlacementGroup, got {group!r}.")
        if group is not None and not group.is_empty:
            _check_fits(group.id.hex(), group.bundle_specs, index, resources)
            made = _in_group(group.id.binary(), index, bool(strategy.placement_group_capture_child_tasks))
    elif strategy == "SPREAD":
        made = {"strategy_kind": _SPREAD}
    elif captured and inherits(options):
        _check_fits(captured.hex(), session.bundle_specs(captured), index, resources)
        made = _in_group(captured, index, True)
    if index != -1 and made.get("strategy_kind") != _GROUP:
        raise ValueError(f"Without a placement group its bundle index must be -1, got {index!r}.")
    if any(selectors):
        made["strategy_selectors"] = selectors
    if options.get("priority"):
        made["priority"] = options["priority"]
    return made


def _in_group(group_id: bytes, index: int, capture: bool) -> dict[str, Any]:
    return {
        "strategy_kind": _GROUP,
        "strategy_placement_group_id": group_id,
        "strategy_bundle_index": index,
        "strategy_capture_child_tasks": capture,
    }


def _selectors(options: dict[str, Any]) -> list[dict[str, str]]:
    first = options.get("label_selector")
    others = [entry["label_selector"] or {} for entry in options.get("fallback_strategy") or []]
    return [first, *others] if first else []


def _label_text(key: str, value: Any) -> str:
    from ray.util.scheduling_strategies import DoesNotExist, Exists, In, NotIn

    if isinstance(value, In):
        return f"in({','.join(value.values)})"
    if isinstance(value, NotIn):
        return f"!in({','.join(value.values)})"
    if isinstance(value, Exists):
        return "*"
    if isinstance(value, DoesNotExist):
        return "!*"
    raise ValueError(f"Label {key!r}: must be In, NotIn, Exists or DoesNotExist, got {value!r}.")


def _deprecated_group(options: dict[str, Any]) -> PlacementGroupSchedulingStrategy | None:
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    group = options.get("placement_group", "default")
    if group is None or isinstance(group, str):
        return None
    warnings.warn(
        "The options placement_group, placement_group_bundle_index and placement_group_capture_child_tasks are "
        "deprecated; use scheduling_strategy=PlacementGroupSchedulingStrategy(...).",
        RayDeprecationWarning,
        stacklevel=5,
    )
    return PlacementGroupSchedulingStrategy(
        group, options.get("placement_group_bundle_index", -1), options.get("placement_group_capture_child_tasks")
    )


def _check_fits(name: str, bundles: list[dict[str, float]], index: int, resources: dict[str, float]) -> None:
    if not -1 <= index < len(bundles):
        raise ValueError(
            f"placement group bundle index {index} is invalid: group {name} has {len(bundles)} bundle(s), "
            "and -1 means any of them."
        )
    usable = bundles if index == -1 else [bundles[index]]
    if not any(all(bundle.get(key, 0) >= amount for key, amount in resources.items() if amount) for bundle in usable):
        raise ValueError(
            f"Cannot schedule with the placement group {name}: the resources {resources} do not fit into "
            f"{'any bundle' if index == -1 else f'bundle {index}'} of {bundles}."
        )
