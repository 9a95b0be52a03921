"""Waits that end before what they wait for leave nothing behind: a program may poll for ever."""

from __future__ import annotations

import asyncio
import gc
import os
import pathlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.processes import run_driver

import ray
from ray._core import completion


@pytest.fixture(scope="module", autouse=True)
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", str(tmp_path_factory.mktemp("ray")))
        ray.init(num_cpus=2, logging_level="ERROR")
        yield
        ray.shutdown()


@ray.remote(num_cpus=0)
class Gate:
    """What waits for `open` may be let go on."""

    def __init__(self) -> None:
        self._open = asyncio.Event()

    def open(self) -> None:
        self._open.set()

    async def passed(self) -> bool:
        await self._open.wait()
        return True


@pytest.fixture
def gate() -> Iterator[Any]:
    made = Gate.remote()
    yield made
    ray.get(made.open.remote(), timeout=30)


@ray.remote(num_cpus=0, num_returns="streaming")
def late(gate: Any) -> Iterator[bool]:
    yield ray.get(gate.passed.remote())


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def growth_kib(step: Callable[[], Any], times: int) -> int:
    """By how much the memory of this process grows while `step` is done so often, after it has been done as often."""

    def resident() -> int:
        gc.collect()
        fields = pathlib.Path("/proc/self/statm").read_text().split()
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") // 1024

    for _ in range(times):
        step()
    before = resident()
    for _ in range(times):
        step()
    return resident() - before


def test_polling_a_stream_keeps_no_descriptor(gate: Any) -> None:
    stream = late.remote(gate)
    pending = gate.passed.remote()
    assert ray.wait([stream, pending], timeout=0) == ([], [stream, pending])
    before = descriptors()
    for _ in range(50):
        assert ray.wait([stream, pending], timeout=0)[0] == []
    assert descriptors() < before + 25  # connections may come and go
    ray.get(gate.open.remote())
    assert ray.wait([stream, pending], num_returns=2, timeout=30)[1] == []
    assert ray.get(next(stream)) is True


def test_polling_a_stream_keeps_no_memory(gate: Any) -> None:
    stream = late.remote(gate)
    assert growth_kib(stream.next_ready, 30_000) < 2048
    assert growth_kib(stream.is_finished, 30_000) < 2048
    ray.get(gate.open.remote())
    assert ray.get(stream._next_sync(30)) is True


def test_awaits_that_time_out_are_forgotten(gate: Any) -> None:
    pending = gate.passed.remote()
    stream = late.remote(gate)

    async def impatient() -> tuple[int, list[bool]]:
        for _ in range(300):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(pending, 0)
            assert (await stream._next_async(0)).is_nil()
        watcher = completion._watcher(asyncio.get_running_loop())
        waiting = len(watcher._waiting)
        gate.open.remote()
        return waiting, [await pending, await (await stream.__anext__())]

    waiting, values = asyncio.run(impatient())
    assert waiting <= 2 * completion._FEW_WAITS
    assert values == [True, True]


def test_futures_that_are_cancelled_are_forgotten(gate: Any) -> None:
    pending = gate.passed.remote()
    for _ in range(10):
        assert pending.future().cancel()
    assert len(completion._future_thread()._waiting) == 0
    seen = threading.Event()
    pending.future().add_done_callback(lambda done: seen.set())
    ray.get(gate.open.remote())
    assert seen.wait(30)


def test_asking_for_a_placement_group_again_and_again_keeps_no_memory() -> None:
    group = ray.util.placement_group([{"none_has_this": 1}])
    ray.wait([group.ready()], timeout=0)
    assert growth_kib(group.ready, 20_000) < 2048
    ray.util.remove_placement_group(group)
    with pytest.raises(ray.exceptions.TaskPlacementGroupRemoved):
        ray.get(group.ready(), timeout=30)


def test_an_infinite_time_out_is_none(gate: Any) -> None:
    group = ray.util.placement_group([{"CPU": 1}])
    assert group.wait(float("inf"))
    ray.util.remove_placement_group(group)
    stream = late.remote(gate)
    opened = threading.Timer(0.2, gate.open.remote)
    opened.start()
    assert ray.get(stream._next_sync(float("inf"))) is True
    opened.join()


def test_a_wait_that_is_refused_leaves_nothing(tmp_path: pathlib.Path) -> None:
    done = run_driver(
        """
        import asyncio, ray
        from ray._core import completion

        ray.init(address="local", num_cpus=1, logging_level="ERROR")
        old = ray.put(1)
        ray.shutdown()
        ray.init(address="local", num_cpus=1, logging_level="ERROR")

        def refused(wait):
            try:
                wait()
            except ValueError as error:
                assert "earlier Ray session" in str(error)
            else:
                raise AssertionError("was not refused")

        async def waits():
            refused(lambda: completion.wait_ready(old))
            watcher = completion._watchers[asyncio.get_running_loop()]
            assert not watcher._waiting and not watcher._reads
            assert await ray.put(2) == 2

        refused(lambda: old._on_ready(print))
        refused(old.future)
        assert not completion._future_threads[0]._waiting
        asyncio.run(waits())
        ray.shutdown()
        """,
        RAY_TMPDIR=str(tmp_path),
    )
    assert done.returncode == 0, done.stderr
