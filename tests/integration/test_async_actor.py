"""Async actors where the timing between the core's thread and the event loop matters."""

import time

import pytest

import ray


@ray.remote(num_cpus=0)
class _Slow:
    async def block(self, seconds: float) -> None:
        time.sleep(seconds)  # on purpose not asyncio's: the loop sees nothing meanwhile

    async def quick(self, value: int) -> int:
        return value


@pytest.fixture
def actor():
    ray.init("local", num_cpus=1, include_dashboard=False)
    actor = _Slow.remote()
    ray.get(actor.quick.remote(0))
    yield actor
    ray.shutdown()


def test_a_call_that_is_cancelled_before_its_first_step_is_answered(actor):
    busy = actor.block.remote(1.0)
    time.sleep(0.3)  # the loop is blocked now
    before, unwanted, after = (actor.quick.remote(i) for i in range(3))
    time.sleep(0.2)  # now they are with the loop, which is blocked, and no longer with the core
    ray.cancel(unwanted)
    with pytest.raises(ray.exceptions.TaskCancelledError):
        ray.get(unwanted, timeout=20)
    assert ray.get([busy, before, after], timeout=20) == [None, 0, 2]


def test_a_batch_of_quick_calls_does_not_wait_for_a_slow_one_behind_it(actor):
    values = [actor.quick.remote(i) for i in range(50)]
    busy = actor.block.remote(3.0)
    started = time.monotonic()
    assert ray.get(values, timeout=20) == list(range(50))
    assert time.monotonic() - started < 2.5
    ray.get(busy)
