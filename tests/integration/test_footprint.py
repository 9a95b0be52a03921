"""What an idle cluster costs: processes, threads, sockets, memory; docs/performance.md has figures."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Iterator

import pytest
from support.processes import descendants, listening_tcp, run_driver, start_driver, wait_until

import ray

TESTS = str(pathlib.Path(__file__).parents[1])  # for the drivers' own imports


def pss_mib(pid: int) -> float:
    text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(text.partition("\nPss:")[2].split()[0]) / 1024


def threads(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/task"))


IDLE = """
import json, os, time, ray
from support.processes import descendants, wait_until

ray.init(num_cpus=2, logging_level="ERROR")

@ray.remote
def parent():
    return os.getppid()

zygote = ray.get(parent.remote())
# It imports numpy once nobody has asked for a worker for a while: only then is everything there that will be.
wait_until(lambda: "numpy" in open(f"/proc/{zygote}/maps").read(), 20, "the zygote to be done with its imports")
print(json.dumps([os.getpid(), *descendants(os.getpid())]), flush=True)
input()
"""


@pytest.fixture(autouse=True)
def disconnected_at_the_end() -> Iterator[None]:
    yield
    ray.shutdown()


def test_an_idle_cluster_is_small() -> None:
    pytest.importorskip("numpy")
    driver = start_driver(IDLE, PYTHONPATH=TESTS)
    try:
        assert driver.stdout is not None
        line = driver.stdout.readline()
        assert line, driver.communicate(timeout=10)[1]
        pids = json.loads(line)
        names = {pid: pathlib.Path(f"/proc/{pid}/comm").read_text().strip() for pid in pids}
        assert len(pids) <= 6, names
        count = {f"{pid} {names[pid]}": threads(pid) for pid in pids}
        assert sum(count.values()) <= 25, count  # the goal is 24
        assert listening_tcp(pids) == 0
        memory = {f"{pid} {names[pid]}": pss_mib(pid) for pid in pids}
        assert sum(memory.values()) <= 120, memory
    finally:
        driver.communicate("\n", timeout=20)


def test_idle_workers_share_their_pages() -> None:
    ray.init(num_cpus=8, logging_level="ERROR")

    @ray.remote
    class Meeting:
        def __init__(self) -> None:
            self.here: set[int] = set()

        def arrive(self, pid: int) -> int:
            self.here.add(pid)
            return len(self.here)

    @ray.remote
    def meet(meeting: Meeting) -> int:
        wait_until(lambda: ray.get(meeting.arrive.remote(os.getpid())) == 8, 30, "eight workers at once")
        return os.getpid()

    meeting = Meeting.options(num_cpus=0).remote()
    pids = ray.get([meet.options(num_cpus=0.5).remote(meeting) for _ in range(8)], timeout=60)
    assert len(set(pids)) == 8
    assert set(pids) <= set(descendants(os.getpid()))
    memory = [pss_mib(pid) for pid in pids]
    assert sum(memory) / len(memory) <= 10, memory


def test_numpy_of_a_worker_has_as_many_threads_as_its_task_has_cpus() -> None:
    """The zygote loads OpenBLAS before anybody knows; one thread for each core of the machine would be too many."""
    pytest.importorskip("numpy")
    done = run_driver(
        """
        import os, ray
        from support.processes import wait_until

        ray.init(num_cpus=4, logging_level="ERROR")

        @ray.remote
        def parent():
            return os.getppid()

        zygote = ray.get(parent.remote())
        wait_until(lambda: "numpy" in open(f"/proc/{zygote}/maps").read(), 20, "the zygote to import numpy")

        @ray.remote
        class Worker:  # forked from now on
            def threads(self):
                import numpy
                a = numpy.ones((600, 600))
                a @ a
                return len(os.listdir("/proc/self/task")), os.environ["OMP_NUM_THREADS"]

        one, three = Worker.remote(), Worker.options(num_cpus=3).remote()
        more, most = ray.get([one.threads.remote(), three.threads.remote()])
        print(most[0] - more[0], more[1], most[1], len(os.listdir(f"/proc/{zygote}/task")))
        """,
        timeout=60,
        PYTHONPATH=TESTS,
    )
    more = min(3, os.cpu_count() or 1) - 1  # OpenBLAS starts no more than there are cores
    assert done.stdout.split() == [str(more), "1", "3", "1"], done.stdout + done.stderr
