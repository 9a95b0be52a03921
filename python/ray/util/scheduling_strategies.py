"""Scheduling strategies: where a task or actor should run."""

from __future__ import annotations

from typing import Any


class PlacementGroupSchedulingStrategy:
    """Runs in the resources of a placement group; bundle index -1 means any bundle.

    None for the group means none: not even that of the task that submits, where it would be handed on.
    """

    def __init__(
        self,
        placement_group: Any,
        placement_group_bundle_index: int = -1,
        placement_group_capture_child_tasks: bool | None = None,
    ) -> None:
        self.placement_group = placement_group
        self.placement_group_bundle_index = placement_group_bundle_index
        self.placement_group_capture_child_tasks = placement_group_capture_child_tasks


class NodeAffinitySchedulingStrategy:
    """Runs on one node. With `soft`, elsewhere if that node is dead or cannot run it.

    Raises:
        TypeError: `node_id` is neither text nor bytes.
        ValueError: `node_id` is not the hex id of a node, or the flags contradict each other.
    """

    def __init__(
        self, node_id: str | bytes, soft: bool, _spill_on_unavailable: bool = False, _fail_on_unavailable: bool = False
    ) -> None:
        if isinstance(node_id, bytes):
            node_id = node_id.hex()
        if not isinstance(node_id, str):
            raise TypeError(f"node_id must be the hex id of a node, got {node_id!r}.")
        digits = node_id.lower()
        if len(digits) != 56 or any(c not in "0123456789abcdef" for c in digits) or set(digits) == {"f"}:
            raise ValueError(f"Invalid node_id: {node_id!r} (expected 56 hexadecimal digits).")
        if _spill_on_unavailable and not soft:
            raise ValueError("_spill_on_unavailable needs soft=True.")
        if _fail_on_unavailable and soft:
            raise ValueError("_fail_on_unavailable needs soft=False.")
        self.node_id = node_id
        self.soft = soft
        self._spill_on_unavailable = _spill_on_unavailable
        self._fail_on_unavailable = _fail_on_unavailable


def _label_values(operator: str, values: tuple[str, ...]) -> list[str]:
    if not values or not all(isinstance(value, str) for value in values):
        raise ValueError(f"The values of {operator} must be one or more strings, got {values!r}.")
    return list(values)


class In:
    """The label has one of these values.

    Raises:
        ValueError: no value, or one that is not a string.
    """

    def __init__(self, *values: str) -> None:
        self.values = _label_values("In", values)


class NotIn:
    """The label is missing or has none of these values.

    Raises:
        ValueError: no value, or one that is not a string.
    """

    def __init__(self, *values: str) -> None:
        self.values = _label_values("NotIn", values)


class Exists:
    """The label is there."""


class DoesNotExist:
    """The label is not there."""


class NodeLabelSchedulingStrategy:
    """Runs on nodes whose labels fulfil `hard`, preferably those that fulfil `soft` too.

    Raises:
        ValueError: both are empty, or one is not a dict of label names and operators.
    """

    def __init__(self, hard: dict[str, Any] | None, *, soft: dict[str, Any] | None = None) -> None:
        if not hard and not soft:
            raise ValueError("The `hard` and `soft` parameter of NodeLabelSchedulingStrategy cannot both be empty.")
        self.hard = _label_conditions("hard", hard)
        self.soft = _label_conditions("soft", soft)


def _label_conditions(parameter: str, conditions: dict[str, Any] | None) -> dict[str, Any]:
    if conditions is None:
        return {}
    if not isinstance(conditions, dict):
        raise ValueError(f"The {parameter} parameter must be a dict, e.g. {{'zone': In('a')}}, got {conditions!r}.")
    for key, condition in conditions.items():
        if not isinstance(key, str):
            raise ValueError(f"The keys of the {parameter} parameter must be strings, got {key!r}.")
        if not isinstance(condition, (In, NotIn, Exists, DoesNotExist)):
            raise ValueError(
                f"The value of {key!r} in the {parameter} parameter must be In, NotIn, Exists or DoesNotExist, "
                f"got {condition!r}."
            )
    return conditions
