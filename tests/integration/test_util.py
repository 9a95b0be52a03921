"""Pools on a cluster: failures in the middle, graceful close, replacement of workers, dead actors."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import ray
from ray.exceptions import ActorDiedError
from ray.util import ActorPool
from ray.util.multiprocessing import Pool


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
