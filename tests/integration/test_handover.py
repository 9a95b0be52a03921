"""Objects whose owners leave in good order stay readable for those who hold them (docs/architecture/ownership.md)."""

from __future__ import annotations

import gc
import json
import os
import pathlib
import signal
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from support.processes import alive, run_driver, wait_until

import ray

KB, MB = 1 << 10, 1 << 20


@pytest.fixture(scope="module", autouse=True)
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", str(tmp_path_factory.mktemp("handover")))
        ray.init(num_cpus=4, logging_level="ERROR", _system_config={"idle_worker_killing_time_threshold_ms": 100})
        yield
        ray.shutdown()


def stats() -> dict[str, Any]:
    from ray._core.gcs import node_stats
    from ray._runtime.session import require_session

    return dict(json.loads(node_stats(require_session().core)))


def adopted() -> int:
    return int(stats()["adopted"]["objects"])


@pytest.fixture(autouse=True)
def all_is_freed() -> Iterator[None]:
    yield
    gc.collect()
    wait_until(lambda: adopted() == 0, 10, "nothing is kept that nobody holds")


def value(size: int) -> np.ndarray:
    return np.full(size, size % 251, np.uint8)


SIZES = (10, 50 * KB, 3 * MB)


@ray.remote(max_calls=1)
def puts_and_leaves(wrapped: bool = False) -> tuple[int, list[Any]]:
    refs = [ray.put(value(size)) for size in SIZES]
    return os.getpid(), [ray.put(refs)] if wrapped else refs


def gone(pid: int) -> None:
    wait_until(lambda: not alive(pid), 20, f"process {pid} has left")


def check(refs: list[Any]) -> None:
    for size, array in zip(SIZES, ray.get(refs, timeout=30), strict=True):
        assert np.array_equal(array, value(size))


def test_what_a_task_put_outlives_its_worker() -> None:
    used = stats()["store"]["used"]
    pid, refs = ray.get(puts_and_leaves.remote(), timeout=30)
    gone(pid)
    assert adopted() == len(SIZES)
    check(refs)
    check(refs)
    assert ray.wait(refs, num_returns=3, timeout=10)[0] == refs
    del refs
    gc.collect()
    wait_until(lambda: stats()["store"]["used"] == used, 10, "the memory is free again")


def test_refs_inside_what_is_handed_over_are_handed_over_too() -> None:
    pid, (outer,) = ray.get(puts_and_leaves.remote(wrapped=True), timeout=30)
    gone(pid)
    assert adopted() == len(SIZES) + 1
    check(ray.get(outer, timeout=30))
    inner = ray.get(outer, timeout=30)
    del outer
    gc.collect()
    wait_until(lambda: adopted() == len(SIZES), 10, "the outer one is free")
    check(inner)


@ray.remote
class Keeper:
    """Keeps refs, and reads them later."""

    def __init__(self) -> None:
        self.refs: list[Any] = []

    def keep(self, refs: list[Any]) -> None:
        self.refs = refs

    def put(self, size: int) -> list[Any]:
        return [ray.put(value(size))]

    def pid(self) -> int:
        return os.getpid()

    def sums(self) -> list[int]:
        return [int(array.sum()) for array in ray.get(self.refs, timeout=30)]

    def give(self) -> list[Any]:
        return self.refs

    def forget(self) -> None:
        self.refs = []


def test_many_borrowers_before_and_after() -> None:
    before, after = Keeper.remote(), Keeper.remote()
    pid, refs = ray.get(puts_and_leaves.remote(), timeout=30)
    ray.get(before.keep.remote(refs), timeout=30)
    gone(pid)
    expected = [int(value(size).sum()) for size in SIZES]
    assert ray.get(before.sums.remote(), timeout=30) == expected
    # One that has never heard of the owner.
    ray.get(after.keep.remote(refs), timeout=30)
    del refs
    gc.collect()
    assert ray.get(after.sums.remote(), timeout=30) == expected
    ray.get(before.forget.remote(), timeout=30)
    again = ray.get(after.give.remote(), timeout=30)
    ray.get(after.forget.remote(), timeout=30)
    check(again)


def test_an_actor_that_is_let_go_leaves_what_it_put() -> None:
    keeper = Keeper.remote()
    pid = ray.get(keeper.pid.remote(), timeout=30)
    (ref,) = ray.get(keeper.put.remote(MB), timeout=30)
    (small,) = ray.get(keeper.put.remote(7), timeout=30)
    del keeper
    gc.collect()
    gone(pid)
    assert np.array_equal(ray.get(ref, timeout=30), value(MB))
    assert np.array_equal(ray.get(small, timeout=30), value(7))


def test_an_actor_that_ends_itself_leaves_what_it_put() -> None:
    keeper = Keeper.remote()
    pid = ray.get(keeper.pid.remote(), timeout=30)
    (ref,) = ray.get(keeper.put.remote(MB), timeout=30)
    keeper.__ray_terminate__.remote()
    gone(pid)
    assert np.array_equal(ray.get(ref, timeout=30), value(MB))


def test_a_worker_that_is_killed_takes_its_objects_along() -> None:
    keeper = Keeper.remote()
    pid = ray.get(keeper.pid.remote(), timeout=30)
    (ref,) = ray.get(keeper.put.remote(MB), timeout=30)
    (small,) = ray.get(keeper.put.remote(7), timeout=30)
    os.kill(pid, signal.SIGKILL)
    gone(pid)
    began = time.monotonic()
    for lost in (ref, small):
        with pytest.raises(ray.exceptions.OwnerDiedError):
            ray.get(lost, timeout=30)
    assert time.monotonic() - began < 5


def test_idle_workers_leave_with_what_they_own() -> None:
    @ray.remote
    def puts() -> tuple[int, list[Any]]:
        time.sleep(0.3)
        return os.getpid(), [ray.put(value(50 * KB))]

    # More than may stay idle (as many as there are CPUs), so that some are reaped.
    found = ray.get([puts.options(num_cpus=0.4).remote() for _ in range(10)], timeout=60)
    pids = {pid for pid, _ in found}
    wait_until(lambda: len([pid for pid in pids if alive(pid)]) <= 4, 20, "idle ones were reaped")
    for _, (ref,) in found:
        assert np.array_equal(ray.get(ref, timeout=30), value(50 * KB))


def test_a_leaving_worker_waits_for_results_that_others_hold(tmp_path: pathlib.Path) -> None:
    @ray.remote(num_cpus=0)
    def child(folder: str) -> str:
        while not pathlib.Path(folder, "go").exists():
            time.sleep(0.01)
        return "done"

    @ray.remote(max_calls=1, num_cpus=0)
    def parent(folder: str) -> tuple[int, list[Any]]:
        return os.getpid(), [child.remote(folder)]

    pid, (ref,) = ray.get(parent.remote(str(tmp_path)), timeout=30)
    assert ray.wait([ref], timeout=0.2)[0] == []
    assert alive(pid)
    (tmp_path / "go").touch()
    assert ray.get(ref, timeout=30) == "done"
    gone(pid)
    assert ray.get(ref, timeout=30) == "done"


def test_tasks_take_what_was_handed_over_as_arguments() -> None:
    @ray.remote
    def total(array: np.ndarray) -> int:
        return int(array.sum())

    pid, refs = ray.get(puts_and_leaves.remote(), timeout=30)
    gone(pid)
    assert ray.get([total.remote(ref) for ref in refs], timeout=30) == [int(value(size).sum()) for size in SIZES]


def test_a_worker_with_many_objects() -> None:
    @ray.remote(max_calls=1)
    def puts() -> tuple[int, list[Any]]:
        return os.getpid(), [ray.put(i) for i in range(5000)]

    pid, refs = ray.get(puts.remote(), timeout=60)
    gone(pid)
    assert adopted() == 5000
    assert ray.get(refs, timeout=60) == list(range(5000))


def test_a_driver_that_ends_in_the_session_of_another(own_tmpdir: pathlib.Path) -> None:
    script = f"""
import numpy as np, ray, sys
ray.init(address={ray.get_runtime_context().gcs_address!r}, namespace="shared", logging_level="ERROR")
@ray.remote(num_cpus=0)
class Detached:
    def keep(self, refs): self.refs = refs
    def sums(self): return [int(array.sum()) for array in ray.get(self.refs, timeout=30)]
keeper = Detached.options(name="keeper", lifetime="detached").remote()
ray.get(keeper.keep.remote([ray.put(np.ones(n, np.uint8)) for n in (10, 50_000, 3_000_000)]))
ENDING
"""
    for ending in ("ray.shutdown()", "pass", "sys.exit(3)"):
        done = run_driver(script.replace("ENDING", ending))
        assert done.returncode == (3 if "3" in ending else 0), done.stderr
        keeper = ray.get_actor("keeper", namespace="shared")
        assert ray.get(keeper.sums.remote(), timeout=30) == [10, 50_000, 3_000_000]
        ray.kill(keeper)
