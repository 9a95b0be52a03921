"""What a host says of the slice of TPUs that it is part of, by the environment that GKE sets."""

from __future__ import annotations

import os
from collections.abc import Mapping

SLICE_NAME_LABEL = "ray.io/tpu-slice-name"
WORKER_ID_LABEL = "ray.io/tpu-worker-id"
TOPOLOGY_LABEL = "ray.io/tpu-topology"
POD_TYPE_LABEL = "ray.io/tpu-pod-type"

_LABELS = {
    "TPU_NAME": SLICE_NAME_LABEL,
    "TPU_WORKER_ID": WORKER_ID_LABEL,
    "TPU_TOPOLOGY": TOPOLOGY_LABEL,
    "TPU_ACCELERATOR_TYPE": POD_TYPE_LABEL,
}


def slice_labels(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The labels of the node; none where it is part of no slice."""
    return {label: environ[name] for name, label in _LABELS.items() if environ.get(name)}


def slice_resources(environ: Mapping[str, str] = os.environ) -> dict[str, float]:
    """Resources that the host has for its place in the slice: its name everywhere, and the head's on the first one."""
    labels = slice_labels(environ)
    if SLICE_NAME_LABEL not in labels or WORKER_ID_LABEL not in labels:
        return {}
    found = {labels[SLICE_NAME_LABEL]: 1.0}
    if labels[WORKER_ID_LABEL] == "0" and POD_TYPE_LABEL in labels:
        found[f"TPU-{labels[POD_TYPE_LABEL]}-head"] = 1.0
    return found
