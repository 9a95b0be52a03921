"""Accelerators: what a node has of them, and which of them a task may see.

Each kind is an `Accelerator` (in `kinds`): its resource, the environment variable that its driver libraries look at,
and how to count the devices. `detect` says what a new node offers, `ids_of` and `Visibility` serve the workers.
"""

from ray._runtime.accelerators.detection import Detected, detect
from ray._runtime.accelerators.kinds import ALL, RESOURCES, Accelerator
from ray._runtime.accelerators.visibility import Visibility, ids_of

__all__ = ["ALL", "RESOURCES", "Accelerator", "Detected", "Visibility", "detect", "ids_of"]
