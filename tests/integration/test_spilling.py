"""Objects on disk and at URIs: several folders, the end of their files, many rounds, objects larger than the store."""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import json
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.limits import grow, small_disk

import ray

MB = 1 << 20


def folders_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("ray_spilled_objects_*"))


def raylet_pid() -> int:
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    raylets = [int(pid) for pid in children if Path(f"/proc/{pid}/comm").read_text().strip() == "raylet"]
    assert len(raylets) == 1
    return raylets[0]


def test_files_take_turns_over_the_folders_and_go_at_the_end(tmp_path: Path) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    ray.init(num_cpus=1, object_store_memory=80 * MB, object_spilling_directory=",".join(map(str, folders)))
    try:
        refs = [ray.put(np.full(30 * MB, i, np.uint8)) for i in range(8)]
        assert all(folders_in(folder) for folder in folders)
        assert [int(ray.get(ref)[-1]) for ref in refs] == list(range(8))
    finally:
        ray.shutdown()
    assert not any(folders_in(folder) for folder in folders)


def test_an_object_may_be_larger_than_the_store() -> None:
    ray.init(num_cpus=1, object_store_memory=80 * MB)
    try:
        ref = ray.put(np.arange(15 * MB))

        @ray.remote
        def total(array: np.ndarray) -> int:
            return int(array.sum())

        assert ray.get(total.remote(ref), timeout=60) == int(np.arange(15 * MB).sum())
    finally:
        ray.shutdown()


def test_a_full_disk_is_an_error_and_costs_no_value(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "100m") as disk:
        ray.init(num_cpus=1, object_store_memory=80 * MB, object_spilling_directory=str(disk), log_to_driver=False)
        try:
            refs = []
            with pytest.raises(ray.exceptions.OutOfDiskError):
                for i in range(10):
                    refs.append(ray.put(np.full(20 * MB, i, np.uint8)))
            assert len(refs) >= 4
            grow(disk, "600m")
            more = [ray.put(np.full(20 * MB, i, np.uint8)) for i in range(5)]
            assert [int(ray.get(ref)[-1]) for ref in refs + more] == [*range(len(refs)), *range(5)]
        finally:
            ray.shutdown()


def test_the_next_cluster_removes_what_a_crashed_one_left(tmp_path: Path) -> None:
    ray.init(num_cpus=1, object_store_memory=80 * MB, object_spilling_directory=str(tmp_path))
    refs = [ray.put(np.zeros(30 * MB, np.uint8)) for _ in range(5)]
    crashed = folders_in(tmp_path)
    assert crashed
    os.kill(raylet_pid(), signal.SIGKILL)
    del refs
    ray.shutdown()
    assert folders_in(tmp_path) == crashed
    ray.init(num_cpus=1, object_store_memory=80 * MB, object_spilling_directory=str(tmp_path))
    try:
        deadline = time.monotonic() + 20
        while folders_in(tmp_path) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not folders_in(tmp_path)
    finally:
        ray.shutdown()


@pytest.mark.parametrize("folder", ["", "relative", "/tmp,relative"])
def test_folders_are_absolute(folder: str) -> None:
    with pytest.raises(ValueError, match="object_spilling_directory"):
        ray.init(object_spilling_directory=folder)


STUB = """
def open(uri, mode, transport_params=None):
    import builtins
    return builtins.open(uri.removeprefix("file://"), mode)
"""


@pytest.fixture
def smart_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package, or something in its place that knows file:// only."""
    if importlib.util.find_spec("smart_open") is None:
        folder = tmp_path / "packages"
        folder.mkdir()
        (folder / "smart_open.py").write_text(STUB)
        monkeypatch.syspath_prepend(str(folder))
        monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)


def wait_until(condition: Callable[[], bool], timeout: float = 20) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def command_lines() -> list[str]:
    """Those of all processes of this machine, which every user of it can read."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended
            found.append(path.read_text(errors="replace"))
    return found


@pytest.mark.usefixtures("smart_open")
@pytest.mark.parametrize("where", ["system config", "environment"])
def test_keys_of_a_storage_are_on_no_command_line(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = f"secret-{os.urandom(8).hex()}"
    params = {"uri": tmp_path.as_uri(), "override_transport_params": {"key": secret}}
    config = json.dumps({"type": "smart_open", "params": params})
    if where == "environment":
        monkeypatch.setenv("RAY_object_spilling_config", config)
    ray.init(
        num_cpus=1,
        object_store_memory=80 * MB,
        _system_config={"object_spilling_config": config} if where == "system config" else None,
    )
    try:
        refs = [ray.put(np.full(30 * MB, i, np.uint8)) for i in range(4)]
        assert folders_in(tmp_path)
        assert [int(ray.get(ref)[-1]) for ref in refs] == list(range(4))
        shown = command_lines()
        assert any("ray._runtime.spill_helper" in line for line in shown)
        assert not [line.partition("\0")[0] for line in shown if secret in line]
    finally:
        ray.shutdown()


@pytest.mark.usefixtures("smart_open")
def test_objects_go_to_uris(tmp_path: Path) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    config = {"type": "smart_open", "params": {"uri": [folder.as_uri() for folder in folders]}}
    ray.init(num_cpus=1, object_store_memory=80 * MB, _system_config={"object_spilling_config": json.dumps(config)})
    try:
        refs = [ray.put(np.full(30 * MB, i, np.uint8)) for i in range(8)]
        assert all(folders_in(folder) for folder in folders)
        assert [int(ray.get(ref)[-1]) for ref in refs] == list(range(8))
        del refs[:6]
        gc.collect()
        wait_until(lambda: sum(len(folders_in(folder)) for folder in folders) <= 2)
        assert [int(ray.get(ref)[-1]) for ref in refs] == [6, 7]
    finally:
        ray.shutdown()
    assert not any(folders_in(folder) for folder in folders)


@pytest.mark.parametrize("where", ["system config", "environment"])
def test_a_folder_from_elsewhere(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system = {}
    if where == "environment":
        monkeypatch.setenv("RAY_object_spilling_directory", str(tmp_path))
    else:
        system["object_spilling_config"] = {"type": "filesystem", "params": {"directory_path": [str(tmp_path)]}}
    ray.init(num_cpus=1, object_store_memory=80 * MB, _system_config=system)
    try:
        refs = [ray.put(np.full(30 * MB, i, np.uint8)) for i in range(4)]
        assert folders_in(tmp_path)
        assert [int(ray.get(ref)[-1]) for ref in refs] == list(range(4))
    finally:
        ray.shutdown()


def test_a_bad_config_is_refused_and_leaves_nothing_running() -> None:
    with pytest.raises(ValueError, match="'filesystem' or 'smart_open'"):
        ray.init(num_cpus=1, _system_config={"object_spilling_config": {"type": "tape"}})
    assert not ray.is_initialized()


def test_the_result_of_a_repeated_task_stays(tmp_path: Path) -> None:
    """A later attempt clears away what an earlier one may have left, and then stores its own, here in a slab."""

    @ray.remote(max_retries=2, retry_exceptions=True)
    def result(i: int, failures: int) -> np.ndarray:
        mark = tmp_path / f"{i}"
        attempts = len(mark.read_text()) if mark.exists() else 0
        mark.write_text("x" * (attempts + 1))
        if attempts < failures:
            raise RuntimeError("not yet")
        return np.full(200_000, i, np.uint8)

    ray.init(num_cpus=1)
    try:
        refs = [result.remote(i, failures=i % 3) for i in range(12)]
        for i, ref in enumerate(refs):
            assert (ray.get(ref, timeout=30) == i).all()
    finally:
        ray.shutdown()


def test_three_times_the_store_from_several_processes(tmp_path: Path) -> None:
    """Written, read back and dropped at random by three workers and the driver; nothing is left at the end."""
    store = 80 * MB

    @ray.remote
    class Writer:
        def __init__(self, seed: int) -> None:
            self.random = random.Random(seed)
            self.values: dict[int, ray.ObjectRef] = {}
            self.next = seed * 1_000_000

        def step(self, live: int) -> int:
            """Puts until so many bytes are alive, drops some, reads some; returns how many were read."""
            sizes = [150_000, 1_000_000, 3_000_000, 6_000_000]
            alive = len(self.values) * 2_500_000  # on average
            while alive < live:
                size = self.random.choice(sizes)
                self.values[self.next] = ray.put(np.full(size, self.next % 251, np.uint8))
                self.next += 1
                alive += 2_500_000
            for key in self.random.sample(sorted(self.values), 6):
                value = ray.get(self.values[key])
                assert value[0] == value[-1] == key % 251
                assert (value == key % 251).all()
            for key in self.random.sample(sorted(self.values), 8):
                del self.values[key]
            return 6

        def hand_out(self) -> list[tuple[int, list[ray.ObjectRef]]]:
            return [(key, [ref]) for key, ref in self.random.sample(sorted(self.values.items()), 5)]

        def clear(self) -> int:
            """Drops everything; returns how many descriptors this process has then."""
            self.values.clear()
            gc.collect()
            return len(os.listdir("/proc/self/fd"))

    ray.init(num_cpus=4, object_store_memory=store, object_spilling_directory=str(tmp_path))
    try:
        pid = raylet_pid()
        writers = [Writer.remote(seed) for seed in (1, 2, 3)]

        def play_round() -> None:
            ray.get([writer.step.remote(store) for writer in writers], timeout=60)
            for handed in ray.get([writer.hand_out.remote() for writer in writers], timeout=60):
                for key, [ref] in handed:
                    value = ray.get(ref, timeout=60)
                    assert value[0] == value[-1] == key % 251

        def clear() -> list[int]:
            """Descriptors of the writers and of the raylet, once all that was stored has gone."""
            in_workers = ray.get([writer.clear.remote() for writer in writers])
            gc.collect()
            wait_until(lambda: not any(tmp_path.rglob("ray_spilled_objects_*/*")))
            total = ray.cluster_resources()["object_store_memory"]
            wait_until(lambda: ray.available_resources()["object_store_memory"] == total)
            return [*in_workers, len(os.listdir(f"/proc/{pid}/fd"))]

        play_round()
        assert any(tmp_path.rglob("ray_spilled_objects_*/*"))
        before = clear()
        deadline = time.monotonic() + 20
        for _ in range(12):
            play_round()
            if time.monotonic() > deadline:
                break
        assert clear() == before
    finally:
        ray.shutdown()
    assert not folders_in(tmp_path)
