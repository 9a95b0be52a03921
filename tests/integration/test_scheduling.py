"""Where and in which order tasks run on one node, from the outside."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

import ray
from ray.util.scheduling_strategies import (
    DoesNotExist,
    Exists,
    In,
    NodeAffinitySchedulingStrategy,
    NodeLabelSchedulingStrategy,
    NotIn,
)


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    ray.init(num_cpus=1, labels={"zone": "east", "tier": "gold"}, object_store_memory=100 << 20)
    yield
    ray.shutdown()


@ray.remote(num_cpus=0)
class Journal:
    def __init__(self) -> None:
        self.entries: list[Any] = []
        self.open = False

    def note(self, entry: Any) -> None:
        self.entries.append(entry)

    def read(self) -> list[Any]:
        return self.entries

    def gate(self) -> bool:
        return self.open

    def open_gate(self) -> None:
        self.open = True


@ray.remote
def note(journal: Any, entry: Any, seconds: float = 0) -> None:
    time.sleep(seconds)
    ray.get(journal.note.remote(entry))


@ray.remote(num_cpus=1)
class Hold:
    def ping(self) -> bool:
        return True


def test_the_highest_priority_goes_first() -> None:
    journal = Journal.remote()
    hold = Hold.remote()
    assert ray.get(hold.ping.remote(), timeout=20)
    refs = []
    for priority in (0, -3, 7, 2):
        refs += [note.options(priority=priority).remote(journal, priority) for _ in range(2)]
    assert ray.wait(refs, timeout=0.3)[0] == []
    ray.kill(hold)
    ray.get(refs, timeout=30)
    assert ray.get(journal.read.remote()) == [7, 7, 2, 2, 0, 0, -3, -3]


def test_a_higher_priority_need_not_wait_for_a_long_queue() -> None:
    journal = Journal.remote()
    low = [note.options(priority=-1).remote(journal, "low", 0.03) for _ in range(100)]
    ray.wait(low, num_returns=5, timeout=20)
    ray.get(note.options(priority=1).remote(journal, "high"), timeout=20)
    assert ray.get(journal.read.remote()).index("high") < 60
    ray.get(low, timeout=30)


def test_another_shape_need_not_wait_for_a_long_queue() -> None:
    journal = Journal.remote()
    many = [note.remote(journal, "many", 0.03) for _ in range(100)]
    ray.wait(many, num_returns=5, timeout=20)
    ray.get(note.options(num_cpus=0.5).remote(journal, "other"), timeout=20)
    assert ray.get(journal.read.remote()).index("other") < 60
    ray.get(many, timeout=30)


@pytest.mark.parametrize("priority", [1.5, "high", 1 << 40, True])
def test_bad_priorities(priority: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        note.options(priority=priority)


@ray.remote
def yes() -> bool:
    return True


@pytest.mark.parametrize(
    "options, runs",
    [
        ({"label_selector": {"zone": "east"}}, True),
        ({"label_selector": {"zone": "!east"}}, False),
        ({"label_selector": {"zone": "in(west,east)", "tier": "!silver"}}, True),
        ({"label_selector": {"none": "!in(a,b)"}}, True),
        ({"label_selector": {"zone": "mars"}}, False),
        ({"label_selector": {"zone": "mars"}, "fallback_strategy": [{"label_selector": {"tier": "gold"}}]}, True),
        ({"scheduling_strategy": NodeLabelSchedulingStrategy({"zone": In("east", "west"), "x": DoesNotExist()})}, True),
        ({"scheduling_strategy": NodeLabelSchedulingStrategy({"zone": NotIn("east")})}, False),
        ({"scheduling_strategy": NodeLabelSchedulingStrategy({"x": Exists()})}, False),
        ({"scheduling_strategy": NodeLabelSchedulingStrategy(None, soft={"zone": In("mars")})}, True),
        ({"scheduling_strategy": "SPREAD"}, True),
    ],
)
def test_labels_decide_where(options: dict[str, Any], runs: bool) -> None:
    ref = yes.options(**options).remote()
    actor = Hold.options(num_cpus=0, **options).remote()
    if runs:
        assert ray.get([ref, actor.ping.remote()], timeout=20) == [True, True]
        return
    assert ray.wait([ref, actor.ping.remote()], timeout=0.3)[0] == []
    ray.cancel(ref)
    with pytest.raises(ray.exceptions.TaskCancelledError):
        ray.get(ref, timeout=20)


def test_affinity() -> None:
    here = ray.get_runtime_context().get_node_id()
    nowhere = ray.NodeID.from_random().hex()
    assert ray.get(
        yes.options(scheduling_strategy=NodeAffinitySchedulingStrategy(here, soft=False)).remote(), timeout=20
    )
    assert ray.get(
        yes.options(scheduling_strategy=NodeAffinitySchedulingStrategy(nowhere, soft=True)).remote(), timeout=20
    )
    stay = NodeAffinitySchedulingStrategy(here, soft=False)
    assert ray.get(yes.options(scheduling_strategy=stay, label_selector={"zone": "east"}).remote(), timeout=20)
    with pytest.raises(ray.exceptions.TaskUnschedulableError, match="none of the labels"):
        ray.get(yes.options(scheduling_strategy=stay, label_selector={"zone": "mars"}).remote(), timeout=20)
    hard = NodeAffinitySchedulingStrategy(nowhere, soft=False)
    with pytest.raises(ray.exceptions.TaskUnschedulableError, match="not part of the cluster"):
        ray.get(yes.options(scheduling_strategy=hard).remote(), timeout=20)
    with pytest.raises(ray.exceptions.ActorUnschedulableError):
        ray.get(Hold.options(scheduling_strategy=hard).remote().ping.remote(), timeout=20)


def test_affinity_that_must_not_wait() -> None:
    here = ray.get_runtime_context().get_node_id()
    hold = Hold.remote()
    assert ray.get(hold.ping.remote(), timeout=20)
    at_once = NodeAffinitySchedulingStrategy(here, soft=False, _fail_on_unavailable=True)
    with pytest.raises(ray.exceptions.TaskUnschedulableError, match="no room now"):
        ray.get(yes.options(scheduling_strategy=at_once).remote(), timeout=20)
    ray.kill(hold)
