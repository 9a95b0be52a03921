"""Objects held by processes of several nodes: borrowed, nested, spilled, and what their owner's death makes of them."""

from __future__ import annotations

import gc
import json
import os
import signal
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support.nodes import HandCluster
from support.processes import wait_until

import ray

MB = 1 << 20
ClusterOf = Callable[..., HandCluster]


@ray.remote(num_cpus=0)
class Holder:
    """A process that owns and borrows objects."""

    def __init__(self) -> None:
        self.kept: list[Any] = []

    def put(self, value: int, mb: int) -> list[ray.ObjectRef]:
        return [ray.put(np.full(mb * MB, value, np.uint8))]

    def keep(self, refs: list[ray.ObjectRef]) -> None:
        self.kept = refs

    def drop(self) -> None:
        self.kept = []
        gc.collect()

    def read(self) -> int:
        return int(ray.get(self.kept[0], timeout=60)[-1])

    def owner(self) -> str:
        return ray.get_runtime_context().get_worker_id()

    def used(self) -> int:
        from ray._core.gcs import node_stats
        from ray._runtime.session import require_session

        return int(json.loads(node_stats(require_session().core))["store"]["used"])


def on(number: int) -> Any:
    return Holder.options(resources={f"n{number}": 0.01}).remote()


def test_a_borrower_on_a_third_node_keeps_the_value(cluster_of: ClusterOf) -> None:
    cluster = cluster_of(3)
    cluster.connect()
    owner, borrower = on(1), on(2)
    refs = ray.get(owner.put.remote(7, 8), timeout=60)
    ray.get(borrower.keep.remote(refs), timeout=60)
    del refs
    gc.collect()
    assert ray.get(borrower.read.remote(), timeout=60) == 7
    ray.get(borrower.drop.remote(), timeout=60)
    wait_until(
        lambda: max(ray.get([owner.used.remote(), borrower.used.remote()], timeout=60)) < MB,
        20,
        "both copies go with the last borrower",
    )


def test_refs_inside_values_live_as_long_as_these(cluster_of: ClusterOf) -> None:
    cluster = cluster_of(2)
    cluster.connect()
    inner = ray.put(np.full(8 * MB, 5, np.uint8))
    outer = ray.put([inner])
    borrower = on(1)
    ray.get(borrower.keep.remote([outer]), timeout=60)
    del inner, outer
    gc.collect()

    def inside(self: Any) -> int:
        return int(ray.get(ray.get(self.kept[0], timeout=60)[0], timeout=60)[-1])

    assert ray.get(borrower.__ray_call__.remote(inside), timeout=60) == 5
    ray.get(borrower.drop.remote(), timeout=60)
    wait_until(lambda: ray.get(on(0).used.remote(), timeout=60) < MB, 20, "the inner value goes with the outer one")


def test_the_death_of_an_owner_is_told_with_its_address(cluster_of: ClusterOf) -> None:
    cluster = cluster_of(3)
    cluster.connect()
    owner, borrower = on(1), on(2)
    owner_id = ray.get(owner.owner.remote(), timeout=60)
    refs = ray.get(owner.put.remote(7, 8), timeout=60)
    ray.get(borrower.keep.remote(refs), timeout=60)
    ray.kill(owner)
    with pytest.raises(ray.exceptions.OwnerDiedError) as lost:
        ray.get(refs[0], timeout=60)
    assert owner_id in str(lost.value)
    with pytest.raises(ray.exceptions.RayTaskError, match="OwnerDiedError"):
        ray.get(borrower.read.remote(), timeout=60)


def test_spilled_values_are_restored_for_other_nodes(cluster_of: ClusterOf) -> None:
    cluster = cluster_of(2)
    cluster.connect()
    reader = on(1)
    refs = [ray.put(np.full(20 * MB, i, np.uint8)) for i in range(8)]  # more than the store of 100 MB holds
    for i, ref in enumerate(refs):
        ray.get(reader.keep.remote([ref]), timeout=60)
        assert ray.get(reader.read.remote(), timeout=60) == i


def test_a_primary_copy_stays_where_copies_must_make_room(cluster_of: ClusterOf) -> None:
    cluster = cluster_of(2)
    cluster.connect()
    there = on(1)
    [mine] = ray.get(there.put.remote(1, 30), timeout=60)  # a primary copy on node 1
    refs = [ray.put(np.full(20 * MB, i, np.uint8)) for i in range(5)]
    for i, ref in enumerate(refs):  # copies that are not primary come and go there
        ray.get(there.keep.remote([ref]), timeout=60)
        assert ray.get(there.read.remote(), timeout=60) == i
    assert ray.get(mine, timeout=60)[-1] == 1
    assert cluster.node_id(1) in ray.experimental.get_object_locations([mine])[mine]["node_ids"]


def test_the_end_of_a_borrower_that_never_turned_to_the_owner_is_told_to_it(cluster_of: ClusterOf) -> None:
    cluster = cluster_of(3)
    cluster.connect()
    inner = ray.put(np.full(8 * MB, 5, np.uint8))
    lender = on(1)

    def lend(self: Any, refs: list[ray.ObjectRef]) -> int:
        # A value of the lender's own, with the driver's ref inside: who reads it is counted because the lender says so.
        borrower = Holder.options(resources={"n2": 0.01}).remote()
        self.kept = [borrower, ray.put(refs)]
        ray.get(borrower.keep.remote([self.kept[1]]), timeout=60)
        return int(ray.get(borrower.__ray_call__.remote(unwrap), timeout=60))

    def unwrap(self: Any) -> int:
        self.kept = ray.get(self.kept[0], timeout=60)
        gc.collect()
        return os.getpid()

    def let_go(self: Any) -> None:
        self.kept = self.kept[:1]  # the handle of the borrower stays
        gc.collect()

    pid = ray.get(lender.__ray_call__.remote(lend, [inner]), timeout=60)
    ray.get(lender.__ray_call__.remote(let_go), timeout=60)
    del inner
    gc.collect()
    assert ray.get(on(0).used.remote(), timeout=60) > 8 * MB, "the borrower has it"
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: ray.get(on(0).used.remote(), timeout=60) < MB, 20, "it goes with its last borrower")
