"""Which accelerators the task at hand may see: the ids that it was given, and the environment variables for them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ray._runtime.accelerators.detection import listed
from ray._runtime.accelerators.kinds import ALL, RESOURCES, Accelerator

_OVERRIDE_ON_ZERO = "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"
_PRESET = {kind.variable: listed(kind.variable) for kind in ALL}  # of the node, before any task narrowed it


def _make_of(resource: str) -> tuple[Accelerator, bool]:
    """The make of a resource that this machine has, and whether it has any: else the first, which is the common one."""
    kinds = [kind for kind in ALL if kind.resource == resource]
    for kind in kinds:
        if _PRESET[kind.variable] is not None or kind.count(Path("/")):
            return kind, True
    return kinds[0], False


# Looked up once, in the process that the workers are forked from.
_MAKES = {resource: _make_of(resource) for resource in RESOURCES}


def ids_of(instances: dict[str, list[tuple[int, float]]]) -> dict[str, list[Any]]:
    """Resource -> ids of the instances assigned; strings of CUDA_VISIBLE_DEVICES and its like, where set."""
    made: dict[str, list[Any]] = {}
    for resource, assigned in instances.items():
        ids: list[Any] = [index for index, _ in assigned]
        make = _MAKES.get(resource)
        preset = _PRESET[make[0].variable] if make is not None else None
        if preset:
            ids = [preset[i] if i < len(preset) else str(i) for i in ids]
        made[resource] = ids
    return made


def _set(kind: Accelerator, ids: list[Any]) -> None:
    if any(os.environ.get(name, "0") not in ("", "0") for name in kind.keep_variable):
        return
    if not ids and os.environ.get(_OVERRIDE_ON_ZERO) == "0":
        return
    text = ",".join(map(str, ids))
    os.environ[kind.variable] = f"level_zero:{text}" if kind.variable == "ONEAPI_DEVICE_SELECTOR" else text


class Visibility:
    """Sets the variables for the task at hand: to what it was given of each resource, and to nothing of the others.

    Variables of accelerators that the machine does not have are left alone until a task is given some.
    """

    def __init__(self) -> None:
        self._narrowed = {resource for resource, (_, present) in _MAKES.items() if present}
        self._shown: dict[str, list[Any]] | None = None if self._narrowed else {}

    def apply(self, accelerator_ids: dict[str, list[Any]]) -> None:
        """Makes `accelerator_ids` visible, and no other."""
        if accelerator_ids == self._shown:
            return
        self._shown = accelerator_ids
        self._narrowed |= accelerator_ids.keys() & _MAKES.keys()
        for resource in self._narrowed:
            _set(_MAKES[resource][0], accelerator_ids.get(resource, []))
