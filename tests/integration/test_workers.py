"""What a worker looks like from the outside and the inside, and how many there are."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.processes import alive, wait_until

import ray


def soon(condition: Callable[[], Any]) -> None:
    wait_until(condition, 20, "what the test waits for")


@pytest.fixture(autouse=True)
def cluster() -> Iterator[None]:
    ray.init(num_cpus=2, num_gpus=2, resources={"TPU": 2}, logging_level="ERROR", log_to_driver=False)
    yield
    ray.shutdown()


def title(pid: int | str = "self") -> str:
    with open(f"/proc/{pid}/cmdline") as file:
        return file.read().split("\0")[0]


def test_process_titles() -> None:
    @ray.remote
    def f() -> tuple[str, int]:
        return title(), os.getpid()

    @ray.remote
    class A:
        def m(self) -> tuple[str, int]:
            return title(), os.getpid()

    shown, pid = ray.get(f.remote())
    assert shown == "ray::f"
    soon(lambda: title(pid) == "ray::IDLE")
    assert ray.get(f.options(name="other").remote())[0] == "ray::other"
    actor = A.remote()
    shown, pid = ray.get(actor.m.remote())
    assert shown == "ray::A.m"
    soon(lambda: title(pid) == "ray::A")


def test_numeric_libraries_are_held_to_the_cpus() -> None:
    @ray.remote
    def threads() -> str | None:
        return os.environ.get("OMP_NUM_THREADS")

    assert ray.get([threads.options(num_cpus=n).remote() for n in (1, 2, 0.5, 0)]) == ["1", "2", "1", "1"]
    given = threads.options(runtime_env={"env_vars": {"OMP_NUM_THREADS": "7"}})
    assert ray.get(given.remote()) == "7"


def test_accelerators_are_visible_as_assigned() -> None:
    @ray.remote(max_calls=0)
    def visible() -> tuple[list[int], dict[str, list[str]], str | None, str | None]:
        ids = ray.get_runtime_context().get_accelerator_ids()
        return ray.get_gpu_ids(), ids, os.environ.get("CUDA_VISIBLE_DEVICES"), os.environ.get("TPU_VISIBLE_CHIPS")

    gpus, ids, cuda, _ = ray.get(visible.options(num_gpus=2).remote())
    assert (gpus, ids["GPU"], cuda) == ([0, 1], ["0", "1"], "0,1")
    _, ids, _, tpus = ray.get(visible.options(resources={"TPU": 1}).remote())
    assert ids["TPU"] == [tpus] and tpus in ("0", "1")
    assert set(ids) == {"GPU", "TPU", "neuron_cores", "HPU", "NPU", "RBLN", "FURIOSA", "TTNPU", "MBLT"}
    hidden = visible.options(num_gpus=1, runtime_env={"env_vars": {"RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": "1"}})
    gpus, _, cuda, _ = ray.get(hidden.remote())
    assert gpus == [0] and cuda is None


def test_many_tasks_that_wait_do_not_become_as_many_processes_and_yet_end() -> None:
    @ray.remote(num_cpus=0)
    class Gate:
        def __init__(self) -> None:
            import asyncio

            self.event = asyncio.Event()

        async def wait(self) -> int:
            await self.event.wait()
            return os.getpid()

        async def open(self) -> None:
            self.event.set()

    @ray.remote
    def waits(gate: ray.actor.ActorHandle) -> int:
        ray.get(gate.wait.remote())
        return os.getpid()

    gate = Gate.remote()
    refs = [waits.remote(gate) for _ in range(30)]
    time.sleep(1.0)  # not for something to happen, but to see that it does not
    alive = [n for n in os.listdir("/proc") if n.isdigit() and _title_or_none(n) == "ray::waits"]
    assert 2 <= len(alive) <= 7  # two CPUs, and one more after 0.1, 0.3, 0.7, 1.5 s
    ray.get(gate.open.remote())
    assert len(ray.get(refs, timeout=30)) == 30


def _title_or_none(pid: str) -> str | None:
    try:
        return title(pid)
    except OSError:
        return None


def test_an_actor_made_in_a_task_does_not_end_with_what_its_owner_is_used_for() -> None:
    @ray.remote(num_cpus=0)
    class Actor:
        def pid(self) -> int:
            return os.getpid()

    @ray.remote
    def make() -> tuple[int, Any]:
        return os.getpid(), Actor.remote()

    owner, child = ray.get(make.remote(), timeout=30)
    pid = ray.get(child.pid.remote(), timeout=30)
    for _ in range(3):
        others = [Actor.remote() for _ in range(6)]
        pids = ray.get([other.pid.remote() for other in others], timeout=30)
        assert owner not in pids
        del others
        soon(lambda pids=pids: not any(os.path.exists(f"/proc/{p}") for p in pids))
    assert ray.get(make.remote(), timeout=30)[0] == owner, "it runs tasks as before"
    assert ray.get(child.pid.remote(), timeout=30) == pid


def test_nesting_costs_no_delay() -> None:
    @ray.remote
    def deep(n: int) -> int:
        return 0 if n == 0 else 1 + ray.get(deep.remote(n - 1))

    began = time.monotonic()
    assert ray.get(deep.remote(12), timeout=30) == 12
    assert time.monotonic() - began < 10  # with a delay for each level it would be a minute


@ray.remote(num_cpus=0)
class Parent:
    """Starts processes and does not end them."""

    def start(self, own_session: bool = False) -> int:
        return subprocess.Popen(["sleep", "300"], start_new_session=own_session).pid

    def fork(self) -> int:
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(300)
        return child

    def crash(self) -> None:
        os._exit(1)


def test_what_a_worker_has_started_ends_with_it() -> None:
    killed, crashed, dropped = Parent.remote(), Parent.remote(), Parent.remote()
    children = ray.get([actor.start.remote() for actor in (killed, crashed, dropped)] + [dropped.fork.remote()])
    assert all(alive(child) for child in children)
    ray.kill(killed)
    with pytest.raises(ray.exceptions.ActorDiedError):
        ray.get(crashed.crash.remote())
    del dropped
    for child in children:
        soon(lambda child=child: not alive(child))

    @ray.remote(max_calls=1)
    def last_run() -> int:
        return subprocess.Popen(["sleep", "300"]).pid

    child = ray.get(last_run.remote())
    soon(lambda: not alive(child))


def test_a_process_with_a_session_of_its_own_goes_on() -> None:
    parent = Parent.remote()
    child, other = ray.get([parent.start.remote(True), parent.start.remote()])
    try:
        ray.kill(parent)
        soon(lambda: not alive(other))
        assert alive(child)
    finally:
        os.kill(child, signal.SIGKILL)


def test_children_may_be_left_alone() -> None:
    ray.shutdown()
    ray.init(
        num_cpus=1,
        logging_level="ERROR",
        log_to_driver=False,
        _system_config={"process_group_cleanup_enabled": False},
    )
    parent = Parent.remote()
    child = ray.get(parent.start.remote())
    try:
        ray.kill(parent)
        soon(lambda: not [row for row in ray.util.state.list_actors() if row.state != "DEAD"])
        assert alive(child)
    finally:
        os.kill(child, signal.SIGKILL)
