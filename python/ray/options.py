"""Options of tasks, actors and methods: what is allowed, and what it becomes.

A dictionary of options is checked once, where the user gives it: an unknown key is a ValueError that lists the valid
ones, a wrong type a TypeError, a bad value a ValueError. The tables here are the single place that knows an option.
Source: the public option tables of Ray 2.60.
"""

from __future__ import annotations

import math
import os
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ray._deprecation import RayDeprecationWarning

RESOURCE_UNIT = 10_000  # the core counts in units of 1/10000
RUNTIME_ENV_FIELDS = ("env_vars",)
NODE_ID_LABEL = "ray.io/node-id"
MIN_STORE_BYTES = 75 << 20

_LABEL_NAME = r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
# Compiled at their first use: together they are more than a millisecond of `import ray`.
_LABEL_KEY = rf"([a-z0-9]([a-z0-9.-]{{0,251}}[a-z0-9])?/)?{_LABEL_NAME}"
_LABEL_VALUE = rf"(!?{_LABEL_NAME})?|!?in\(\s*{_LABEL_NAME}(\s*,\s*{_LABEL_NAME})*\s*\)"


_NONE = type(None)


def _type_name(types: tuple[type, ...]) -> str:
    return " or ".join("None" if t is type(None) else t.__name__ for t in types)


@dataclass(frozen=True)
class Option:
    """One option: the types it takes and a check that returns what is wrong with a value, or None."""

    types: tuple[type, ...]
    check: Callable[[Any], str | None] | None = None

    def validate(self, name: str, value: Any) -> None:
        if not isinstance(value, self.types) or (isinstance(value, bool) and bool not in self.types):
            raise TypeError(
                f"The type of keyword {name!r} must be {_type_name(self.types)}, "
                f"but received type {type(value)} ({value!r})."
            )
        if self.check is not None and value is not None:
            problem = self.check(value)
            if problem:
                raise ValueError(f"Option {name!r}: {problem}, got {value!r}.")


def _at_least(low: int) -> Callable[[Any], str | None]:
    return lambda v: f"must be an integer >= {low}" if v < low else None


def _amount(v: Any) -> str | None:
    if v < 0:
        return "the quantity must not be negative"
    if not math.isfinite(v):
        return "the quantity must be finite"
    if v and not whole_units(v):
        return f"the precision of the quantity must not go beyond {1 / RESOURCE_UNIT}"
    return None


def whole_units(amount: float) -> float:
    """The amount in whole units of the core, rounded down: n tasks that ask for 1/n of something fit beside each other.

    REQUIRES: finite, >= 0.
    """
    # 0.29 is a little less than 29/100 as a double, and has 2900 units all the same.
    return float(amount) if amount == int(amount) else math.floor(amount * RESOURCE_UNIT + 1e-6) / RESOURCE_UNIT


def _gpu_amount(v: Any) -> str | None:
    if v > 1 and v != int(v):
        return "quantities above 1 must be whole numbers"
    return _amount(v)


def _custom_resources(v: dict[str, Any]) -> str | None:
    for key, amount in v.items():
        if not isinstance(key, str) or not key:
            return "keys must be non-empty strings"
        if key in ("CPU", "GPU"):
            return f"use the option num_{key.lower()}s instead of the resource {key!r}"
        if key in ("memory", "object_store_memory"):
            return f"use the option {key} instead of the resource {key!r}"
        if key == "bundle":
            return "the resource 'bundle' is reserved"
        if isinstance(amount, bool) or not isinstance(amount, (int, float)):
            raise TypeError(f"Option 'resources': the quantity of {key!r} must be a number, got {amount!r}.")
        problem = _amount(amount)
        if problem:
            return f"resource {key!r}: {problem}"
    return None


def _label_selector(v: dict[str, Any]) -> str | None:
    for key, value in v.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise TypeError(f"A label selector must be a dict of strings, got {key!r}: {value!r}.")
        if not re.fullmatch(_LABEL_KEY, key):
            return f"{key!r} is not a valid label key"
        if not re.fullmatch(_LABEL_VALUE, value):
            return f"{value!r} is not a valid label condition (allowed: 'v', '!v', 'in(a,b)', '!in(a,b)', '')"
    return None


def check_node_labels(labels: Any, what: str = "labels") -> None:
    """Labels of a node, as `ray.init` and `ray start` take them.

    Raises:
        TypeError: not a dict of strings.
        ValueError: a key or a value that no selector could name, or the label that every node has for its id.
    """
    if not isinstance(labels, dict):
        raise TypeError(f"{what} must be a dict of strings, got {labels!r}.")
    for key, value in labels.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise TypeError(f"{what} must be a dict of strings, got {key!r}: {value!r}.")
        if not re.fullmatch(_LABEL_KEY, key):
            raise ValueError(f"{what}: {key!r} is not a valid label key.")
        if key == NODE_ID_LABEL:
            raise ValueError(f"{what}: {key!r} is the node's id, which cannot be given.")
        if value and not re.fullmatch(_LABEL_NAME, value):
            raise ValueError(f"{what}: {value!r} is not a valid value of a label.")


def check_node_sizes(given: dict[str, Any]) -> None:
    """CPUs, GPUs and the object store of a node, as `ray.init` and `Cluster.add_node` take them; None is none given.

    Raises:
        TypeError: a store whose size is no number.
        ValueError: CPUs or GPUs that are not a whole number, a store that is too small or larger than the memory.
    """
    for name in ("num_cpus", "num_gpus"):
        value = given.get(name)
        if value is not None and (
            isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0 or value != int(value)
        ):
            raise ValueError(f"{name} must be a whole number >= 0, got {value!r}.")
    store = given.get("object_store_memory")
    if store is None:
        return
    if isinstance(store, bool) or not isinstance(store, (int, float)):
        raise TypeError(f"object_store_memory must be a number of bytes, got {store!r}.")
    if store < MIN_STORE_BYTES:
        raise ValueError(f"object_store_memory must be at least {MIN_STORE_BYTES} bytes, got {store!r}.")
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if store > total:
        raise ValueError(f"object_store_memory is {store!r} bytes, but this machine has only {total}.")


def check_node_resources(resources: Any) -> None:
    """Custom resources of a node, as `ray.init` and `Cluster.add_node` take them.

    Raises:
        TypeError: not a dict of numbers.
        ValueError: an amount that is not a whole number, negative or too large.
        AssertionError: a resource that has an argument of its own.
    """
    if not isinstance(resources, dict):
        raise TypeError(f"resources must be a dict, got {resources!r}.")
    reserved = {"CPU", "GPU", "memory", "object_store_memory"} & set(resources)
    if reserved:
        raise AssertionError(f"Give {sorted(reserved)} by the arguments of their own, not in `resources`.")
    for key, value in resources.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"The quantity of resource {key!r} must be a number, got {value!r}.")
        if not 0 <= value <= 1e14 or value != int(value):
            raise ValueError(
                f"Totals of custom resources must be whole numbers from 0 to 1e14, got {key!r}: {value!r}."
            )


def _fallback(v: list[Any]) -> str | None:
    for entry in v:
        if not isinstance(entry, dict) or set(entry) != {"label_selector"}:
            return "must be a list of dicts with the single key 'label_selector'"
        selector = entry["label_selector"]
        if not isinstance(selector, (dict, _NONE)):
            return f"the label selector must be a dict or None, not {selector!r}"
        problem = _label_selector(selector or {})
        if problem:
            return problem
    return None


def _exceptions(v: Any) -> str | None:
    if isinstance(v, (list, tuple)) and not all(isinstance(e, type) and issubclass(e, Exception) for e in v):
        return "must be a boolean or a list of exception classes"
    return None


def _num_returns(v: Any) -> str | None:
    if isinstance(v, str):
        return None if v in ("dynamic", "streaming") else "must be an integer >= 0, 'dynamic' or 'streaming'"
    return "must be an integer >= 0, 'dynamic' or 'streaming'" if v < 0 else None


def _strategy(v: Any) -> str | None:
    if isinstance(v, str) and v not in ("DEFAULT", "SPREAD"):
        return "must be 'DEFAULT', 'SPREAD' or a scheduling strategy object"
    return None


def _placement_group(v: Any) -> str | None:
    from ray.util.placement_group import PlacementGroup

    if not isinstance(v, (str, PlacementGroup)):
        raise TypeError(f"Option 'placement_group' must be a PlacementGroup, None or 'default', got {v!r}.")
    return None if v == "default" or isinstance(v, PlacementGroup) else "must be a PlacementGroup, None or 'default'"


def _priority(v: int) -> str | None:
    return None if -(1 << 31) <= v < 1 << 31 else "must fit into 32 bits"


def _backpressure(v: int) -> str | None:
    return None if v == -1 or v > 0 else "must be > 0, or -1 for no limit"


def _non_empty(v: str) -> str | None:
    return None if v else "must not be empty"


def _lifetime(v: str) -> str | None:
    return None if v in ("detached", "non_detached") else "must be None, 'detached' or 'non_detached'"


def _positive(v: float) -> str | None:
    return None if v > 0 and math.isfinite(v) else "must be > 0 and finite"


def _object_store_memory(_: Any) -> str | None:
    return "is not supported for tasks"


def _runtime_env(v: dict[str, Any]) -> str | None:
    for field, content in v.items():
        if field == "config":  # about the making of an environment; there is nothing to be made
            continue
        if field not in RUNTIME_ENV_FIELDS:
            return f"the field {field!r} is not supported, only {', '.join(map(repr, RUNTIME_ENV_FIELDS))} is"
        if content is None:
            continue
        if not isinstance(content, dict):
            raise TypeError(f"runtime_env['env_vars'] must be a dict of strings, got {content!r}.")
        for name, value in content.items():
            if not isinstance(name, str) or not isinstance(value, str):
                raise TypeError(f"runtime_env['env_vars'] must map strings to strings, got {name!r}: {value!r}.")
            if not name or "=" in name or "\0" in name + value:
                return f"{name!r}: {value!r} cannot be an environment variable"
    return None


def check_runtime_env(env: Any) -> None:
    """Checks the runtime environment of a job as that of a task. Raises TypeError, ValueError."""
    COMMON["runtime_env"].validate("runtime_env", env)


def _strategy_types() -> tuple[type, ...]:
    from ray.util.scheduling_strategies import (
        NodeAffinitySchedulingStrategy,
        NodeLabelSchedulingStrategy,
        PlacementGroupSchedulingStrategy,
    )

    return (_NONE, str, PlacementGroupSchedulingStrategy, NodeAffinitySchedulingStrategy, NodeLabelSchedulingStrategy)


_NUMBER = (int, float, _NONE)
_NO_TRANSPORT = "tensors have no transport of their own here: they travel as all other objects do ('object_store')"
COMMON: dict[str, Option] = {
    "num_cpus": Option(_NUMBER, _amount),
    "num_gpus": Option(_NUMBER, _gpu_amount),
    "resources": Option((dict, _NONE), _custom_resources),
    "memory": Option(_NUMBER, lambda v: "must not be negative" if v < 0 else None),
    "accelerator_type": Option((str, _NONE)),
    "runtime_env": Option((dict, _NONE), _runtime_env),
    "scheduling_strategy": Option((object,), _strategy),
    "label_selector": Option((dict, _NONE), _label_selector),
    "fallback_strategy": Option((list, _NONE), _fallback),
    "placement_group": Option((object,), _placement_group),
    "placement_group_bundle_index": Option((int,), _at_least(-1)),
    "placement_group_capture_child_tasks": Option((bool, _NONE)),
    "priority": Option((int,), _priority),
    "enable_task_events": Option((bool,)),
    "_labels": Option((dict, _NONE)),
}
TASK: dict[str, Option] = {
    **COMMON,
    "name": Option((str, _NONE)),
    "num_returns": Option((int, str, _NONE), _num_returns),
    "max_calls": Option((int, _NONE), _at_least(0)),
    "max_retries": Option((int, _NONE), _at_least(-1)),
    "retry_exceptions": Option((bool, list, tuple), _exceptions),
    "_generator_backpressure_num_objects": Option((int, _NONE), _backpressure),
    "_num_objects_per_yield": Option((int, _NONE), _at_least(1)),
    "object_store_memory": Option((int, _NONE), _object_store_memory),
    "timeout_s": Option(_NUMBER, _positive),
}
ACTOR: dict[str, Option] = {
    **COMMON,
    "name": Option((str, _NONE), _non_empty),
    "namespace": Option((str, _NONE), _non_empty),
    "lifetime": Option((str, _NONE), _lifetime),
    "get_if_exists": Option((bool,)),
    "max_restarts": Option((int, _NONE), _at_least(-1)),
    "max_task_retries": Option((int, _NONE), _at_least(-1)),
    "max_concurrency": Option((int, _NONE), _at_least(1)),
    "max_pending_calls": Option((int, _NONE), _at_least(-1)),
    "concurrency_groups": Option((dict, list, _NONE)),
    "allow_out_of_order_execution": Option((bool, _NONE)),
    "object_store_memory": Option((int, _NONE), _at_least(0)),
    "enable_tensor_transport": Option((bool, _NONE), lambda v: _NO_TRANSPORT if v else None),
    "_actor_generator_backpressure_num_objects": Option((int, _NONE), _backpressure),
}
METHOD: dict[str, Option] = {
    "name": Option((str, _NONE)),
    "num_returns": Option((int, str, _NONE), _num_returns),
    "concurrency_group": Option((str, _NONE), _non_empty),
    "max_task_retries": Option((int, _NONE), _at_least(-1)),
    "retry_exceptions": Option((bool, list, tuple, _NONE), _exceptions),
    "_generator_backpressure_num_objects": Option((int, _NONE), _backpressure),
    "enable_task_events": Option((bool, _NONE)),
    "tensor_transport": Option((str, _NONE), lambda v: None if v.lower() == "object_store" else _NO_TRANSPORT),
    "timeout_s": Option(_NUMBER, _positive),
    "_labels": Option((dict, _NONE)),
}
# What the decorator takes, but not .options().
METHOD_DECORATOR: dict[str, Option] = {
    **{name: option for name, option in METHOD.items() if name not in ("name", "_labels")},
    "_num_objects_per_yield": TASK["_num_objects_per_yield"],
}
_DECORATOR_ONLY = {"max_calls": TASK, "_num_objects_per_yield": TASK, "concurrency_groups": ACTOR}


def validate(options: dict[str, Any], table: dict[str, Option], *, what: str, in_options: bool = False) -> None:
    """Checks `options` against a table.

    Args:
        what: "remote functions", "actors" or "methods", for the message.
        in_options: the call is `.options(...)`, which does not take all that the decorator takes.

    Raises:
        ValueError: unknown key or value out of range.
        TypeError: wrong type.
    """
    for name, value in options.items():
        option = table.get(name)
        if option is None:
            raise ValueError(f"Invalid option keyword {name!r} for {what}. Valid ones are {sorted(table)}.")
        option.validate(name, value)
        if in_options and _DECORATOR_ONLY.get(name) is table:
            raise ValueError(f"Option {name!r} can only be given to the decorator @ray.remote, not to .options().")
    strategy = options.get("scheduling_strategy")
    if strategy is not None and not isinstance(strategy, str) and not isinstance(strategy, _strategy_types()):
        raise TypeError(
            "The type of keyword 'scheduling_strategy' must be None, 'DEFAULT', 'SPREAD', "
            "PlacementGroupSchedulingStrategy, NodeAffinitySchedulingStrategy or NodeLabelSchedulingStrategy, "
            f"but received type {type(strategy)} ({strategy!r})."
        )
    if strategy is not None and options.get("placement_group") is not None:
        raise ValueError("Give either scheduling_strategy or the deprecated placement_group options, not both.")


def validate_actor(options: dict[str, Any], *, in_options: bool = False) -> None:
    """Checks the options of an actor class, alone and in combination."""
    validate(options, ACTOR, what="actors", in_options=in_options)
    if options.get("get_if_exists") and not options.get("name"):
        raise ValueError("The actor name must be specified to use `get_if_exists`.")


def warn_of_deprecated(options: dict[str, Any]) -> None:
    """Warns of options of an actor class that have no effect any more."""
    if options.get("object_store_memory") is not None:
        warnings.warn(
            "The option 'object_store_memory' of actors has no effect and is deprecated.",
            RayDeprecationWarning,
            stacklevel=4,
        )


def task_resources(options: dict[str, Any]) -> dict[str, float]:
    """The resources that a task holds while it runs: 1 CPU unless told otherwise."""
    resources = _named_resources(options)
    cpus = options.get("num_cpus")
    resources["CPU"] = 1.0 if cpus is None else whole_units(cpus)
    return {k: v for k, v in resources.items() if v}


def actor_resources(options: dict[str, Any]) -> tuple[dict[str, float], dict[str, float]]:
    """What an actor needs to be placed and what it keeps while it lives.

    Without any resource it needs one CPU to be placed and keeps none; with some, it keeps what it was given, and
    one CPU unless `num_cpus` says otherwise.
    """
    resources = _named_resources(options)
    cpus = options.get("num_cpus")
    if cpus is not None:
        resources["CPU"] = whole_units(cpus)
    elif any(name != "memory" for name in resources):
        resources["CPU"] = 1.0
    kept = {k: v for k, v in resources.items() if v}
    if cpus is None and "CPU" not in kept:
        return {**kept, "CPU": 1.0}, kept
    return dict(kept), kept


def _named_resources(options: dict[str, Any]) -> dict[str, float]:
    resources = {k: whole_units(v) for k, v in (options.get("resources") or {}).items()}
    if options.get("num_gpus"):
        resources["GPU"] = whole_units(options["num_gpus"])
    if options.get("memory"):
        resources["memory"] = float(int(options["memory"]))
    if options.get("accelerator_type"):
        resources[f"accelerator_type:{options['accelerator_type']}"] = 0.001
    return resources


def check_generator(num_returns: int | str | None, is_generator: bool) -> None:
    """Raises ValueError for an option of generators on something that is not a generator function."""
    if num_returns in ("streaming", "dynamic") and not is_generator:
        raise ValueError(f"num_returns={num_returns!r} is only allowed for generator functions.")


def num_returns_code(num_returns: int | str | None, is_generator: bool) -> int:
    """The number on the wire: -1 dynamic, -2 streaming.

    Raises:
        ValueError: a generator option on something that is not a generator function.
    """
    if num_returns is None:
        return -2 if is_generator else 1
    if num_returns in ("streaming", "dynamic"):
        check_generator(num_returns, is_generator)
        if num_returns == "streaming":
            return -2
        warnings.warn('num_returns="dynamic" is deprecated; use "streaming".', RayDeprecationWarning, stacklevel=4)
        return -1
    return int(num_returns)


def objects_per_yield(options: dict[str, Any]) -> int:
    """The number on the wire: 0 where what is yielded is one item."""
    wanted = options.get("_num_objects_per_yield") or 1
    return 0 if wanted == 1 else int(wanted)
