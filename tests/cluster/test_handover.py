"""Owners that leave in good order, with borrowers on several nodes."""

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
from support.processes import alive, run_driver, wait_until
from support.shell import Shell

import ray

MB = 1 << 20
ClusterOf = Callable[..., HandCluster]


@ray.remote(num_cpus=0)
class Holder:
    def __init__(self) -> None:
        self.refs: list[Any] = []

    def pid(self) -> int:
        return os.getpid()

    def put(self, *sizes: int) -> list[Any]:
        return [ray.put(np.full(size, 3, np.uint8)) for size in sizes]

    def put_as_it_is(self, value: Any) -> list[Any]:
        return [ray.put(value)]

    def pids_of_held_actors(self) -> list[int]:
        actors = ray.get(self.refs[0], timeout=30)
        return ray.get([actor.pid.remote() for actor in actors], timeout=30)

    def keep(self, refs: list[Any]) -> None:
        self.refs = refs

    def sums(self) -> list[int]:
        return [int(array.sum()) for array in ray.get(self.refs, timeout=30)]

    def adopted(self) -> int:
        from ray._core.gcs import node_stats
        from ray._runtime.session import require_session

        return int(json.loads(node_stats(require_session().core))["adopted"]["objects"])


def on(number: int) -> Any:
    return Holder.options(resources={f"n{number}": 0.01}).remote()


def gone(pid: int) -> None:
    wait_until(lambda: not alive(pid), 20, f"process {pid} has left")


def test_what_a_worker_of_another_node_owned_is_kept_by_the_head(cluster_of: ClusterOf) -> None:
    cluster = cluster_of(3)
    cluster.connect(1)
    head, owner, near, far = on(0), on(1), on(1), on(2)
    sizes = [10, 20_000, 3 * MB]
    expected = [3 * size for size in sizes]
    refs = ray.get(owner.put.remote(*sizes), timeout=30)
    ray.get([holder.keep.remote(refs) for holder in (near, far)], timeout=30)
    pid = ray.get(owner.pid.remote(), timeout=30)
    del owner
    gc.collect()
    gone(pid)
    assert ray.get(head.adopted.remote(), timeout=30) == 3
    assert ray.get([near.sums.remote(), far.sums.remote()], timeout=60) == [expected, expected]
    assert [int(array.sum()) for array in ray.get(refs, timeout=30)] == expected
    late = on(2)
    ray.get(late.keep.remote(refs), timeout=30)
    assert ray.get(late.sums.remote(), timeout=30) == expected
    ray.get([holder.keep.remote([]) for holder in (near, far)], timeout=30)
    del refs
    gc.collect()
    assert ray.get(late.sums.remote(), timeout=30) == expected
    ray.get(late.keep.remote([]), timeout=30)
    wait_until(lambda: ray.get(head.adopted.remote(), timeout=30) == 0, 10, "all is free again")


def test_a_node_that_dies_takes_only_the_copies_that_it_had(cluster_of: ClusterOf) -> None:
    cluster = cluster_of(3)
    cluster.connect()
    owner, reader = on(1), on(2)
    small, large, copied = refs = ray.get(owner.put.remote(10, MB, 2 * MB), timeout=30)
    ray.get(reader.keep.remote([copied]), timeout=30)
    assert ray.get(reader.sums.remote(), timeout=30) == [6 * MB]
    pid = ray.get(owner.pid.remote(), timeout=30)
    del owner
    gc.collect()
    gone(pid)
    cluster.raylets[1].send_signal(signal.SIGKILL)
    wait_until(lambda: sum(node["Alive"] for node in ray.nodes()) == 2, 20, "the node is dead")
    assert int(ray.get(small, timeout=30).sum()) == 30
    assert int(ray.get(copied, timeout=30).sum()) == 6 * MB
    with pytest.raises(ray.exceptions.ObjectReconstructionFailedError) as raised:
        ray.get(large, timeout=30)
    assert raised.value.reason == ray.exceptions.ErrorType.OBJECT_UNRECONSTRUCTABLE_OWNER_LEFT
    del refs


def test_handles_in_what_is_kept_by_the_head_hold_their_actors(cluster_of: ClusterOf) -> None:
    """Of a detached actor, and of one whose owner is there but has no handle left."""
    cluster = cluster_of(3)
    cluster.connect()
    owner, reader, plain = on(1), on(2), on(2)
    detached = Holder.options(name="detached", lifetime="detached", resources={"n2": 0.01}).remote()
    pids = ray.get([plain.pid.remote(), detached.pid.remote()], timeout=30)
    refs = ray.get(owner.put_as_it_is.remote([plain, detached]), timeout=30)
    ray.get(reader.keep.remote(refs), timeout=30)
    pid = ray.get(owner.pid.remote(), timeout=30)
    del owner, plain, detached, refs
    gc.collect()
    gone(pid)
    assert ray.get(reader.pids_of_held_actors.remote(), timeout=60) == pids
    # With the object the last handle goes, too.
    ray.get(reader.keep.remote([]), timeout=30)
    gone(pids[0])
    ray.kill(ray.get_actor("detached"))
    gone(pids[1])


def test_a_worker_that_is_killed_on_another_node_takes_its_objects_along(cluster_of: ClusterOf) -> None:
    cluster = cluster_of(2)
    cluster.connect()
    owner = on(1)
    (ref,) = ray.get(owner.put.remote(10), timeout=30)
    os.kill(ray.get(owner.pid.remote(), timeout=30), signal.SIGKILL)
    with pytest.raises(ray.exceptions.OwnerDiedError):
        ray.get(ref, timeout=30)


def test_a_remote_driver_leaves_its_objects_to_the_cluster(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    address = shell.start_head()
    script = """
import numpy as np, ray
ray.init(address="ray://ADDRESS", namespace="shared", logging_level="ERROR")
@ray.remote(num_cpus=0)
class Detached:
    def keep(self, refs): self.refs = refs
    def sums(self): return [int(array.sum()) for array in ray.get(self.refs, timeout=30)]
keeper = Detached.options(name="keeper", lifetime="detached").remote()
ray.get(keeper.keep.remote([ray.put(np.ones(n, np.uint8)) for n in (10, 50_000, 3_000_000)]))
"""
    env = {name: value for name, value in shell.env.items() if name.startswith("RAY_") or name == "HOME"}
    done = run_driver(script.replace("ADDRESS", address), **env)
    assert done.returncode == 0, done.stderr
    reads = """
import ray
ray.init(address="ADDRESS", namespace="shared", logging_level="ERROR")
print(ray.get(ray.get_actor("keeper").sums.remote(), timeout=30))
"""
    done = run_driver(reads.replace("ADDRESS", address), **env)
    assert done.stdout.splitlines()[-1] == "[10, 50000, 3000000]", done.stderr
