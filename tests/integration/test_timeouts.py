"""`timeout_s`: tasks and methods that run too long are ended, whatever they do, and nothing else is."""

from __future__ import annotations

import asyncio
import os
import pathlib
import time
from collections.abc import Iterator
from typing import Any

import pytest

import ray
from ray.exceptions import TaskTimeoutError


@pytest.fixture(autouse=True, scope="module")
def cluster() -> Iterator[None]:
    ray.init(num_cpus=2, logging_level="ERROR", log_to_driver=False)
    yield
    ray.shutdown()


@ray.remote
def sleep(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


@ray.remote(max_retries=0)
def deaf(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            time.sleep(0.01)
        except KeyboardInterrupt:
            pass


@ray.remote
def pid() -> int:
    return os.getpid()


def test_a_task_that_runs_too_long_fails_with_a_typed_error() -> None:
    with pytest.raises(TaskTimeoutError) as caught:
        ray.get(sleep.options(timeout_s=0.2, name="nap").remote(60), timeout=30)
    error = caught.value
    assert isinstance(error, TimeoutError)
    assert (error.task_name, error.timeout_s) == ("nap", 0.2)
    assert error.task_id is not None
    assert "nap" in str(error) and "0.2" in str(error)
    assert ray.get(sleep.options(timeout_s=30).remote(0)) == 0


def test_time_in_the_queue_does_not_count() -> None:
    refs = [sleep.options(timeout_s=0.6).remote(0.3) for _ in range(6)]
    assert ray.get(refs, timeout=30) == [0.3] * 6


def test_code_that_does_not_yield_loses_its_process_and_nothing_queued_behind_it() -> None:
    refs = [deaf.options(timeout_s=0.2).remote(60) for _ in range(2)]
    behind = [pid.remote() for _ in range(20)]
    for ref in refs:
        with pytest.raises(TaskTimeoutError):
            ray.get(ref, timeout=30)
    assert len(ray.get(behind, timeout=30)) == 20


def test_retried_only_where_it_is_named(tmp_path: pathlib.Path) -> None:
    @ray.remote(timeout_s=0.3)
    def slow_at_first(path: str, times: int) -> int:
        with open(path, "a") as file:
            file.write("x")
        runs = len(pathlib.Path(path).read_text())
        if runs <= times:
            time.sleep(60)
        return runs

    named = slow_at_first.options(max_retries=2, retry_exceptions=[TimeoutError])
    assert ray.get(named.remote(str(tmp_path / "a"), 2), timeout=30) == 3
    with pytest.raises(TaskTimeoutError):
        ray.get(named.remote(str(tmp_path / "b"), 9), timeout=30)
    assert len((tmp_path / "b").read_text()) == 3
    with pytest.raises(TaskTimeoutError):
        ray.get(slow_at_first.options(max_retries=2, retry_exceptions=True).remote(str(tmp_path / "c"), 9), timeout=30)
    assert len((tmp_path / "c").read_text()) == 1


def test_a_value_returned_too_late_is_not_one() -> None:
    @ray.remote(timeout_s=0.2)
    def catches() -> str:
        try:
            time.sleep(60)
        except KeyboardInterrupt:
            return "late"
        return "never"

    with pytest.raises(TaskTimeoutError):
        ray.get(catches.remote(), timeout=30)


def test_items_before_the_time_out_are_usable() -> None:
    @ray.remote(timeout_s=0.5)
    def count() -> Iterator[int]:
        yield from range(3)
        time.sleep(60)

    got: list[Any] = []
    with pytest.raises(TaskTimeoutError):
        for ref in count.remote():
            got.append(ray.get(ref, timeout=30))
    assert got == [0, 1, 2]


def test_children_are_cancelled() -> None:
    @ray.remote(timeout_s=0.5, num_cpus=0)
    def parent(refs: list[Any]) -> None:
        child = sleep.options(num_cpus=0).remote(60)
        ray.get(refs[0].add.remote([child]))
        ray.get(child)

    @ray.remote(num_cpus=0)
    class Keeper:
        def add(self, refs: list[Any]) -> None:
            self.refs = refs

        def ask(self) -> str:
            try:
                ray.get(self.refs[0], timeout=30)
            except ray.exceptions.TaskCancelledError:
                return "cancelled"
            return "?"

    keeper = Keeper.remote()
    with pytest.raises(TaskTimeoutError):
        ray.get(parent.remote([keeper]), timeout=30)
    assert ray.get(keeper.ask.remote(), timeout=30) == "cancelled"


class Body:
    def nap(self, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if ray.get_runtime_context().is_canceled():
                return True
            time.sleep(0.01)
        return False

    def pid(self) -> int:
        return os.getpid()


@pytest.mark.parametrize("max_concurrency", [1, 2])
def test_methods_of_plain_and_threaded_actors(max_concurrency: int) -> None:
    actor = ray.remote(Body).options(max_concurrency=max_concurrency).remote()
    before = ray.get(actor.pid.remote())
    with pytest.raises(TaskTimeoutError) as caught:
        ray.get(actor.nap.options(timeout_s=0.2).remote(60), timeout=30)
    assert caught.value.task_name == "Body.nap"
    assert ray.get(actor.pid.remote(), timeout=30) == before


def test_coroutines_are_cancelled() -> None:
    @ray.remote
    class Async:
        def __init__(self) -> None:
            self.cancelled = 0

        @ray.method(timeout_s=0.2)
        async def nap(self) -> None:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                self.cancelled += 1
                raise

        async def deaf(self) -> None:
            for _ in range(2):
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    pass

        async def count(self) -> int:
            return self.cancelled

    actor = Async.remote()
    for method in (actor.nap, actor.deaf.options(timeout_s=0.2)):
        with pytest.raises(TaskTimeoutError):
            ray.get(method.remote(), timeout=30)
    assert ray.get(actor.count.remote(), timeout=30) == 1


@pytest.mark.parametrize("bad", [0, -1, float("inf"), float("nan")])
def test_bad_values(bad: float) -> None:
    with pytest.raises(ValueError, match="timeout_s"):
        sleep.options(timeout_s=bad)


@pytest.mark.parametrize("bad", ["1", True, [1]])
def test_bad_types(bad: Any) -> None:
    with pytest.raises(TypeError, match="timeout_s"):
        ray.remote(timeout_s=bad)(lambda: None)
