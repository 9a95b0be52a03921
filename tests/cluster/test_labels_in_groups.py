"""A label selector beside a placement group: the bundle and the labels of its node must both do."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

import ray
from ray.cluster_utils import Cluster
from ray.util.placement_group import PlacementGroup, placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy
from ray.util.state import Explanation, explain


@ray.remote(num_cpus=0.1)
def node() -> str:
    return ray.get_runtime_context().get_node_id()


@ray.remote(num_cpus=0.1)
class Where:
    def node(self) -> str:
        return ray.get_runtime_context().get_node_id()


@pytest.fixture
def group(cluster: Cluster) -> PlacementGroup:
    """One bundle on each of three nodes of other zones, in an order that nobody chose."""
    for zone in "abc":
        cluster.add_node(num_cpus=1, labels={"zone": zone})
    ray.init(address=cluster.address)
    made = placement_group([{"CPU": 1}] * 3, strategy="STRICT_SPREAD")
    assert made.wait(30)
    return made


def in_group(group: PlacementGroup, index: int = -1, **options: Any) -> dict[str, Any]:
    return {"scheduling_strategy": PlacementGroupSchedulingStrategy(group, index), **options}


def nodes_by_zone() -> dict[str, str]:
    return {n["Labels"]["zone"]: n["NodeID"] for n in ray.nodes() if n["Alive"]}


def index_of(group: PlacementGroup, zone: str) -> int:
    placed = ray.util.placement_group_table(group)["bundles_to_node_id"]
    return next(index for index, node_id in placed.items() if node_id == nodes_by_zone()[zone])


def until(subject: ray.ObjectRef, holds: Callable[[Explanation], bool]) -> Explanation:
    """Its explanation, once `holds` of it."""
    deadline = time.monotonic() + 30
    while not holds(found := explain(subject)):
        assert time.monotonic() < deadline, f"not as expected within 30 s:\n{found}"
        time.sleep(0.01)
    return found


def test_any_bundle_on_a_node_with_the_labels(group: PlacementGroup) -> None:
    nodes = nodes_by_zone()
    refs = [node.options(**in_group(group, label_selector={"zone": "b"})).remote() for _ in range(100)]
    assert set(ray.get(refs, timeout=60)) == {nodes["b"]}
    either = node.options(**in_group(group, label_selector={"zone": "in(a,c)"}))
    assert set(ray.get([either.remote() for _ in range(50)], timeout=60)) <= {nodes["a"], nodes["c"]}
    fallback = {"label_selector": {"zone": "x"}, "fallback_strategy": [{"label_selector": {"zone": "c"}}]}
    assert ray.get(node.options(**in_group(group, **fallback)).remote(), timeout=60) == nodes["c"]
    actors = [Where.options(**in_group(group, label_selector={"zone": "!a"})).remote() for _ in range(4)]
    assert set(ray.get([actor.node.remote() for actor in actors], timeout=60)) <= {nodes["b"], nodes["c"]}
    only = Where.options(**in_group(group, **fallback)).remote()
    assert ray.get(only.node.remote(), timeout=60) == nodes["c"]


def test_a_bundle_whose_node_has_other_labels(group: PlacementGroup) -> None:
    index = index_of(group, "a")
    assert ray.get(node.options(**in_group(group, index, label_selector={"zone": "a"})).remote(), timeout=60)
    task = node.options(**in_group(group, index, label_selector={"zone": "b"})).remote()
    actor = Where.options(**in_group(group, index, label_selector={"zone": "b"})).remote()
    call = actor.node.remote()
    until(task, lambda found: "no bundle that it may use is on a node with the labels {zone: b}" in str(found))
    until(call, lambda found: "that it may use is on a node with the labels {zone: b}" in str(found))
    assert ray.wait([task, call], num_returns=2, timeout=1)[0] == []
    ray.cancel(task)
    with pytest.raises(ray.exceptions.TaskCancelledError):
        ray.get(task, timeout=30)


def test_what_waits_goes_to_the_bundle_that_comes_to_a_better_node(cluster: Cluster, group: PlacementGroup) -> None:
    waiting = [node.options(**in_group(group, label_selector={"zone": "d"})).remote() for _ in range(30)]
    actor = Where.options(**in_group(group, label_selector={"zone": "d"})).remote()
    call = actor.node.remote()
    found = until(waiting[0], lambda found: "INFEASIBLE" in str(found))
    assert "no bundle that it may use is on a node with the labels {zone: d}" in str(found)
    assert "unblocked by: a bundle of its placement group coming to a node" in str(found)
    doomed = cluster.list_all_nodes()[2]
    cluster.remove_node(doomed, allow_graceful=False)
    added = cluster.add_node(num_cpus=1, labels={"zone": "d"})
    assert set(ray.get([*waiting, call], timeout=60)) == {added.node_id}
