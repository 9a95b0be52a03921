"""Pools on a cluster: failures in the middle, graceful close, replacement of workers, dead actors."""

from __future__ import annotations

import contextlib
import gc
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.processes import wait_until

import ray
from ray.exceptions import ActorDiedError
from ray.util import ActorPool
from ray.util.multiprocessing import Pool
from ray.util.queue import Empty, Queue


@pytest.fixture(autouse=True)
def cluster(own_tmpdir: Path) -> Iterator[None]:
    ray.init(num_cpus=2, logging_level="ERROR")
    yield
    ray.shutdown()


def test_imap_goes_on_after_an_item_that_failed() -> None:
    with Pool(2) as pool:
        results = pool.imap(lambda x: 1 / x, [1, 0, 2])
        assert next(results) == 1
        with pytest.raises(ZeroDivisionError) as raised:
            next(results)
        assert type(raised.value) is ZeroDivisionError
        assert "1 / x" in str(raised.value.__cause__)
        assert list(results) == [0.5]


def test_close_lets_a_started_imap_finish() -> None:
    pool = Pool(1)
    results = pool.imap(lambda x: x, range(20))
    pool.close()
    pool.join()
    assert list(results) == list(range(20))


def test_worker_is_replaced_after_its_chunks() -> None:
    with Pool(1, maxtasksperchild=2) as pool:
        pids = [pool.apply(os.getpid) for _ in range(4)]
    assert pids[0] == pids[1] != pids[2] == pids[3]


def test_workers_that_were_replaced_leave_nothing_behind() -> None:
    with Pool(1, maxtasksperchild=1) as pool:
        for _ in range(5):
            pool.apply(os.getpid)
            ray.wait(pool._leaving, num_returns=len(pool._leaving))
        assert len(pool._leaving) == 1


def test_an_imap_of_a_pool_that_was_terminated_says_so() -> None:
    pool = Pool(1)
    results = pool.imap(lambda x: x, range(20))
    assert next(results) == 0
    pool.terminate()
    with pytest.raises(ValueError, match="Pool not running"):
        while True:
            with contextlib.suppress(ray.exceptions.RayActorError):
                next(results)


def fails(_: int) -> None:
    raise LookupError("on purpose")


def fail_in_a_pool(pool: Pool, queue: Queue) -> None:
    pool.map(fails, [1])


def fail_in_an_imap(pool: Pool, queue: Queue) -> None:
    list(pool.imap(fails, [1, 2, 3]))


def leave_an_imap_that_is_done(pool: Pool, queue: Queue) -> None:
    assert list(pool.imap(abs, [-1])) == [1]
    raise LookupError("done")


def find_nothing_in_a_queue(pool: Pool, queue: Queue) -> None:
    try:
        queue.get(block=False)
    except Empty as error:
        assert type(error) is Empty
        raise LookupError("it was empty") from None


def fail_in_a_future(pool: Pool, queue: Queue) -> None:
    @ray.remote
    def task() -> None:
        fails(1)

    task.remote().future().result(20)


@pytest.mark.parametrize(
    "fail",
    [fail_in_a_pool, fail_in_an_imap, leave_an_imap_that_is_done, find_nothing_in_a_queue, fail_in_a_future],
    ids=lambda fail: fail.__name__,
)
def test_errors_hold_nothing_once_they_are_handled(fail: Callable[[Pool, Queue], None]) -> None:
    """Frames, and with them the refs and the connection of the program, are not left to the garbage collector."""

    class Local:
        pass

    def attempt() -> weakref.ref[Local]:
        local = Local()
        with Pool(1) as pool:
            try:
                fail(pool, queue)
            except LookupError:
                return weakref.ref(local)
        raise AssertionError("it did not fail")

    queue = Queue()
    gc.collect()
    gc.disable()
    try:
        left = attempt()
        # The thread of the futures has another step to take after it has given the value.
        wait_until(lambda: left() is None, 5, "the frame to be gone")
    finally:
        gc.enable()


def test_callbacks() -> None:
    done, failed, said = [], [], threading.Semaphore(0)
    with Pool(1) as pool:
        pool.apply_async(lambda: 5, callback=lambda v: (done.append(v), said.release()))
        pool.apply_async(lambda: 1 / 0, error_callback=lambda e: (failed.append(e), said.release()))
        assert said.acquire(timeout=30) and said.acquire(timeout=30)
    assert done == [5] and isinstance(failed[0], ZeroDivisionError)


def test_pool_is_not_larger_than_the_cluster() -> None:
    for processes in (0, 3):
        with pytest.raises(ValueError):
            Pool(processes)


def test_dead_actor_leaves_the_actor_pool() -> None:
    @ray.remote(num_cpus=0)
    class Worker:
        def work(self, fatal: bool) -> int:
            if fatal:
                os._exit(1)
            return 7

    pool = ActorPool([Worker.remote()])
    pool.submit(lambda a, v: a.work.remote(v), True)
    with pytest.raises(ActorDiedError):
        pool.get_next()
    assert not pool.has_free()
    pool.push(Worker.remote())
    assert list(pool.map(lambda a, v: a.work.remote(v), [False, False])) == [7, 7]
