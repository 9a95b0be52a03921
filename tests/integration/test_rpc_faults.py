"""Programs give the right answers though messages are lost, doubled, late or overtaken."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import ray

KINDS = {
    "lost requests": "*=-1:10:0",
    "lost replies": "*=-1:0:10",
    "lost in flight": "*=-1:0:0:10",
    "duplicates": "*=-1:0:0:duplicate=20",
    "delays": "*=-1:0:0:delay=10@10",
    "reordering": "*=-1:0:0:reorder=30",
    "all of it": "*=-1:3:3:3:duplicate=5:delay=5@10:reorder=10",
}


@pytest.fixture(params=KINDS.values(), ids=KINDS.keys())
def cluster(request: pytest.FixtureRequest) -> Iterator[None]:
    faults = {"testing_rpc_failure": request.param, "testing_rpc_failure_seed": 7}
    ray.init(num_cpus=2, logging_level="ERROR", log_to_driver=False, _system_config=faults)
    yield
    ray.shutdown()


@ray.remote
def double(x: Any) -> Any:
    return x + x


@ray.remote
def total(*parts: Any) -> int:
    return int(sum(np.sum(part) for part in parts))


@ray.remote
def nested(n: int) -> list[Any]:
    return [ray.put(np.full(50_000, n)), double.remote(n)]


@ray.remote
def count_to(n: int) -> Iterator[int]:
    yield from range(n)


@ray.remote
class Counter:
    def __init__(self) -> None:
        self.value = 0

    def add(self, n: int) -> int:
        self.value += n
        return self.value


def test_a_program_of_everything_gives_the_right_answers(cluster: None) -> None:
    # Tasks, with inlined and stored arguments.
    assert ray.get([double.remote(i) for i in range(100)], timeout=50) == [2 * i for i in range(100)]
    big = ray.put(np.ones(100_000))
    assert ray.get(total.remote(big, double.remote(big)), timeout=50) == 300_000
    # Refs inside of values, of several owners.
    for n in range(5):
        stored, made = ray.get(nested.remote(n), timeout=50)
        assert ray.get(total.remote(stored, made), timeout=50) == 50_000 * n + 2 * n
    # Each call of an actor once, and in order.
    counters = [Counter.options(name=f"counter-{i}").remote() for i in range(2)]
    for counter in counters:
        assert ray.get([counter.add.remote(1) for _ in range(100)], timeout=50) == list(range(1, 101))
    assert ray.get(ray.get_actor("counter-1").add.remote(0), timeout=50) == 100
    ray.kill(counters[0])
    with pytest.raises(ray.exceptions.ActorDiedError):
        ray.get(counters[0].add.remote(1), timeout=50)
    # Generators: each item once.
    assert [ray.get(ref, timeout=50) for ref in count_to.remote(50)] == list(range(50))
    # Placement groups.
    group = ray.util.placement_group([{"CPU": 1}, {"CPU": 1}], strategy="PACK")
    ray.get(group.ready(), timeout=50)
    where = ray.util.scheduling_strategies.PlacementGroupSchedulingStrategy(group)
    assert ray.get(double.options(scheduling_strategy=where).remote(4), timeout=50) == 8
    ray.util.remove_placement_group(group)
    # Nothing is kept: what was leased or reserved twice would hold CPUs for good.
    assert ray.get([double.remote(i) for i in range(20)], timeout=50) == [2 * i for i in range(20)]


def test_what_cannot_be_done_is_refused_at_once() -> None:
    for bad, what in (("NoSuchMethod=1:1:1", "no method 'NoSuchMethod'"), ("*=-1:100:0", "95 %")):
        with pytest.raises((ValueError, ray.exceptions.RaySystemError), match=what):
            ray.init(num_cpus=1, logging_level="ERROR", _system_config={"testing_rpc_failure": bad})
        assert not ray.is_initialized()


def test_the_environment_reaches_every_process() -> None:
    program = """
        import ray
        ray.init(num_cpus=1, logging_level="ERROR")

        @ray.remote
        def setting():
            return ray._config.testing_rpc_failure()

        print(ray.get(setting.remote(), timeout=30))
    """
    environment = {"RAY_testing_rpc_failure": "PushTask=5:20:20"}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.split() == ["PushTask=5:20:20"], done.stderr
