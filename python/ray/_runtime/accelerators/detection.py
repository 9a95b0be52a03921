"""What a new node offers of accelerators, as resources."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from ray._runtime.accelerators.kinds import ALL, Accelerator

_NOTHING = ("", "-1", "NoDevFiles", "void", "none")


class Detected(NamedTuple):
    """Accelerators of a node: resource -> number, and the kinds, for `accelerator_type`."""

    counts: dict[str, int]
    kinds: list[str]


def listed(variable: str, environ: Mapping[str, str] = os.environ) -> list[str] | None:
    """The entries of a variable that lists visible devices; None if it is not set."""
    text = environ.get(variable)
    if text is None:
        return None
    # ONEAPI_DEVICE_SELECTOR has a prefix: "level_zero:0,1".
    entries = [entry.strip() for entry in text.rpartition(":")[2].split(",")]
    return [] if entries[0] in _NOTHING else entries


def visible(kind: Accelerator, root: Path, environ: Mapping[str, str] = os.environ) -> int:
    """Devices that are there and that the environment of this process lets it see."""
    present = kind.count(root)
    entries = listed(kind.variable, environ) if present else None
    return present if entries is None else min(present, len(entries))


def detect(given: Mapping[str, float], root: Path = Path("/")) -> Detected:
    """What is there, but for what the user said.

    Args:
        given: amounts by resource that the user set; not looked for, but their type is.
    """
    counts: dict[str, int] = {}
    kinds: list[str] = []
    for kind in ALL:
        if kind.resource in counts:
            continue
        wanted = given.get(kind.resource)
        if wanted is not None and wanted <= 0:
            continue
        found = visible(kind, root)
        if not found:
            continue
        counts[kind.resource] = found
        model = kind.kind(root)
        if model is not None:
            kinds.append(model)
    return Detected({resource: n for resource, n in counts.items() if given.get(resource) is None}, kinds)
