import pathlib

import pytest

from ray._runtime import accelerators
from ray._runtime.accelerators import visibility


@pytest.fixture(autouse=True)
def no_presets(monkeypatch):
    for kind in accelerators.ALL:
        monkeypatch.delenv(kind.variable, raising=False)


def _write(root: pathlib.Path, files: dict[str, str]) -> pathlib.Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_a_machine_without_any(tmp_path):
    assert accelerators.detect({}, tmp_path) == ({}, [])


def test_nvidia(tmp_path, monkeypatch):
    info = "Model: \t\t NVIDIA A100-SXM4-80GB\nIRQ: 1\n"
    _write(tmp_path, {f"proc/driver/nvidia/gpus/0000:0{i}:00.0/information": info for i in range(4)})
    assert accelerators.detect({}, tmp_path) == ({"GPU": 4}, ["A100"])
    for text, seen in (("0,2", 2), ("", 0), ("-1", 0), ("NoDevFiles", 0), ("0,1,2,3,4,5", 4)):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", text)
        assert accelerators.detect({}, tmp_path).counts.get("GPU", 0) == seen
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert accelerators.detect({"GPU": 1}, tmp_path) == ({}, ["A100"])  # the number is the user's, the type is not
    assert accelerators.detect({"GPU": 0}, tmp_path) == ({}, [])


@pytest.mark.parametrize(
    ("files", "counts", "kinds"),
    [
        (
            {
                "sys/class/kfd/kfd/topology/nodes/0/properties": "simd_count 0\n",
                "sys/class/kfd/kfd/topology/nodes/1/properties": "simd_count 304\ndevice_id 29857\n",
            },
            {"GPU": 1},
            ["AMD-Instinct-MI300X-OAM"],
        ),
        (
            {
                "sys/class/drm/card0/device/vendor": "0x8086\n",
                "sys/class/drm/card0/device/class": "0x038000\n",
                "sys/class/drm/card0/device/device": "0x0bda\n",
                "sys/class/drm/card1/device/vendor": "0x1a03\n",
            },
            {"GPU": 1},
            ["Intel-GPU-Max-1100"],
        ),
        ({"dev/accel0": "", "dev/accel1": ""}, {"TPU": 2}, []),
        ({"dev/neuron0": "", "dev/neuron1": ""}, {"neuron_cores": 4}, ["aws-neuron-core"]),
        (
            {"dev/neuron0": "", "sys/devices/virtual/neuron_device/neuron0/core_count": "8\n"},
            {"neuron_cores": 8},
            ["aws-neuron-core"],
        ),
        (
            {"dev/accel/accel0": "", "sys/class/accel/accel0/device/device_type": "GAUDI2\n"},
            {"HPU": 1},
            ["Intel-GAUDI2"],
        ),
        ({"dev/davinci0": "", "dev/davinci_manager": ""}, {"NPU": 1}, []),
        ({"dev/rbln0": ""}, {"RBLN": 1}, []),
        ({"dev/tenstorrent/0": "", "dev/tenstorrent/by-id": ""}, {"TTNPU": 1}, []),
        ({"dev/aries0": ""}, {"MBLT": 1}, []),
    ],
)
def test_the_others(tmp_path, files, counts, kinds):
    assert accelerators.detect({}, _write(tmp_path, files)) == (counts, kinds)


def test_tpu_type(tmp_path, monkeypatch):
    monkeypatch.setenv("TPU_ACCELERATOR_TYPE", "v5litepod-16")
    assert accelerators.detect({}, _write(tmp_path, {"dev/accel0": ""})) == ({"TPU": 1}, ["TPU-V5LITEPOD"])


def test_every_resource_has_instances_in_the_core():
    assert set(accelerators.RESOURCES) == {
        "GPU", "TPU", "neuron_cores", "HPU", "NPU", "RBLN", "FURIOSA", "TTNPU", "MBLT"
    }  # fmt: skip


def test_visibility_follows_the_task(monkeypatch):
    environ: dict[str, str] = {}
    monkeypatch.setattr(visibility.os, "environ", environ)
    shown = accelerators.Visibility()
    shown.apply({})
    assert environ == {}
    shown.apply({"GPU": [1, 3]})
    assert environ == {"CUDA_VISIBLE_DEVICES": "1,3"}
    shown.apply({"TPU": [0]})
    assert environ == {"CUDA_VISIBLE_DEVICES": "", "TPU_VISIBLE_CHIPS": "0"}
    environ["RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"] = "1"
    environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    shown.apply({"GPU": [0]})
    assert environ["CUDA_VISIBLE_DEVICES"] == "" and environ["TPU_VISIBLE_CHIPS"] == "0"


def test_ids_are_the_names_of_a_preset(monkeypatch):
    monkeypatch.setitem(visibility._PRESET, "CUDA_VISIBLE_DEVICES", ["4", "GPU-abc"])
    assert accelerators.ids_of({"GPU": [(1, 1.0)], "TPU": [(0, 1.0)]}) == {"GPU": ["GPU-abc"], "TPU": [0]}


def test_a_host_of_a_tpu_slice_says_so(tmp_path):
    environ = {"TPU_NAME": "my-slice", "TPU_WORKER_ID": "0", "TPU_TOPOLOGY": "2x2x2", "TPU_ACCELERATOR_TYPE": "v4-16"}
    assert accelerators.slice_labels(environ) == {
        "ray.io/tpu-slice-name": "my-slice",
        "ray.io/tpu-worker-id": "0",
        "ray.io/tpu-topology": "2x2x2",
        "ray.io/tpu-pod-type": "v4-16",
    }
    assert accelerators.slice_resources(environ) == {"my-slice": 1, "TPU-v4-16-head": 1}
    assert accelerators.slice_resources({**environ, "TPU_WORKER_ID": "1"}) == {"my-slice": 1}
    assert accelerators.slice_resources({}) == accelerators.slice_labels({}) == {}


def test_sizes_of_tpu_slices(monkeypatch):
    from ray.util import tpu

    assert tpu.get_tpu_version_from_type("TPU-V5P") == "v5p"
    sizes = [("2x2x2", "v4"), ("2x4", "v6e"), ("4x4", "v6e"), ("1x1", "v5litepod")]
    assert [tpu.get_chips_per_host(*size) for size in sizes] == [4, 8, 4, 1]
    assert tpu.get_tpu_worker_resources("2x2x4", "TPU-V4") == (4, {"TPU": 4.0})
    assert tpu.get_tpu_worker_resources("2x2x4", "TPU-V4", {"TPU": 1, "CPU": 2}, num_slices=2) == (
        32,
        {"TPU": 1, "CPU": 2},
    )
    assert tpu.get_tpu_num_slices_for_workers("2x2x2", "TPU-V4", 5) == 3
    assert tpu.get_tpu_coordinator_env_vars("10.0.0.1", 2, 1)["MEGASCALE_SLICE_ID"] == "1"
    assert tpu.get_current_pod_name() is None and tpu.get_current_pod_worker_count() is None
    monkeypatch.setenv("TPU_NAME", "my-slice")
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "a,b,c")
    assert (tpu.get_current_pod_name(), tpu.get_current_pod_worker_count()) == ("my-slice", 3)
    for bad in (lambda: tpu.get_tpu_version_from_type("A100"), lambda: tpu.get_chips_per_host("big", "v4")):
        with pytest.raises(ValueError):
            bad()
    with pytest.raises(ValueError, match="shared out"):
        tpu.get_tpu_worker_resources("2x2x2", "TPU-V4", {"TPU": 3})
