"""Which accelerators a task may see."""

from __future__ import annotations

import os
from typing import Any

_CUDA = "CUDA_VISIBLE_DEVICES"
_PRESET = os.environ.get(_CUDA)  # of the node, before any task narrowed it


def ids_of(instances: dict[str, list[tuple[int, float]]]) -> dict[str, list[Any]]:
    """Resource -> ids of the instances assigned; entries (strings) of a preset CUDA_VISIBLE_DEVICES."""
    made: dict[str, list[Any]] = {}
    for resource, assigned in instances.items():
        ids: list[Any] = [index for index, _ in assigned]
        if resource == "GPU" and _PRESET:
            preset = _PRESET.split(",")
            ids = [preset[i] if i < len(preset) else str(i) for i in ids]
        made[resource] = ids
    return made


class Visibility:
    """Sets CUDA_VISIBLE_DEVICES for the task at hand; touches it only once a task of this process was given GPUs."""

    def __init__(self) -> None:
        self._narrowed = False

    def apply(self, accelerator_ids: dict[str, list[Any]]) -> None:
        gpus = accelerator_ids.get("GPU")
        if gpus:
            self._narrowed = True
            os.environ[_CUDA] = ",".join(map(str, gpus))
        elif self._narrowed:
            os.environ[_CUDA] = ""
