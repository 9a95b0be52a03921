"""Objects on disk: several folders, the end of their files, and objects larger than the store."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

import ray

MB = 1 << 20


def folders_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("ray_spilled_objects_*"))


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


def test_the_next_cluster_removes_what_a_crashed_one_left(tmp_path: Path) -> None:
    ray.init(num_cpus=1, object_store_memory=80 * MB, object_spilling_directory=str(tmp_path))
    refs = [ray.put(np.zeros(30 * MB, np.uint8)) for _ in range(5)]
    crashed = folders_in(tmp_path)
    assert crashed
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    raylets = [int(pid) for pid in children if Path(f"/proc/{pid}/comm").read_text().strip() == "raylet"]
    assert len(raylets) == 1
    os.kill(raylets[0], signal.SIGKILL)
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
