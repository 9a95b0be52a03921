"""Load on one node: much at once, for long enough that a leak or a lost wake-up shows."""

from __future__ import annotations

import gc
import json
import os
import pathlib
import random
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from support.footprint import MemoryTrack, descriptors, engine_pids, threads
from support.processes import alive, descendants, run_driver, wait_until

import ray

SCALE = int(os.environ.get("RAY_STRESS_SCALE", "1"))
TASKS = int(os.environ.get("RAY_STRESS_TASKS", "50000"))
ACTORS = int(os.environ.get("RAY_STRESS_ACTORS", "200"))
CALLS = int(os.environ.get("RAY_STRESS_CALLS", "20"))
ROUNDS = int(os.environ.get("RAY_STRESS_ROUNDS", "3"))
STORE = 200 << 20
DEAD = (
    500  # actors and workers that the GCS remembers here, so that it is full early in a load and its memory shows leaks
)


@pytest.fixture
def cluster() -> Iterator[None]:
    settings = {"maximum_gcs_destroyed_actor_cached_count": DEAD, "maximum_gcs_dead_worker_cached_count": DEAD}
    ray.init(num_cpus=4, logging_level="ERROR", object_store_memory=STORE, _system_config=settings)
    yield
    ray.shutdown()


@pytest.fixture
def nothing_left(cluster: None) -> Iterator[None]:
    """Afterwards the cluster has what it had: processes but for idle workers, threads, descriptors, files, objects."""
    ray.get([one.remote() for _ in range(100)])  # everything is up
    pids = engine_pids()
    # When nothing is asked of it, the zygote imports what many programs need: once, and some 6 MB.
    wait_until(lambda: "numpy" in pathlib.Path(f"/proc/{pids['zygote']}/maps").read_text(), 30, "the zygote to settle")
    folder = pathlib.Path(ray.get_runtime_context()._session().session_dir)
    shared = set(os.listdir("/dev/shm"))
    before = {name: (descriptors(pid), threads(pid)) for name, pid in pids.items()}

    def like_before(name: str, pid: int) -> bool:
        # Four workers may stay idle; each is a connection of the driver and of the raylet, which has its pidfd, too.
        # Threads for disks and for gRPC start when they are first needed.
        opened, running = before[name]
        return descriptors(pid) <= opened + 12 and threads(pid) <= running + 4

    yield
    gc.collect()
    wait_until(lambda: len(descendants(os.getpid())) <= len(pids) + 4, 60, "the workers to end")
    wait_until(lambda: len(list((folder / "sockets").glob("w-*.sock"))) <= 1 + 4, 10, "their sockets to go")
    wait_until(lambda: all(like_before(*item) for item in pids.items()), 10, "descriptors and threads to go")
    wait_until(lambda: store_objects() == 0, 10, "objects to be freed")
    wait_until(lambda: not session_files(folder), 10, "files to be deleted")
    assert set(os.listdir("/dev/shm")) <= shared


def session_files(folder: pathlib.Path) -> list[pathlib.Path]:
    """What lies in the session besides its lock, settings, logs, and the records of the engine's own processes."""
    known = ("lock", "logs", "processes", "system_config.json")
    return [path for path in folder.rglob("*") if path.is_file() and path.relative_to(folder).parts[0] not in known]


def check_memory(track: MemoryTrack, *, grown: int, slope: float, enough: int) -> None:
    """No process may have grown by more than `grown` bytes in all, or, after `enough` items, by `slope` for each."""
    print(track)
    assert max(track.grown().values()) < grown, track
    if track.samples[-1].done >= enough:
        assert max(track.slopes().values()) < slope, track


def cpu_seconds(pid: int) -> float:
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@ray.remote
def one() -> int:
    return 1


@ray.remote(num_cpus=0)
class Counter:
    def __init__(self) -> None:
        self.n = 0

    def add(self, n: int = 1) -> int:
        self.n += n
        return self.n

    def pid(self) -> int:
        return os.getpid()


def test_actors_made_and_dropped_leave_no_process_and_no_descriptor(cluster: None) -> None:
    def batch() -> list[int]:
        actors = [Counter.remote() for _ in range(10)]
        return ray.get([a.pid.remote() for a in actors])

    batch()
    pids = engine_pids()
    before = {name: descriptors(pid) for name, pid in pids.items()}
    made = [pid for _ in range(3 * SCALE) for pid in batch()]
    wait_until(lambda: not any(alive(pid) for pid in made), 30, "the actors' processes to end")
    wait_until(
        lambda: all(descriptors(pid) <= before[name] + 12 for name, pid in pids.items()), 10, "descriptors to be closed"
    )


@pytest.mark.slow
@pytest.mark.usefixtures("cluster", "nothing_left")
def test_a_storm_of_tasks() -> None:
    """A million with RAY_STRESS_TASKS=1000000; memory must not grow with their number."""

    def batch() -> None:
        assert sum(ray.get([one.remote() for _ in range(10_000)])) == 10_000

    for _ in range(3):
        batch()
    track = MemoryTrack()
    track.take(0)
    for done in range(10_000, TASKS + 1, 10_000):
        batch()
        if done % max(TASKS // 20, 10_000) == 0:
            gc.collect()
            track.take(done)
    check_memory(track, grown=20 << 20, slope=3, enough=500_000)


@pytest.mark.slow
@pytest.mark.parametrize("end", ["dropped", "killed"])
@pytest.mark.usefixtures("cluster", "nothing_left")
def test_a_parade_of_actors(end: str) -> None:
    """Ten thousand with RAY_STRESS_ACTORS=10000; memory must not grow with their number."""

    @ray.remote(num_cpus=0)  # in here, so that it travels whole: a worker then need not import this module
    class Member:
        def add(self, n: int) -> int:
            return n + 1

    def batch() -> None:
        actors = [Member.remote() for _ in range(20)]
        assert ray.get([a.add.remote(0) for a in actors]) == [1] * 20
        if end == "killed":
            for actor in actors:
                ray.kill(actor)

    for _ in range(3):
        batch()
    track = MemoryTrack()
    track.take(0)
    for done in range(20, ACTORS + 1, 20):
        batch()
        if done % max(ACTORS // 20, 20) == 0:
            gc.collect()
            track.take(done)
    check_memory(track, grown=12 << 20, slope=64, enough=10_000)


@pytest.mark.usefixtures("cluster", "nothing_left")
def test_a_hundred_threads_call_one_actor() -> None:
    """A thousand calls of each with RAY_STRESS_CALLS=1000."""
    counter = Counter.remote()
    failures: list[BaseException] = []

    def call(times: int) -> None:
        try:
            last = 0
            for _ in range(times):
                now = ray.get(counter.add.remote(), timeout=60)
                assert now > last
                last = now
        except BaseException as error:
            failures.append(error)

    def storm(times: int) -> None:
        threads = [threading.Thread(target=call, args=(times,)) for _ in range(100)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not failures

    storm(1)
    track = MemoryTrack()
    track.take(0)
    part = max(CALLS // 20, 1)
    for done in range(part, CALLS + 1, part):
        storm(part)
        track.take(100 * done)
    check_memory(track, grown=12 << 20, slope=20, enough=100_000)
    assert ray.get(counter.add.remote(0)) == 100 * (1 + done)


@pytest.mark.slow
@pytest.mark.usefixtures("cluster", "nothing_left")
def test_live_data_of_three_times_the_store_goes_whole() -> None:
    """Thirty rounds with RAY_STRESS_ROUNDS=30."""
    size = 10 << 20

    def one_round(seed: int) -> None:
        refs = [ray.put(bytes([seed % 256, i]) * (size // 2)) for i in range(3 * STORE // size)]
        for i, ref in enumerate(refs):
            value = ray.get(ref)
            assert len(value) == size and value[:2] == value[-2:] == bytes([seed % 256, i])
            del value

    one_round(0)
    track = MemoryTrack()
    track.take(0)
    for done in range(1, ROUNDS + 1):
        one_round(done)
        gc.collect()
        track.take(done)
    check_memory(track, grown=30 << 20, slope=64 << 10, enough=30)


def test_nested_tasks_on_one_cpu() -> None:
    ray.init(num_cpus=1, logging_level="ERROR")
    try:

        @ray.remote
        def tree(depth: int) -> int:
            if depth == 0:
                return 1
            return sum(ray.get([tree.remote(depth - 1) for _ in range(3)]))

        assert ray.get(tree.remote(3), timeout=60) == 27
    finally:
        ray.shutdown()


def test_a_task_that_reads_a_stream_gives_its_cpu_to_the_producer() -> None:
    ray.init(num_cpus=1, logging_level="ERROR")
    try:

        @ray.remote(num_returns="streaming")
        def produce() -> Iterator[int]:
            yield from range(5)

        @ray.remote
        def consume() -> int:
            return sum(ray.get(ref) for ref in produce.remote())

        assert ray.get(consume.remote(), timeout=20) == 10
    finally:
        ray.shutdown()


def test_a_thread_that_outlives_its_task_does_not_stop_the_worker() -> None:
    ray.init(num_cpus=1, logging_level="ERROR")
    try:

        @ray.remote
        class Gate:
            async def wait(self) -> None:
                import asyncio

                await asyncio.sleep(600)

        gate = Gate.options(num_cpus=0).remote()

        @ray.remote
        def leave_a_thread(gate: Any) -> int:
            threading.Thread(target=lambda: ray.get(gate.wait.remote()), daemon=True).start()
            time.sleep(0.05)  # it blocks while this task runs, and goes on when it is over
            return os.getpid()

        ray.get(leave_a_thread.remote(gate), timeout=20)
        assert ray.get([one.remote() for _ in range(20)], timeout=20) == [1] * 20
    finally:
        ray.shutdown()


@pytest.mark.usefixtures("cluster")
def test_wait_and_get_race_completion() -> None:
    @ray.remote
    def after(seconds: float) -> float:
        time.sleep(seconds)
        return seconds

    seed = random.randrange(1 << 30)
    print("seed", seed)
    rng = random.Random(seed)
    for _ in range(30):
        delay = rng.uniform(0, 0.02)
        ref = after.remote(delay)
        try:
            assert ray.get(ref, timeout=rng.uniform(0, 0.02)) == delay
        except ray.exceptions.GetTimeoutError:
            pass
        refs = [after.remote(rng.uniform(0, 0.01)) for _ in range(4)]
        ready, rest = ray.wait(refs, num_returns=4, timeout=rng.uniform(0, 0.02))
        assert len(ready) + len(rest) == 4
        ready, rest = ray.wait(refs, num_returns=4, timeout=20)
        assert not rest
        assert ray.get(ref, timeout=20) == delay


@pytest.mark.usefixtures("cluster")
def test_storms_of_cancels_settle_every_task() -> None:
    @ray.remote
    def nap(seconds: float, *after: Any) -> str:
        time.sleep(seconds)
        return "done"

    @ray.remote(max_retries=3, retry_exceptions=True)
    def fail_once(path: str) -> str:
        if not os.path.exists(path):
            pathlib.Path(path).touch()
            raise ValueError("the first time")
        return "done"

    @ray.remote
    def parent() -> list[str]:
        return ray.get([nap.remote(5) for _ in range(4)])

    directory = os.environ["RAY_TMPDIR"]
    for round_number in range(3 * SCALE):
        gate = nap.remote(0.2)
        refs = [nap.remote(0.01) for _ in range(30)]
        refs += [nap.remote(0, gate) for _ in range(20)]
        refs += [fail_once.remote(f"{directory}/{round_number}-{i}") for i in range(20)]
        refs += [parent.remote() for _ in range(4)]

        def cancel(part: list[Any]) -> None:
            for ref in part:
                ray.cancel(ref)

        threads = [threading.Thread(target=cancel, args=(refs[i::4],)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for ref in refs:
            try:
                assert ray.get(ref, timeout=30) == "done"
            except (ray.exceptions.TaskCancelledError, ray.exceptions.RayTaskError):
                pass
        assert ray.get(gate, timeout=30) == "done"
    wait_until(lambda: ray.available_resources().get("CPU") == 4, 20, "the CPUs to come back")
    assert ray.get([one.remote() for _ in range(20)], timeout=20) == [1] * 20


@pytest.mark.usefixtures("cluster")
def test_generators_dropped_half_consumed() -> None:
    @ray.remote(num_returns="streaming", _generator_backpressure_num_objects=2)
    def stream(n: int) -> Iterator[bytes]:
        for i in range(n):
            yield bytes([i % 256]) * (200_000 if i % 2 else 10)

    for i in range(10 * SCALE):
        generator = stream.remote(50)
        for _ in range(i % 5):
            ray.get(next(generator), timeout=20)
        del generator
    gc.collect()
    wait_until(lambda: ray.available_resources().get("CPU") == 4, 20, "the producers to stop")
    wait_until(lambda: store_objects() == 0, 10, "the items to be freed")


def store_objects() -> int:
    from ray._core.gcs import node_stats

    session = ray.get_runtime_context()._session()
    return int(json.loads(node_stats(session.core))["store"]["num_objects"])


@pytest.mark.usefixtures("cluster")
def test_borrowed_refs_pass_through_many_processes() -> None:
    """Each kind of hand-over of docs/architecture/ownership.md, in chains over several processes."""

    @ray.remote
    def make(size: int) -> list[Any]:
        return [ray.put(b"x" * size)]  # owned by this worker

    @ray.remote
    def wrap(refs: list[Any], depth: int) -> list[Any]:
        return [refs[0]] if depth == 0 else [ray.get(wrap.remote(refs, depth - 1), timeout=30)[0]]

    @ray.remote
    class Keeper:
        def keep(self, refs: list[Any]) -> None:
            self.refs = refs

        def read(self) -> int:
            return len(ray.get(self.refs[0], timeout=30))

        def give(self) -> list[Any]:
            return self.refs

        def hand_to(self, other: Any) -> None:
            ray.get(other.keep.remote(self.refs), timeout=30)
            self.refs = []

    for size in (10, 300_000):
        mine = ray.put(b"y" * size)
        keepers = [Keeper.options(num_cpus=0).remote() for _ in range(3)]
        for start in ([mine], ray.get(make.remote(size), timeout=30)):
            again = ray.get(wrap.remote(start, 2), timeout=30)
            assert len(ray.get(again[0], timeout=30)) == size
            ray.get(keepers[0].keep.remote(again), timeout=30)
            del again
            for a, b in ((0, 1), (1, 2), (2, 0)):
                ray.get(keepers[a].hand_to.remote(keepers[b]), timeout=30)
            assert ray.get(keepers[0].read.remote(), timeout=30) == size
            back = ray.get(keepers[0].give.remote(), timeout=30)
            assert len(ray.get(back[0], timeout=30)) == size
            del back
        del start, mine, keepers
        gc.collect()
    wait_until(lambda: store_objects() == 0, 20, "all copies to be freed")


@pytest.mark.usefixtures("cluster")
def test_actor_handles_passed_around_and_dropped_end_the_actor() -> None:
    @ray.remote
    class Holder:
        def hold(self, handles: list[Any]) -> int:
            self.handle = handles[0]
            return ray.get(self.handle.add.remote(), timeout=30)

        def call(self) -> int:
            return ray.get(self.handle.add.remote(), timeout=30)

        def drop(self) -> None:
            del self.handle

    @ray.remote
    def pass_on(handles: list[Any]) -> list[Any]:
        return handles

    counter = Counter.remote()
    pid = ray.get(counter.pid.remote())
    holder = Holder.options(num_cpus=0).remote()
    handles = ray.get(pass_on.remote(ray.get(pass_on.remote([counter]), timeout=30)), timeout=30)
    assert ray.get(holder.hold.remote(handles), timeout=30) == 1
    del counter, handles
    gc.collect()
    assert ray.get(holder.call.remote(), timeout=30) == 2
    ray.get(holder.drop.remote(), timeout=30)
    wait_until(lambda: not pathlib.Path(f"/proc/{pid}").exists(), 20, "the actor to end with its last handle")


SHUTDOWN = """
import sys, threading, time
import ray

@ray.remote(num_returns="streaming")
def stream():
    yield 1
    time.sleep(600)

@ray.remote
def nap(s): time.sleep(s)

@ray.remote
class A:
    def nap(self, s): time.sleep(s)

for i in range(3):
    ray.init(num_cpus=2, logging_level="ERROR", log_to_driver=False)
    a = A.options(num_cpus=0).remote()
    g = stream.remote()
    ray.get(next(g))
    many = [nap.remote(0.001) for _ in range(20000)]
    calls = [lambda: ray.get(nap.remote(600)), lambda: ray.get(a.nap.remote(600)), lambda: next(g),
             lambda: ray.wait([nap.remote(600)], timeout=600), lambda: ray.get(many)]
    def run(call):
        try: call()
        except BaseException: pass
    threads = [threading.Thread(target=run, args=(c,)) for c in calls]
    for t in threads: t.start()
    time.sleep(0.5)
    began = time.monotonic()
    ray.shutdown()
    took = time.monotonic() - began
    for t in threads: t.join(20)
    print("took", took, "left", sum(t.is_alive() for t in threads), flush=True)
"""


def test_shutdown_amid_everything_ends_at_once_and_init_works_again() -> None:
    done = run_driver(SHUTDOWN, timeout=100)
    lines = [line.split() for line in done.stdout.splitlines()]
    assert len(lines) == 3, done.stderr
    for _, took, _, left in lines:
        assert left == "0"
        assert float(took) < 5  # 2 s on a machine that has nothing else to do


TWO = """
import sys
import ray
ray.init(address={address!r}, logging_level="ERROR", log_to_driver=False)

@ray.remote
def f(i): return i

for _ in range(5):
    assert ray.get([f.remote(i) for i in range(200)], timeout=60) == list(range(200))
print("ok")
"""


@pytest.mark.usefixtures("cluster")
def test_two_drivers_share_the_node() -> None:
    address = ray.get_runtime_context().gcs_address
    results: list[str] = []
    other = threading.Thread(target=lambda: results.append(run_driver(TWO.format(address=address)).stdout.strip()))
    other.start()
    while other.is_alive():
        assert ray.get([one.remote() for _ in range(200)], timeout=60) == [1] * 200
    assert results == ["ok"]


@pytest.mark.usefixtures("cluster")
def test_a_long_task_delays_nobody_and_tasks_that_wait_for_each_other_meet() -> None:
    @ray.remote
    def nap(seconds: float) -> float:
        time.sleep(seconds)
        return time.monotonic()

    ray.get([nap.remote(0) for _ in range(50)])  # short ones: the pipeline is deep now
    began = time.monotonic()
    refs = [nap.remote(8)] + [nap.remote(0) for _ in range(50)]
    assert max(ray.get(refs[1:], timeout=60)) - began < 6

    @ray.remote
    def meet(mine: str, other: str) -> str:
        pathlib.Path(mine).touch()
        end = time.monotonic() + 30
        while not os.path.exists(other):
            assert time.monotonic() < end
            time.sleep(0.01)
        return "met"

    a, b = (os.path.join(os.environ["RAY_TMPDIR"], name) for name in "ab")
    assert ray.get([meet.remote(a, b), meet.remote(b, a)], timeout=60) == ["met", "met"]


@pytest.mark.usefixtures("cluster")
def test_an_idle_cluster_sleeps() -> None:
    counter = Counter.remote()
    ray.get([counter.add.remote(), *[one.remote() for _ in range(100)]])
    time.sleep(1.0)  # leases go back
    pids = [os.getpid(), *descendants(os.getpid())]
    before = {pid: cpu_seconds(pid) for pid in pids}
    time.sleep(3.0)
    used = sum(cpu_seconds(pid) - before[pid] for pid in pids if pathlib.Path(f"/proc/{pid}").exists())
    print("idle CPU share", used / 3)
    assert used / 3 < 0.05  # 1 % is the aim; the clock's tick is 10 ms
