"""Accelerators: what a node has of them, and which of them a task may see.

Each kind is an `Accelerator` (in `kinds`): its resource, the environment variable that its driver libraries look at,
and how to count the devices. `detect` says what a new node offers, `ids_of` and `Visibility` serve the workers.
"""

from ray._runtime.accelerators.detection import Detected, detect
from ray._runtime.accelerators.kinds import ALL, RESOURCES, Accelerator
from ray._runtime.accelerators.tpu_slice import POD_TYPE_LABEL as TPU_POD_TYPE_LABEL
from ray._runtime.accelerators.tpu_slice import SLICE_NAME_LABEL as TPU_SLICE_NAME_LABEL
from ray._runtime.accelerators.tpu_slice import TOPOLOGY_LABEL as TPU_TOPOLOGY_LABEL
from ray._runtime.accelerators.tpu_slice import slice_labels, slice_resources
from ray._runtime.accelerators.visibility import Visibility, ids_of

__all__ = [
    "ALL",
    "RESOURCES",
    "TPU_POD_TYPE_LABEL",
    "TPU_SLICE_NAME_LABEL",
    "TPU_TOPOLOGY_LABEL",
    "Accelerator",
    "Detected",
    "Visibility",
    "detect",
    "ids_of",
    "slice_labels",
    "slice_resources",
]
