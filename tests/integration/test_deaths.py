"""Whoever ends, and however, nothing is left behind, and what can go on goes on."""

from __future__ import annotations

import os
import pathlib
import signal
import time
from collections.abc import Iterator

import pytest
from support.processes import alive, descendants, is_worker, run_driver, session_processes, start_driver, wait_until

import ray

WATCHED = """
import os, sys, time, ray
ray.init(num_cpus=2, logging_level="ERROR")
@ray.remote
def pid(): return os.getpid()
@ray.remote
def forever(): time.sleep(600)
ray.get(pid.remote())
running = forever.remote()
print(ray.get_runtime_context()._session().session_dir, flush=True)
"""


def sockets_of(session_dir: str) -> list[pathlib.Path]:
    return [path for path in pathlib.Path(session_dir).rglob("*") if path.is_socket()]


def zygotes() -> list[int]:
    """The children of the raylet that fork workers: one, or none while it is replaced."""
    found = []
    for pid in descendants(os.getpid()):
        try:
            command = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            parent = int(pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
            owner = pathlib.Path(f"/proc/{parent}/comm").read_text().strip()
        except OSError:  # gone meanwhile
            continue
        if b"ray._runtime.zygote" in command and owner == "raylet":
            found.append(pid)
    return found


@pytest.fixture(autouse=True)
def disconnected_at_the_end() -> Iterator[None]:
    yield
    ray.shutdown()


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        ("sys.exit(3)", 3),
        ("raise RuntimeError('no')", 1),
        ("os._exit(4)", 4),
        ("pass", 0),
        ("ray.shutdown()", 0),
        ("os.kill(os.getpid(), 15)", 15),  # as Ray does: a SystemExit, so that exit handlers run
        ("os.kill(os.getpid(), 9)", -9),
    ],
    ids=repr,
)
def test_nothing_outlives_a_driver_that_ends_while_a_task_runs(ending: str, code: int) -> None:
    driver = start_driver(WATCHED + "sys.stdin.readline()\n" + ending)
    assert driver.stdout is not None and driver.stdin is not None
    session_dir = driver.stdout.readline().strip()
    pids = descendants(driver.pid)
    assert session_dir and len(pids) >= 3
    try:
        driver.stdin.write("end\n")
        driver.stdin.flush()
        driver.wait(timeout=10)
        assert driver.returncode == code
        wait_until(lambda: not [p for p in pids if alive(p)], 3, "all processes of the session gone")
        assert not session_processes(session_dir)
        assert not sockets_of(session_dir)
    finally:
        driver.kill()
        driver.communicate(timeout=10)


def test_ctrl_c_interrupts_a_blocked_get_at_once() -> None:
    driver = start_driver(
        WATCHED
        + """
try:
    ray.get(running)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""
    )
    assert driver.stdout is not None
    session_dir = driver.stdout.readline().strip()
    pids = descendants(driver.pid)
    time.sleep(0.2)  # it blocks by then, and if it does not the interrupt comes all the same
    driver.send_signal(signal.SIGINT)
    sent = time.monotonic()
    try:
        assert driver.stdout.readline().strip() == "interrupted", driver.communicate(timeout=10)[1]
        assert time.monotonic() - sent < 1
        assert driver.wait(timeout=5) == 0
        wait_until(lambda: not [p for p in pids if alive(p)], 3, "all processes of the session gone")
        assert not session_processes(session_dir)
    finally:
        driver.kill()
        driver.communicate(timeout=10)


def test_a_killed_worker_is_replaced_and_its_task_retried() -> None:
    ray.init(num_cpus=1, logging_level="ERROR")
    sockets = pathlib.Path(ray.get_runtime_context()._session().session_dir, "sockets")

    @ray.remote(max_retries=1)
    def dies_once(marker: str) -> str:
        if not os.path.exists(marker):
            pathlib.Path(marker).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return "done"

    marker = str(sockets / "died")
    assert ray.get(dies_once.remote(marker), timeout=20) == "done"
    listening = {bytes.fromhex(p.name[2:-5]) for p in sockets.glob("w-*.sock")}
    # Of this driver and the workers that live; the one that was killed left its name behind for the raylet to remove.
    assert len(listening) <= 1 + sum(map(is_worker, descendants(os.getpid())))
    ray.shutdown()


def test_a_killed_zygote_is_replaced_and_tasks_go_on() -> None:
    ray.init(num_cpus=2, logging_level="ERROR")

    @ray.remote
    def f() -> int:
        return os.getpid()

    assert ray.get(f.remote(), timeout=20)
    for _ in range(2):
        (killed,) = zygotes()
        os.kill(killed, signal.SIGKILL)
        assert ray.get([f.remote() for _ in range(4)], timeout=30)
        wait_until(lambda killed=killed: set(zygotes()) - {killed}, 5, "another zygote")
    pids = descendants(os.getpid())
    ray.shutdown()
    wait_until(lambda: not [p for p in pids if alive(p)], 3, "all processes of the session gone")


def test_a_task_that_must_not_run_twice_is_not_taken_for_another(tmp_path: pathlib.Path) -> None:
    """Two tasks are with one worker, and the first waits for an argument whose owner does not answer."""
    ray.init(num_cpus=1, logging_level="ERROR")

    @ray.remote(num_cpus=0)
    class Owner:
        def make(self) -> tuple[int, list[ray.ObjectRef]]:
            return os.getpid(), [ray.put(bytes(1 << 20))]

    @ray.remote(max_retries=0)
    def size(data: bytes) -> int:
        return len(data)

    @ray.remote(max_retries=0)
    def dies(path: str) -> None:
        with pathlib.Path(path).open("a") as file:
            file.write("run\n")
        os._exit(1)

    owner = Owner.remote()
    pid, (data,) = ray.get(owner.make.remote())
    ray.wait([data], timeout=30)
    os.kill(pid, signal.SIGSTOP)
    try:
        late = size.remote(data)
        with pytest.raises(ray.exceptions.WorkerCrashedError):
            ray.get(dies.remote(str(tmp_path / "runs")), timeout=30)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert ray.get(late, timeout=30) == 1 << 20
    assert (tmp_path / "runs").read_text() == "run\n"


def test_a_restarting_actor_that_is_killed_is_dead_to_the_next_call(tmp_path: pathlib.Path) -> None:
    @ray.remote(max_restarts=-1)
    class Slow:
        def __init__(self, path: str) -> None:
            again = pathlib.Path(path).exists()
            pathlib.Path(path).touch()
            if again:
                time.sleep(600)

        def die(self) -> None:
            os._exit(1)

        def ping(self) -> str:
            return "pong"

    actor = Slow.remote(str(tmp_path / "made"))
    assert ray.get(actor.ping.remote(), timeout=30) == "pong"
    with pytest.raises(ray.exceptions.ActorUnavailableError):
        ray.get(actor.die.remote(), timeout=30)
    ray.kill(actor)
    with pytest.raises(ray.exceptions.ActorDiedError, match=r"ray\.kill"):
        ray.get(actor.ping.remote(), timeout=30)


def test_an_argument_lost_to_the_system_is_told_as_an_argument() -> None:
    @ray.remote(max_retries=0)
    def crash() -> None:
        os._exit(1)

    @ray.remote
    class Actor:
        def take(self, value: object) -> None:
            raise AssertionError("it must not run")

    @ray.remote
    def take(value: object) -> None:
        raise AssertionError("it must not run")

    actor = Actor.remote()
    nested = take.remote(take.remote(crash.remote()))
    for ref in (take.remote(crash.remote()), actor.take.remote(crash.remote()), nested):
        with pytest.raises(ray.exceptions.RayTaskError, match="input arguments") as caught:
            ray.get(ref, timeout=30)
        assert isinstance(caught.value, ray.exceptions.WorkerCrashedError)
        assert isinstance(caught.value.cause, ray.exceptions.WorkerCrashedError)


def test_shutdown_while_tasks_run_is_quick_and_complete() -> None:
    ray.init(num_cpus=2, logging_level="ERROR")

    @ray.remote
    def sleeps() -> None:
        time.sleep(600)

    @ray.remote
    class Busy:
        def ping(self) -> str:
            return "pong"

        def sleeps(self) -> None:
            time.sleep(600)

    actor = Busy.remote()
    assert ray.get(actor.ping.remote()) == "pong"
    refs = [sleeps.remote() for _ in range(4)] + [actor.sleeps.remote()]
    ray.wait(refs, timeout=0.3)
    pids = descendants(os.getpid())
    began = time.monotonic()
    ray.shutdown()
    assert time.monotonic() - began < 3
    assert not [p for p in pids if alive(p)]


def test_twenty_rounds_with_tasks_and_actors_leak_nothing() -> None:
    out = run_driver(
        """
        import gc, os, ray
        @ray.remote
        def f(x): return x
        @ray.remote
        class A:
            def f(self, x): return x
        def counts():
            gc.collect()
            return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))
        def go():
            ray.init(num_cpus=1, logging_level="ERROR")
            a = A.remote()
            big = ray.put(bytes(1 << 20))
            assert ray.get(a.f.remote(1)) == ray.get(f.remote(1)) == 1
            assert len(ray.get(big)) == 1 << 20
            ray.shutdown()
        go()
        before = counts()
        for _ in range(19): go()
        after = counts()
        print("same" if all(b <= a for a, b in zip(before, after)) else f"{before} {after}")
        """,
        timeout=110,
    )
    assert out.stdout.strip() == "same", out.stdout + out.stderr
