"""A cluster comes up, goes down and leaves nothing behind, whoever dies."""

from __future__ import annotations

import collections
import contextlib
import os
import pathlib
import re
import select
import signal
import socket
import subprocess
import time
from collections.abc import Iterator

import pytest
from support.processes import (
    alive,
    descendants,
    doomed,
    is_worker,
    listening_tcp,
    run_driver,
    session_processes,
    start_driver,
    wait_until,
)

import ray

DRIVER = """
import ctypes, os, subprocess, sys, time, ray
ray.init(num_cpus=2, logging_level="ERROR")

@ray.remote
class A:
    def pid(self):
        ctypes.CDLL(None).prctl(1, 0)  # PR_SET_PDEATHSIG: no signal when its parent ends, so others must see to it
        subprocess.Popen(["sleep", "600"])  # in its process group: ends with it
        return os.getpid()

@ray.remote
def f(): return os.getpid()

a = A.remote()
pids = {ray.get(a.pid.remote()), *ray.get([f.remote() for _ in range(4)])}
print(ray.get_runtime_context()._session().session_dir, flush=True)
print(" ".join(map(str, pids)), flush=True)
sys.stdin.readline()
time.sleep(600)
"""


def running_driver() -> tuple[subprocess.Popen[str], str, list[int]]:
    driver = start_driver(DRIVER)
    assert driver.stdout is not None
    session_dir = driver.stdout.readline().strip()
    driver.stdout.readline()
    assert session_dir, driver.communicate(timeout=10)[1]
    return driver, session_dir, descendants(driver.pid)


def named(pids: list[int], name: str) -> int:
    """The one of these processes whose executable has that name."""
    (pid,) = [p for p in pids if pathlib.Path(f"/proc/{p}/comm").read_text().strip() == name]
    return pid


@pytest.fixture(autouse=True)
def disconnected_at_the_end() -> Iterator[None]:
    yield
    ray.shutdown()


def test_init_and_shutdown_leave_no_process_socket_or_memory() -> None:
    before = set(os.listdir("/dev/shm"))
    ray.init(num_cpus=2, logging_level="ERROR")
    session_dir = ray.get_runtime_context()._session().session_dir

    @ray.remote
    def f() -> int:
        return 1

    assert ray.get([f.remote() for _ in range(10)]) == [1] * 10
    pids = descendants(os.getpid())
    assert len(pids) >= 3
    ray.shutdown()
    wait_until(lambda: not [p for p in pids if alive(p)], 3, "all processes of the cluster gone")
    assert not session_processes(session_dir)
    assert set(os.listdir("/dev/shm")) == before
    left = [p for p in pathlib.Path(session_dir).rglob("*") if not p.is_dir() and p.parent.name != "logs"]
    assert not [p for p in left if p.is_socket()], left


def test_init_and_shutdown_many_times_leak_no_descriptor_or_thread() -> None:
    def held() -> collections.Counter[str]:
        """What this process has open, without the numbers, and its threads."""
        names = collections.Counter({"thread": len(os.listdir("/proc/self/task"))})
        for entry in pathlib.Path("/proc/self/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # that of the listing itself
                names[re.sub(r"[0-9a-f]*\d[0-9a-f]*", "N", os.readlink(entry))] += 1
        return names

    ray.init(num_cpus=1, logging_level="ERROR")
    ray.shutdown()
    before = held()
    for _ in range(5):
        ray.init(num_cpus=1, logging_level="ERROR")
        assert ray.get(ray.put(1)) == 1
        assert ray.put(2).future().result(20) == 2
        ray.shutdown()
    # A thread that was joined, and that of the futures, may show for another moment.
    deadline = time.monotonic() + 3
    while held() != before and time.monotonic() < deadline:
        time.sleep(0.01)
    after = held()
    assert after == before, f"new: {dict(after - before)}, gone: {dict(before - after)}"


def test_local_mode_opens_no_tcp_socket() -> None:
    ray.init(num_cpus=2, logging_level="ERROR")

    @ray.remote
    def f() -> int:
        return os.getpid()

    ray.get([f.remote() for _ in range(4)])
    assert listening_tcp([os.getpid(), *descendants(os.getpid())]) == 0
    ray.shutdown()


def test_sockets_are_for_their_user_only() -> None:
    ray.init(num_cpus=1, logging_level="ERROR")
    sockets = pathlib.Path(ray.get_runtime_context()._session().session_dir) / "sockets"
    assert sockets.stat().st_mode & 0o777 == 0o700
    ray.shutdown()


@pytest.mark.parametrize("victim", ["driver", "raylet", "gcs_server"])
def test_nothing_is_left_within_3_s_of_a_kill(victim: str) -> None:
    driver, session_dir, pids = running_driver()
    try:
        target = driver.pid if victim == "driver" else named(pids, victim)
        os.kill(target, signal.SIGKILL)
        if victim == "driver":
            driver.wait(timeout=10)
        wait_until(
            lambda: not [p for p in pids if alive(p)], 3, f"no process of the cluster after the {victim} was killed"
        )
        assert not [p for p in session_processes(session_dir) if p != driver.pid]
    finally:
        driver.kill()
        driver.communicate(timeout=10)


def test_workers_have_been_killed_when_anybody_can_know_that_their_raylet_died() -> None:
    driver, session_dir, pids = running_driver()
    workers = [p for p in pids if is_worker(p)]
    try:
        raylet = named(pids, "raylet")
        assert len(workers) >= 2
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)  # so it does not see its connection close
        with socket.socket(socket.AF_UNIX) as connection:
            sockets = os.open(f"{session_dir}/sockets", os.O_PATH)  # its path is too long for an address
            connection.connect(f"/proc/self/fd/{sockets}/raylet.sock")
            os.close(sockets)
            assert not select.select([connection], [], [], 0)[0]
            os.kill(raylet, signal.SIGKILL)
            assert select.select([connection], [], [], 10)[0]
            assert [p for p in workers if not doomed(p)] == []
    finally:
        for pid in workers:
            if alive(pid):
                os.kill(pid, signal.SIGCONT)
        driver.kill()
        driver.communicate(timeout=10)


def test_a_driver_whose_raylet_dies_gets_an_error_and_can_start_again() -> None:
    out = run_driver(
        """
        import os, signal, time, ray
        from support.processes import descendants
        ray.init(num_cpus=1, logging_level="ERROR")
        @ray.remote
        def slow(): time.sleep(60)
        ref = slow.remote()
        (raylet,) = [p for p in descendants(os.getpid()) if open(f"/proc/{p}/comm").read().strip() == "raylet"]
        os.kill(raylet, signal.SIGKILL)
        try:
            ray.get(ref, timeout=20)
        except ray.exceptions.GetTimeoutError:
            print("hung")
        except ray.exceptions.RayError as e:
            print("error", type(e).__name__)
        ray.shutdown()
        ray.init(num_cpus=1, logging_level="ERROR")
        @ray.remote
        def f(): return "again"
        print(ray.get(f.remote(), timeout=20))
        ray.shutdown()
        """,
        PYTHONPATH=os.pathsep.join([str(pathlib.Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]),
    )
    assert "error" in out.stdout and "hung" not in out.stdout and "again" in out.stdout, out.stdout + out.stderr


def test_a_second_driver_joins_by_address_and_leaves_the_cluster_alone() -> None:
    ray.init(num_cpus=1, logging_level="ERROR")
    address = ray.get_runtime_context().gcs_address
    out = run_driver(
        """
        import os, ray
        ray.init(address=os.environ["CLUSTER"], logging_level="ERROR")
        @ray.remote
        def f(): return 42
        print(ray.get(f.remote()))
        """,
        CLUSTER=address,
    )
    assert out.stdout.strip() == "42", out.stderr

    @ray.remote
    def g() -> int:
        return 1

    assert ray.get(g.remote()) == 1
    ray.shutdown()


def test_refs_of_an_earlier_session_are_refused() -> None:
    @ray.remote
    def f(x: object) -> object:
        return x

    ray.init(num_cpus=1, logging_level="ERROR")
    put, made = ray.put(1), f.remote(2)
    assert ray.get(made) == 2
    ray.shutdown()
    ray.init(num_cpus=1, logging_level="ERROR")
    uses = [
        lambda: ray.get(put),
        lambda: ray.get([ray.put(3), made]),
        lambda: ray.wait([put], timeout=1),
        lambda: f.remote(put),
        lambda: f.remote([put]),
        lambda: ray.put([made]),
        lambda: ray.cancel(made),
    ]
    for use in uses:
        with pytest.raises(ValueError, match="earlier Ray session"):
            use()
    assert ray.get(f.remote(4)) == 4


def test_a_second_init_is_an_error_unless_told_otherwise() -> None:
    ray.init(num_cpus=1, logging_level="ERROR")
    with pytest.raises(RuntimeError, match="ignore_reinit_error"):
        ray.init()
    ray.init(ignore_reinit_error=True, logging_level="ERROR")
    ray.shutdown()
    ray.shutdown()
    assert not ray.is_initialized()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"local_mode": True}, RuntimeError),
        ({"storage": "x"}, RuntimeError),
        ({"no_such": 1}, RuntimeError),
        ({"allow_multiple": True}, RuntimeError),
        ({"address": "local", "_credentials": None}, RuntimeError),
        ({"address": "ray://127.0.0.1:1", "allow_multiple": True}, NotImplementedError),
        ({"address": "ray://127.0.0.1:1", "_credentials": object()}, NotImplementedError),
        ({"namespace": ""}, ValueError),
        ({"namespace": 1}, TypeError),
        ({"num_cpus": -1}, ValueError),
        ({"object_store_memory": 1000}, ValueError),
        ({"resources": {"CPU": 1}}, AssertionError),
        ({"resources": {"x": 0.5}}, ValueError),
        ({"address": "nonsense"}, ValueError),
        ({"address": "auto"}, ConnectionError),
        ({"address": "unix:/nowhere/gcs.sock"}, ConnectionError),
        ({"address": "unix:/nowhere/gcs.sock", "num_cpus": 1}, ValueError),
    ],
    ids=repr,
)
def test_bad_arguments_of_init_are_typed_errors(arguments: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error):
        ray.init(**arguments)  # type: ignore[arg-type]
    assert not ray.is_initialized()


@pytest.mark.parametrize(
    "order", ["grpc, pyarrow, google.protobuf.message, ray", "ray, grpc, pyarrow, google.protobuf.message"]
)
def test_ray_lives_with_grpc_protobuf_and_pyarrow_in_one_process(order: str) -> None:
    out = run_driver(
        f"""
        import {order}
        import concurrent.futures
        from google.protobuf import struct_pb2
        ray.init(num_cpus=1, logging_level="ERROR")
        @ray.remote
        def f(table): return table.num_rows
        table = pyarrow.table({{"a": list(range(100000))}})
        assert ray.get(f.remote(table)) == 100000
        s = struct_pb2.Struct(); s["a"] = 1
        assert struct_pb2.Struct.FromString(s.SerializeToString()) == s
        server = grpc.server(concurrent.futures.ThreadPoolExecutor(1))
        server.start()
        server.stop(0)
        ray.shutdown()
        print("fine")
        """
    )
    assert out.stdout.strip() == "fine", out.stderr
