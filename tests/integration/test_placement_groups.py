"""Placement groups on one node, from the outside."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.actors import Counting

import ray
from ray.util import (
    get_current_placement_group,
    get_placement_group,
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy as InGroup


def wait_for(condition: Callable[[], Any], timeout: float = 20) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "not within time"
        time.sleep(0.01)


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    ray.init(num_cpus=4, num_gpus=2, resources={"disk": 2}, object_store_memory=100 << 20, namespace="groups")
    yield
    ray.shutdown()


@pytest.fixture
def group() -> Iterator[Callable[..., PlacementGroup]]:
    made: list[PlacementGroup] = []

    def make(*args: Any, **kwargs: Any) -> PlacementGroup:
        made.append(placement_group(*args, **kwargs))
        return made[-1]

    yield make
    for pg in made:
        remove_placement_group(pg)
    wait_for(lambda: ray.available_resources().get("CPU") == 4)


@ray.remote
def where() -> tuple[str | None, str | None]:
    current = get_current_placement_group()
    return (current.id.hex() if current else None), ray.get_runtime_context().get_placement_group_id()


@ray.remote(num_cpus=1)
class Counter(Counting):
    def ids(self) -> list[int]:
        return ray.get_gpu_ids()


def test_life_and_table(group: Callable[..., PlacementGroup]) -> None:
    pg = group([{"CPU": 1}, {"disk": 0.5}], strategy="STRICT_PACK", name="first")
    assert pg.wait(10)
    assert ray.get(pg.ready(), timeout=10) == pg
    row = placement_group_table(pg)
    node = ray.get_runtime_context().get_node_id()
    assert row["bundles"] == {0: {"CPU": 1}, 1: {"disk": 0.5}}
    assert row["bundles_to_node_id"] == {0: node, 1: node}
    assert (row["state"], row["strategy"], row["name"]) == ("CREATED", "STRICT_PACK", "first")
    assert row["stats"]["scheduling_attempt"] == 1
    assert get_placement_group("first") == pg
    assert get_placement_group("first").bundle_specs == pg.bundle_specs == [{"CPU": 1}, {"disk": 0.5}]
    with pytest.raises(ValueError, match="exists"):
        placement_group([{"CPU": 1}], name="first")
    assert row["stats"]["scheduling_state"] == "FINISHED"
    remove_placement_group(pg)
    remove_placement_group(pg)
    row = placement_group_table(pg)
    assert (row["state"], row["stats"]["scheduling_state"]) == ("REMOVED", "REMOVED")
    with pytest.raises(ValueError):
        get_placement_group("first")


def test_resources_are_set_aside_and_shown(group: Callable[..., PlacementGroup]) -> None:
    pg = group([{"CPU": 3}])
    assert pg.wait(10)
    name = pg.id.hex()
    wait_for(lambda: ray.available_resources()["CPU"] == 1)
    free = ray.available_resources()
    assert not [key for node in ray.nodes() for key in node["Resources"] if "_group_" in key]
    assert free[f"CPU_group_{name}"] == free[f"CPU_group_0_{name}"] == 3
    with pytest.raises(ray.exceptions.GetTimeoutError):
        ray.get(where.options(num_cpus=2).remote(), timeout=0.3)
    assert ray.get(where.options(num_cpus=2, scheduling_strategy=InGroup(pg)).remote(), timeout=10) == (name, name)


def test_why_a_group_waits_in_rays_words(group: Callable[..., PlacementGroup]) -> None:
    def is_said(pg: PlacementGroup, word: str) -> bool:
        row = placement_group_table(pg)
        return row["state"] == "PENDING" and row["stats"]["scheduling_state"] == word

    all_of_it = ray.cluster_resources()["disk"]
    never = group([{"disk": all_of_it + 1}])
    wait_for(lambda: is_said(never, "INFEASIBLE"))
    holder = group([{"disk": all_of_it}])
    assert holder.wait(10)
    later = group([{"disk": 1}])
    wait_for(lambda: is_said(later, "NO_RESOURCES"))


def test_a_bundle_is_a_limit_and_indices_are_kept(group: Callable[..., PlacementGroup]) -> None:
    pg = group([{"CPU": 1}, {"CPU": 2}])
    assert pg.wait(10)
    one = Counter.options(scheduling_strategy=InGroup(pg, 0)).remote()
    assert ray.get(one.add.remote(), timeout=10) == 1
    two = Counter.options(scheduling_strategy=InGroup(pg, 0)).remote()
    waiting = two.add.remote()
    assert ray.wait([waiting], timeout=0.3)[0] == []
    anywhere = Counter.options(scheduling_strategy=InGroup(pg)).remote()
    assert ray.get(anywhere.add.remote(), timeout=10) == 1
    ray.kill(one)
    assert ray.get(waiting, timeout=10) == 1


def test_gpus_of_a_bundle(group: Callable[..., PlacementGroup]) -> None:
    pg = group([{"CPU": 1, "GPU": 1}, {"CPU": 1, "GPU": 1}])
    assert pg.wait(10)
    actors = [Counter.options(num_gpus=1, scheduling_strategy=InGroup(pg, i)).remote() for i in range(2)]
    assert sorted(i for ids in ray.get([a.ids.remote() for a in actors], timeout=10) for i in ids) == [0, 1]


@pytest.mark.parametrize("capture", [True, False, None])
def test_children_inherit_when_asked(group: Callable[..., PlacementGroup], capture: bool | None) -> None:
    pg = group([{"CPU": 2}])
    assert pg.wait(10)

    @ray.remote(num_cpus=1)
    def parent() -> Any:
        actor = Counter.remote()
        mine = ray.get_runtime_context().should_capture_child_tasks_in_placement_group
        return ray.get(where.remote())[0], ray.get(actor.add.remote()), mine, ray.get(where.remote())[0]

    strategy = InGroup(pg, 0, capture)
    expected = pg.id.hex() if capture else None
    assert ray.get(parent.options(scheduling_strategy=strategy).remote(), timeout=10) == (
        expected,
        1,
        bool(capture),
        expected,
    )


def test_children_that_do_not_fit_are_refused(group: Callable[..., PlacementGroup]) -> None:
    pg = group([{"CPU": 1}])
    assert pg.wait(10)

    @ray.remote(num_cpus=1)
    def parent() -> str:
        try:
            where.options(num_cpus=2).remote()
        except ValueError as error:
            return str(error)
        return ""

    assert "do not fit" in ray.get(parent.options(scheduling_strategy=InGroup(pg, 0, True)).remote(), timeout=10)


def test_requests_that_fit_no_bundle(group: Callable[..., PlacementGroup]) -> None:
    pg = group([{"CPU": 1}])
    for options in (
        {"num_cpus": 2, "scheduling_strategy": InGroup(pg)},
        {"scheduling_strategy": InGroup(pg, 1)},
        {"scheduling_strategy": InGroup(pg, -2)},
        {"resources": {"disk": 1}, "scheduling_strategy": InGroup(pg)},
        {"scheduling_strategy": InGroup(PlacementGroup.empty(), 0)},
        {"placement_group_bundle_index": 0},
    ):
        with pytest.raises(ValueError):
            where.options(**options).remote()
        with pytest.raises(ValueError):
            Counter.options(**options).remote()


def test_old_options(group: Callable[..., PlacementGroup]) -> None:
    pg = group([{"CPU": 1}])
    with pytest.warns(DeprecationWarning, match="scheduling_strategy"):
        ref = where.options(placement_group=pg, placement_group_bundle_index=0).remote()
    assert ray.get(ref, timeout=10)[0] == pg.id.hex()
    with pytest.raises(ValueError):
        where.options(placement_group="somewhere").remote()
    for nothing in (PlacementGroup.empty(), None):
        assert ray.get(where.options(scheduling_strategy=InGroup(nothing)).remote(), timeout=10)[0] is None
    with pytest.raises(TypeError, match="somewhere"):
        where.options(scheduling_strategy=InGroup("somewhere")).remote()


def test_removal_ends_what_runs_inside(group: Callable[..., PlacementGroup]) -> None:
    pg = group([{"CPU": 1}, {"CPU": 1}])
    assert pg.wait(10)
    actor = Counter.options(scheduling_strategy=InGroup(pg, 0)).remote()
    pid = ray.get(actor.pid.remote(), timeout=10)

    @ray.remote(max_retries=3)
    def forever() -> None:
        time.sleep(600)

    running = forever.options(scheduling_strategy=InGroup(pg, 1)).remote()
    once = forever.options(max_retries=0, scheduling_strategy=InGroup(pg, 1)).remote()
    time.sleep(0.5)  # lets one of them begin, on which nothing depends
    remove_placement_group(pg)
    for ref in (running, once):
        with pytest.raises(ray.exceptions.TaskPlacementGroupRemoved) as failed:
            ray.get(ref, timeout=10)
        assert isinstance(failed.value, ray.exceptions.WorkerCrashedError)
    with pytest.raises(ray.exceptions.ActorDiedError, match="removed") as caught:
        for _ in range(1000):
            ray.get(actor.add.remote(), timeout=10)
    assert isinstance(caught.value, ray.exceptions.ActorPlacementGroupRemoved)
    wait_for(lambda: not os.path.exists(f"/proc/{pid}"))


def test_removal_fails_who_waits_at_once(group: Callable[..., PlacementGroup]) -> None:
    never = group([{"CPU": 400}])
    assert never.wait(0.1) is False
    task = where.options(scheduling_strategy=InGroup(never)).remote()
    actor = Counter.options(scheduling_strategy=InGroup(never)).remote()
    call = actor.add.remote()
    ready = never.ready()
    assert ray.wait([task, call, ready], timeout=0.3)[0] == []
    remove_placement_group(never)
    for ref, error in (
        (task, ray.exceptions.TaskPlacementGroupRemoved),
        (call, ray.exceptions.ActorPlacementGroupRemoved),
        (ready, ray.exceptions.TaskPlacementGroupRemoved),
    ):
        with pytest.raises(error):
            ray.get(ref, timeout=5)
    with pytest.raises(ray.exceptions.ActorUnschedulableError, match="never ran") as caught:
        ray.get(call, timeout=5)
    assert caught.value.error_message == str(caught.value)
    assert never.wait(10) is False
    # Later ones, too.
    with pytest.raises(ray.exceptions.TaskPlacementGroupRemoved):
        ray.get(where.options(scheduling_strategy=InGroup(never)).remote(), timeout=5)
    with pytest.raises(ray.exceptions.ActorPlacementGroupRemoved):
        ray.get(Counter.options(scheduling_strategy=InGroup(never)).remote().add.remote(), timeout=5)


def test_tasks_that_wait_for_the_group_run_when_it_comes(group: Callable[..., PlacementGroup]) -> None:
    first = group([{"CPU": 4}])
    assert first.wait(10)
    second = group([{"CPU": 2}])
    task = where.options(scheduling_strategy=InGroup(second)).remote()
    actor = Counter.options(scheduling_strategy=InGroup(second)).remote()
    cancelled = where.options(scheduling_strategy=InGroup(second)).remote()
    assert ray.wait([task], timeout=0.2)[0] == []
    ray.cancel(cancelled)
    with pytest.raises(ray.exceptions.TaskCancelledError):
        ray.get(cancelled, timeout=10)
    remove_placement_group(first)
    ray.get(task, timeout=10)
    assert ray.get(actor.add.remote(), timeout=10) == 1


def test_a_group_can_be_passed_on(group: Callable[..., PlacementGroup]) -> None:
    pg = group([{"CPU": 1}])

    @ray.remote(num_cpus=0)
    def use(pg: PlacementGroup) -> Any:
        assert pg.wait(10)
        return ray.get(where.options(scheduling_strategy=InGroup(pg, 0)).remote()), ray.get(pg.ready()).id.hex()

    name = pg.id.hex()
    assert ray.get(use.remote(pg), timeout=20) == ((name, name), name)


def test_many_groups(group: Callable[..., PlacementGroup]) -> None:
    groups = [placement_group([{"CPU": 0.01}]) for _ in range(200)]
    assert all(pg.wait(10) for pg in groups)
    for pg in groups:
        remove_placement_group(pg)
    wait_for(lambda: ray.available_resources().get("CPU") == 4)


@pytest.mark.parametrize(
    "kwargs",
    [
        {"bundles": []},
        {"bundles": [{}]},
        {"bundles": [{"CPU": 0}]},
        {"bundles": {"CPU": 1}},
        {"bundles": [{"CPU": -1}]},
        {"bundles": [{"CPU": 0.00001}]},
        {"bundles": [{"CPU": "1"}]},
        {"bundles": [{"bundle": 1}]},
        {"bundles": [{"CPU": 1}], "strategy": "ANYWHERE"},
        {"bundles": [{"CPU": 1}], "lifetime": "forever"},
        {"bundles": [{"CPU": 1}], "bundle_label_selector": [{}, {}]},
        {"bundles": [{"CPU": 1}], "bundle_label_selector": []},
        {"bundles": [{"CPU": 1}], "bundle_label_selector": [{"a b": "c"}]},
        {"bundles": [{"CPU": 1}], "bundle_label_selector": [{"zone": 1}]},
        {"bundles": [{"CPU": 1}], "bundle_label_selector": [{1: "a"}]},
        {"bundles": [{"CPU": 1}], "strategy": "PACK", "_soft_target_node_id": "00" * 28},
        {"bundles": [{"CPU": 1}], "strategy": "STRICT_PACK", "_soft_target_node_id": "xyz"},
        {"bundles": [{"CPU": 1}], "strategy": "PACK", "topology_strategy": {"zone": "STRICT_PACK"}},
        {"bundles": [{"CPU": 1}], "topology_strategy": {"zone": "SPREAD"}},
        {"bundles": [{"CPU": 1}], "topology_strategy": {"a": "STRICT_PACK", "b": "STRICT_PACK", "c": "STRICT_PACK"}},
    ],
)
def test_bad_arguments(kwargs: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        placement_group(**kwargs)


def test_groups_of_others() -> None:
    with pytest.raises(ValueError):
        get_placement_group("")
    with pytest.raises(ValueError):
        get_placement_group("no such group")
    assert get_current_placement_group() is None
    from ray._raylet import PlacementGroupID

    unknown = PlacementGroup(PlacementGroupID.of(ray.JobID.from_int(1)))
    assert placement_group_table(unknown) == {}
    assert unknown.wait(5) is False
    with pytest.raises(ValueError):
        _ = unknown.bundle_specs
