"""Processes that die at bad moments, one at a time, each with the outcome that the design promises."""

from __future__ import annotations

import os
import pathlib
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
from support.processes import wait_until

import ray


@pytest.fixture(autouse=True)
def cluster() -> Iterator[None]:
    ray.init(num_cpus=2, logging_level="ERROR", log_to_driver=False)
    yield
    ray.shutdown()


@ray.remote(num_cpus=0)
class Owner:
    def put(self, size: int) -> list[Any]:
        self.ref = ray.put(b"x" * size)
        return [self.ref]

    def pending(self, path: str) -> list[Any]:
        self.ref = when.remote(path)
        return [self.ref]

    def pid(self) -> int:
        return os.getpid()


@ray.remote
def when(path: str) -> int:
    while not os.path.exists(path):
        time.sleep(0.01)
    return 1


@pytest.mark.parametrize("size", [10, 300_000])
def test_death_of_the_owner_in_the_middle_of_a_chain_ends_gets(size: int) -> None:
    owner = Owner.remote()

    @ray.remote(num_cpus=0)
    class Keeper:
        def keep(self, refs: list[Any]) -> None:
            self.refs = refs

        def read(self) -> str:
            try:
                return str(len(ray.get(self.refs[0], timeout=20)))
            except ray.exceptions.ObjectLostError as error:
                return type(error).__name__

    keeper = Keeper.remote()
    ray.get(keeper.keep.remote(ray.get(owner.put.remote(size), timeout=20)), timeout=20)
    os.kill(ray.get(owner.pid.remote()), signal.SIGKILL)
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(owner.pid.remote(), timeout=20)
    assert ray.get(keeper.read.remote(), timeout=30) == "OwnerDiedError"


def test_get_of_a_pending_object_ends_with_its_owner(tmp_path: pathlib.Path) -> None:
    owner = Owner.remote()
    (ref,) = ray.get(owner.pending.remote(str(tmp_path / "never")), timeout=20)

    @ray.remote
    def end(pid: int) -> None:
        time.sleep(0.3)
        os.kill(pid, signal.SIGKILL)

    end.remote(ray.get(owner.pid.remote()))
    with pytest.raises(ray.exceptions.OwnerDiedError):
        ray.get(ref, timeout=20)


def test_a_task_without_retries_never_runs_twice(tmp_path: pathlib.Path) -> None:
    """A task of the same kind that ends the process right after takes no finished result with it."""

    @ray.remote(max_retries=0)
    def run(number: int, die: bool) -> int:
        with open(tmp_path / str(number), "a") as f:
            f.write("x")
        if die:
            os.kill(os.getpid(), signal.SIGKILL)
        return number

    for start in range(0, 300, 10):
        refs = [run.remote(start + i, i == 7) for i in range(10)]
        for ref in refs:
            try:
                ray.get(ref, timeout=30)
            except ray.exceptions.WorkerCrashedError:
                pass
    assert all(len(path.read_text()) == 1 for path in tmp_path.iterdir() if path.name.isdigit())


def test_a_large_error_that_is_retried_does_not_become_the_value(tmp_path: pathlib.Path) -> None:
    """The error of the first attempt is in the store under the id that the value of the second gets."""

    @ray.remote(max_retries=1, retry_exceptions=True)
    def flaky(path: str) -> bytes:
        if not os.path.exists(path):
            pathlib.Path(path).touch()
            raise ValueError("e" * 300_000)
        return b"v" * 300_000

    assert ray.get(flaky.remote(str(tmp_path / "ran")), timeout=30) == b"v" * 300_000


def test_cancelled_calls_of_an_actor_that_dies_are_not_run_again(tmp_path: pathlib.Path) -> None:
    @ray.remote(num_cpus=0, max_restarts=2, max_task_retries=2)
    class Slow:
        def pid(self) -> int:
            return os.getpid()

        def block(self, path: str) -> None:
            while not os.path.exists(path):
                time.sleep(0.01)

        def mark(self, path: str) -> None:
            pathlib.Path(path).touch()

    actor = Slow.remote()
    pid = ray.get(actor.pid.remote(), timeout=20)
    go, marked = tmp_path / "go", tmp_path / "marked"
    blocked = actor.block.remote(str(go))
    marks = [actor.mark.remote(str(marked)) for _ in range(20)]
    os.kill(pid, signal.SIGKILL)
    for ref in marks:
        ray.cancel(ref)
    go.touch()
    ray.get(blocked, timeout=30)
    for ref in marks:
        with pytest.raises((ray.exceptions.TaskCancelledError, ray.exceptions.RayActorError)):
            ray.get(ref, timeout=30)
    assert not marked.exists()


def test_an_actor_killed_while_several_tasks_call_it_restarts_for_all(tmp_path: pathlib.Path) -> None:
    @ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)
    class Echo:
        def echo(self, n: int) -> int:
            return n

        def pid(self) -> int:
            return os.getpid()

    @ray.remote
    def call(echo: Any, path: str) -> int:
        done = 0
        while not os.path.exists(path):
            assert ray.get(echo.echo.remote(done), timeout=30) == done
            done += 1
        return done

    echo = Echo.remote()
    path = str(tmp_path / "enough")
    callers = [call.remote(echo, path) for _ in range(2)]
    for _ in range(3):
        pid = ray.get(echo.pid.remote(), timeout=30)
        time.sleep(0.2)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda gone=pid: ray.get(echo.pid.remote(), timeout=30) != gone, 30, "the actor to come back")
    pathlib.Path(path).touch()
    assert all(n > 0 for n in ray.get(callers, timeout=30))


@ray.remote(num_cpus=0)
class Incarnation:
    def pid(self) -> int:
        return os.getpid()

    def leave_after(self, answers: int) -> int:
        """The last of several answers comes together with the end of the process."""
        if answers == 0:
            ray.actor.exit_actor()
        return answers


def test_a_call_behind_a_kill_is_not_answered_by_what_was_killed() -> None:
    actor = Incarnation.options(max_restarts=-1, max_task_retries=-1).remote()
    for _ in range(20):
        before = ray.get(actor.pid.remote(), timeout=30)
        ray.kill(actor, no_restart=False)
        assert ray.get(actor.pid.remote(), timeout=30) != before
    ray.kill(actor)
    with pytest.raises(ray.exceptions.ActorDiedError):
        ray.get(actor.pid.remote(), timeout=30)


def test_answers_given_before_an_actor_left_are_heard() -> None:
    for _ in range(20):
        actor = Incarnation.remote()
        refs = [actor.leave_after.remote(n) for n in (3, 2, 1, 0)]
        assert ray.get(refs[:3], timeout=30) == [3, 2, 1]
        with pytest.raises(ray.exceptions.ActorDiedError):
            ray.get(refs[3], timeout=30)
