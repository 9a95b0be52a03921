"""The kinds of accelerators, one entry each. A new kind is a new entry, and its name in NodeResources of the core.

Devices are counted from the files that their drivers make. Nothing is imported and no command is run: this happens in
every `ray.init`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Accelerator:
    """One kind of accelerator.

    Attributes:
        resource: under which it is scheduled.
        variable: lists the devices that a process may use, by index or name.
        keep_variable: environment variables that, when set, forbid us to touch `variable`.
        count: devices under a root folder ("/", or a copy for tests).
        kind: the `accelerator_type` of the devices under a root, or None.
    """

    resource: str
    variable: str
    keep_variable: tuple[str, ...]
    count: Callable[[Path], int]
    kind: Callable[[Path], str | None] = lambda root: None


def _files(root: Path, folder: str, pattern: str) -> list[str]:
    matcher = re.compile(pattern)
    try:
        return sorted(name for name in os.listdir(root / folder) if matcher.fullmatch(name))
    except OSError:
        return []


def _devices(pattern: str, folder: str = "dev") -> Callable[[Path], int]:
    return lambda root: len(_files(root, folder, pattern))


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


# --- NVIDIA


def _nvidia_count(root: Path) -> int:
    known = _files(root, "proc/driver/nvidia/gpus", r".+")
    return len(known) or len(_files(root, "dev", r"nvidia\d+"))


def _nvidia_kind(root: Path) -> str | None:
    """The model's short name: "NVIDIA A100-SXM4-80GB" is an A100, "Tesla V100-SXM2-16GB" a V100."""
    for name in _files(root, "proc/driver/nvidia/gpus", r".+"):
        found = re.search(r"Model:\s*(.+)", _read(root / "proc/driver/nvidia/gpus" / name / "information"))
        if found:
            words = [word for word in re.split(r"[\s-]+", found[1]) if word not in ("NVIDIA", "Tesla", "Quadro")]
            return words[0] if words else None
    return None


# --- AMD and Intel GPUs

# Compute devices of AMD are nodes of the KFD topology with SIMD units.
_AMD_NODES = "sys/class/kfd/kfd/topology/nodes"
_AMD_KINDS = {
    "0x738c": "AMD-Instinct-MI100",
    "0x740f": "AMD-Instinct-MI210",
    "0x7408": "AMD-Instinct-MI250X-MI250",
    "0x740c": "AMD-Instinct-MI250X-MI250",
    "0x74a0": "AMD-Instinct-MI300A",
    "0x74a1": "AMD-Instinct-MI300X-OAM",
    "0x74b5": "AMD-Instinct-MI300X-HF",
    "0x74b9": "AMD-Instinct-MI325X-OAM",
    "0x74a5": "AMD-Instinct-MI325X-OAM",
    "0x75a0": "AMD-Instinct-MI350X-OAM",
    "0x75a3": "AMD-Instinct-MI355X-OAM",
}


def _amd_properties(root: Path) -> list[dict[str, str]]:
    found = []
    for node in _files(root, _AMD_NODES, r"\d+"):
        lines = (line.split(maxsplit=1) for line in _read(root / _AMD_NODES / node / "properties").splitlines())
        properties = {parts[0]: parts[1] for parts in lines if len(parts) == 2}
        if int(properties.get("simd_count", "0")) > 0:
            found.append(properties)
    return found


def _amd_kind(root: Path) -> str | None:
    for properties in _amd_properties(root):
        return _AMD_KINDS.get(hex(int(properties.get("device_id", "0"))))
    return None


_INTEL_VENDOR = "0x8086"
_INTEL_KINDS = {"0x0bd5": "Intel-GPU-Max-1550", "0x0bda": "Intel-GPU-Max-1100"}


def _intel_cards(root: Path) -> list[Path]:
    cards = [root / "sys/class/drm" / name / "device" for name in _files(root, "sys/class/drm", r"card\d+")]
    return [
        card
        for card in cards
        if _read(card / "vendor") == _INTEL_VENDOR and _read(card / "class").startswith(("0x0380", "0x0302"))
    ]


def _intel_kind(root: Path) -> str | None:
    for card in _intel_cards(root):
        return _INTEL_KINDS.get(_read(card / "device"))
    return None


# --- Google TPU


def _tpu_count(root: Path) -> int:
    return len(_files(root, "dev", r"accel\d+")) or (
        len(_files(root, "dev/vfio", r"\d+")) if os.environ.get("TPU_ACCELERATOR_TYPE") else 0
    )


def _tpu_kind(root: Path) -> str | None:
    """From "v4-16" in the environment of GKE: TPU-V4."""
    version = os.environ.get("TPU_ACCELERATOR_TYPE", "").partition("-")[0]
    return f"TPU-{version.upper()}" if re.fullmatch(r"v\d+\w*", version) else None


# --- the others


def _neuron_count(root: Path) -> int:
    """Cores, not devices: the driver says how many each device has; two where it does not."""
    cores = 0
    for name in _files(root, "dev", r"neuron\d+"):
        text = _read(root / "sys/devices/virtual/neuron_device" / name / "core_count")
        cores += int(text) if text.isdigit() else 2
    return cores


def _if_any(kind: str, count: Callable[[Path], int]) -> Callable[[Path], str | None]:
    return lambda root: kind if count(root) else None


def _habana_kind(root: Path) -> str | None:
    for name in _files(root, "dev/accel", r"accel\d+"):
        device = _read(root / "sys/class/accel" / name / "device/device_type")
        return {"GAUDI3": "Intel-GAUDI3", "GAUDI2": "Intel-GAUDI2"}.get(device.upper(), "Intel-GAUDI")
    return None


def _noset(*names: str) -> tuple[str, ...]:
    return tuple(f"RAY_EXPERIMENTAL_NOSET_{name}" for name in names)


_neuron_device = _devices(r"neuron\d+")
_npu_device = _devices(r"davinci\d+")
_habana_device = _devices(r"accel\d+", "dev/accel")
_rbln_device = _devices(r"rbln\d+")
_furiosa_device = _devices(r"rngd\d*|npu\d+", "dev/rngd")
_tenstorrent_device = _devices(r"\d+", "dev/tenstorrent")
_mobilint_device = _devices(r"aries\d+")

# Of one resource the first kind with devices counts.
ALL: tuple[Accelerator, ...] = (
    Accelerator("GPU", "CUDA_VISIBLE_DEVICES", _noset("CUDA_VISIBLE_DEVICES"), _nvidia_count, _nvidia_kind),
    Accelerator(
        "GPU",
        "HIP_VISIBLE_DEVICES",
        _noset("HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"),
        lambda root: len(_amd_properties(root)),
        _amd_kind,
    ),
    Accelerator(
        "GPU",
        "ONEAPI_DEVICE_SELECTOR",
        _noset("ONEAPI_DEVICE_SELECTOR", "ZE_AFFINITY_MASK"),
        lambda root: len(_intel_cards(root)),
        _intel_kind,
    ),
    Accelerator("TPU", "TPU_VISIBLE_CHIPS", _noset("TPU_VISIBLE_CHIPS"), _tpu_count, _tpu_kind),
    Accelerator(
        "neuron_cores",
        "NEURON_RT_VISIBLE_CORES",
        _noset("NEURON_RT_VISIBLE_CORES"),
        _neuron_count,
        _if_any("aws-neuron-core", _neuron_device),
    ),
    Accelerator("HPU", "HABANA_VISIBLE_MODULES", _noset("HABANA_VISIBLE_MODULES"), _habana_device, _habana_kind),
    Accelerator("NPU", "ASCEND_RT_VISIBLE_DEVICES", _noset("ASCEND_RT_VISIBLE_DEVICES"), _npu_device),
    Accelerator("RBLN", "RBLN_DEVICES", _noset("RBLN_RT_VISIBLE_DEVICES", "RBLN_DEVICES"), _rbln_device),
    Accelerator("FURIOSA", "FURIOSA_VISIBLE_DEVICES", _noset("FURIOSA_VISIBLE_DEVICES"), _furiosa_device),
    Accelerator("TTNPU", "TT_VISIBLE_DEVICES", _noset("TT_VISIBLE_DEVICES"), _tenstorrent_device),
    Accelerator("MBLT", "MBLT_VISIBLE_DEVICES", _noset("MBLT_VISIBLE_DEVICES"), _mobilint_device),
)
RESOURCES: tuple[str, ...] = tuple(dict.fromkeys(kind.resource for kind in ALL))
