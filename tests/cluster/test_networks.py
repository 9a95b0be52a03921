"""Nodes with an address of their own, each in a network namespace: cables that are pulled, and slow ones."""

from __future__ import annotations

import pathlib
import socket
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from support.actors import Staying
from support.networks import Network
from support.nodes import HandCluster
from support.processes import alive, descendants, wait_until

import ray

FAST_PROBES = ("--health-check-period", "100ms", "--health-check-timeout", "300ms", "--health-check-threshold", "5")
# A cut that lasts for less must go unnoticed; so long it takes until a node counts as dead.
PATIENT_PROBES = ("--health-check-period", "1s", "--health-check-timeout", "10s", "--health-check-threshold", "3")
SHORT = 1.5
BIG = 16 << 20
TCP_RTO_MAX_MS = 44

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def cluster_on(tmp_path: pathlib.Path, network_of: Callable[..., Network]) -> Iterator[Callable[..., HandCluster]]:
    """cluster_on(3) has three nodes on a network of their own; this process is a driver on the first."""
    made: list[HandCluster] = []

    def start(size: int, *gcs_arguments: str, **kind: bool) -> HandCluster:
        (tmp_path / "c").mkdir()
        made.append(HandCluster(tmp_path / "c", *gcs_arguments, network=network_of(size, **kind)))
        for number in range(size):
            made[-1].add_raylet(*(("--resources", "spot=4") if number else ()), cpus=4)
        made[-1].connect()
        return made[-1]

    yield start
    for cluster in made:
        cluster.close()


def network(cluster: HandCluster) -> Network:
    assert cluster.network is not None
    return cluster.network


@ray.remote(num_cpus=0)
class Actor(Staying):
    def make(self, size: int) -> list[ray.ObjectRef]:
        return [ray.put(np.ones(size, np.uint8))]

    def add_up(self, box: list[ray.ObjectRef]) -> int:
        return int(ray.get(box[0]).sum())

    def ask(self, other: ray.actor.ActorHandle) -> str:
        return ray.get(other.node.remote())


def on(number: int, **options: object) -> ray.actor.ActorHandle:
    return Actor.options(resources={f"n{number}": 0.01}, **options).remote()


def alive_nodes() -> set[str]:
    return {n["NodeID"] for n in ray.nodes() if n["Alive"]}


@ray.remote(num_cpus=0)
def ones(size: int) -> np.ndarray:
    return np.ones(size, np.uint8)


@ray.remote(num_cpus=0)
def add_up(value: np.ndarray) -> tuple[str, int]:
    return ray.get_runtime_context().get_node_id(), int(value.sum())


@pytest.mark.parametrize("ipv6", [False, True], ids=["IPv4", "IPv6"])
def test_calls_and_objects_between_addresses(cluster_on: Callable[..., HandCluster], ipv6: bool) -> None:
    cluster = cluster_on(3, ipv6=ipv6)
    addresses = {n["NodeID"]: n["NodeManagerAddress"] for n in ray.nodes()}
    assert addresses == {cluster.node_id(n): host for n, host in enumerate(network(cluster).hosts)}
    first, second = on(1), on(2)
    assert ray.get(first.ask.remote(second), timeout=30) == cluster.node_id(2)
    box = ray.get(first.make.remote(BIG), timeout=30)
    assert ray.get(second.add_up.remote(box), timeout=30) == BIG, "from node to node, past this one"
    assert ray.get(box[0], timeout=30).nbytes == BIG


def test_short_cut_fails_nothing(cluster_on: Callable[..., HandCluster]) -> None:
    cluster = cluster_on(3, *PATIENT_PROBES)
    first, second = on(1), on(2)
    pids = ray.get([first.pid.remote(), second.pid.remote()], timeout=30)
    box = ray.get(first.make.remote(BIG), timeout=30)
    pieces = [ones.options(resources={"n1": 0.01}).remote(BIG) for _ in range(4)]
    ray.wait(pieces, num_returns=len(pieces), timeout=30, fetch_local=False)
    sums = [add_up.options(resources={"n2": 0.01}).remote(piece) for piece in pieces]
    network(cluster).unplug(1)
    called = first.node.remote()
    far = second.ask.remote(first)
    pulled = second.add_up.remote(box)
    started = ones.options(resources={"n1": 0.01}).remote(1)
    assert ray.wait([called, far, pulled, started], timeout=SHORT)[0] == [], "nothing gets through"
    network(cluster).plug(1)
    assert ray.get([called, far], timeout=30) == [cluster.node_id(1)] * 2
    assert ray.get(pulled, timeout=30) == BIG
    assert [total for _, total in ray.get(sums, timeout=30)] == [BIG] * 4
    assert ray.get(started, timeout=30).nbytes == 1
    assert ray.get([first.pid.remote(), second.pid.remote()], timeout=30) == pids, "nobody was started anew"
    assert alive_nodes() == {r.ready[0] for r in cluster.raylets}


def test_five_seconds_are_no_death(cluster_on: Callable[..., HandCluster]) -> None:
    with socket.socket() as probe:
        try:
            probe.setsockopt(socket.IPPROTO_TCP, TCP_RTO_MAX_MS, 1000)
        except OSError:
            pytest.skip("this kernel's TCP cannot be told to repeat often")
    cluster = cluster_on(3)
    first, second = on(1), on(2)
    pids = ray.get([first.pid.remote(), second.pid.remote()], timeout=30)
    assert ray.get(second.ask.remote(first), timeout=30) == cluster.node_id(1)  # a link that is there
    # How soon TCP gets through again depends on what was under way.
    for calls in (True, False):
        network(cluster).unplug(1)
        until = time.monotonic() + 5
        asked = []
        while time.monotonic() < until:
            if calls:
                asked += [first.node.remote(), second.ask.remote(first)]
            time.sleep(0.05)  # the cable stays unplugged
        network(cluster).plug(1)
        assert set(ray.get([*asked, first.node.remote()], timeout=30)) == {cluster.node_id(1)}
    assert ray.get([first.pid.remote(), second.pid.remote()], timeout=30) == pids
    assert alive_nodes() == {r.ready[0] for r in cluster.raylets}


@pytest.mark.parametrize("mended", [True, False])
def test_what_first_speaks_during_a_cut(cluster_on: Callable[..., HandCluster], mended: bool) -> None:
    """Node 2 has never spoken to node 1: its link is dialled during the cut, and connecting fails again and again."""
    cluster = cluster_on(3, *(() if mended else FAST_PROBES))
    target, caller = on(1), on(2)
    pids = ray.get([target.pid.remote(), caller.pid.remote()], timeout=30)
    box = ray.get(target.make.remote(BIG), timeout=30)
    network(cluster).unplug(1)
    asked = caller.ask.remote(target)
    summed = caller.add_up.remote(box)
    if not mended:
        for ref in (asked, summed):
            with pytest.raises(ray.exceptions.RayTaskError, match=r"ActorDiedError|OwnerDiedError"):
                ray.get(ref, timeout=60)
        return
    assert ray.wait([asked, summed], timeout=5)[0] == [], "it waits, past the first attempts that failed"
    network(cluster).plug(1)
    start = time.monotonic()
    assert ray.get(asked, timeout=30) == cluster.node_id(1)
    took = time.monotonic() - start
    assert took < 4, f"{took:.1f} s after the cut"
    assert ray.get(summed, timeout=30) == BIG
    assert ray.get([target.pid.remote(), caller.pid.remote()], timeout=30) == pids
    assert alive_nodes() == {r.ready[0] for r in cluster.raylets}


def test_long_cut_is_the_death_of_the_node(cluster_on: Callable[..., HandCluster]) -> None:
    cluster = cluster_on(3, *FAST_PROBES)
    lonely = on(1)
    moving = Actor.options(resources={"spot": 0.01}, max_restarts=1, max_task_retries=1).remote()
    other = on(2)
    box = ray.get(lonely.make.remote(BIG), timeout=30)
    # Its only copy is on the node that will go, and a task made it, which can run on the other one, too.
    where = ray.get(moving.node.remote(), timeout=30)
    made = ones.options(
        scheduling_strategy=ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(cluster.node_id(1), soft=True)
    ).remote(BIG)
    ray.wait([made], timeout=30, fetch_local=False)
    hanging = lonely.hang.remote()
    zombie = cluster.raylets[1]
    below = descendants(zombie.popen.pid)
    network(cluster).unplug(1)
    with pytest.raises(ray.exceptions.ActorDiedError):
        ray.get(hanging, timeout=60)
    assert alive_nodes() == {cluster.node_id(0), cluster.node_id(2)}
    if where == cluster.node_id(1):
        assert ray.get(moving.node.remote(), timeout=30) == cluster.node_id(2), "it was started again elsewhere"
    assert ray.get(add_up.remote(made), timeout=60)[1] == BIG, "made again"
    with pytest.raises(ray.exceptions.RayTaskError, match="OwnerDied"):
        ray.get(other.add_up.remote(box), timeout=30)
    # When it sees the others again they tell it that it is dead.
    network(cluster).plug(1)
    assert zombie.popen.wait(timeout=40) == 3
    wait_until(lambda: not [p for p in below if alive(p)], 20, "its workers end with it")
    assert alive_nodes() == {cluster.node_id(0), cluster.node_id(2)}


def test_two_nodes_that_do_not_reach_each_other(cluster_on: Callable[..., HandCluster]) -> None:
    cluster = cluster_on(3, *PATIENT_PROBES)
    first, second = on(1), on(2)
    assert ray.get(first.ask.remote(second), timeout=30) == cluster.node_id(2)
    piece = ones.options(resources={"n2": 0.01}).remote(BIG)
    ray.wait([piece], timeout=30, fetch_local=False)
    # One direction is enough: nothing is acknowledged.
    network(cluster).mute(1, towards=2)
    asked = first.ask.remote(second)
    summed = add_up.options(resources={"n1": 0.01}).remote(piece)
    assert ray.wait([asked, summed], timeout=SHORT)[0] == [], "they do not hear each other"
    assert ray.get(second.node.remote(), timeout=10) == cluster.node_id(2), "but we hear both"
    assert ray.get(ones.options(resources={"n1": 0.01}).remote(BIG), timeout=10).nbytes == BIG
    network(cluster).unmute(1, towards=2)
    assert ray.get(asked, timeout=40) == cluster.node_id(2)
    assert ray.get(summed, timeout=40) == (cluster.node_id(1), BIG)
    assert alive_nodes() == {r.ready[0] for r in cluster.raylets}


def test_delay_and_loss(cluster_on: Callable[..., HandCluster]) -> None:
    cluster = cluster_on(2, relayed=True)
    actor = on(1)
    pid = ray.get(actor.pid.remote(), timeout=30)
    network(cluster).impair(1, late_s=0.02, lost=0.0)
    start = time.monotonic()
    assert ray.get(actor.node.remote(), timeout=30) == cluster.node_id(1)
    assert time.monotonic() - start >= 0.04, "a round trip takes as long as the link says"
    assert network(cluster).impair(1, late_s=0.005, lost=0.02) == 0
    assert ray.get([actor.pid.remote() for _ in range(500)], timeout=60) == [pid] * 500
    one_by_one = [ray.get(actor.node.remote(), timeout=30) for _ in range(50)]
    assert one_by_one == [cluster.node_id(1)] * 50
    box = ray.get(actor.make.remote(BIG // 8), timeout=30)
    assert int(ray.get(box[0], timeout=60).sum()) == BIG // 8
    assert ray.get(on(1).node.remote(), timeout=30) == cluster.node_id(1), "one that is made meanwhile"
    assert network(cluster).impair(1, late_s=0.0, lost=0.0) > 10
    assert alive_nodes() == {r.ready[0] for r in cluster.raylets}


def test_slow_link(cluster_on: Callable[..., HandCluster]) -> None:
    cluster = cluster_on(2)
    actor = on(1)
    box = ray.get(actor.make.remote(BIG), timeout=30)
    if not network(cluster).shape(0, "tbf", "rate", "80mbit", "burst", "128kb", "latency", "200ms"):
        pytest.skip("this kernel has no tbf, so links cannot be made slow")
    fetched = ray.wait(box, timeout=0)[0]
    assert fetched == []
    answers = 0
    while not ray.wait(box, timeout=0)[0]:
        assert ray.get(actor.node.remote(), timeout=30) == cluster.node_id(1), "calls pass while bytes are on their way"
        answers += 1
    assert answers > 1
    assert int(ray.get(box[0], timeout=30).sum()) == BIG
