"""What the end of a node, a worker or a driver means for the other nodes."""

from __future__ import annotations

import os
import pathlib
import signal
import time
from collections.abc import Callable

import pytest
from support.actors import Staying
from support.nodes import HandCluster, Program
from support.processes import alive, descendants, start_driver, wait_until

import ray

FAST_PROBES = ("--health-check-period", "100ms", "--health-check-timeout", "300ms", "--health-check-threshold", "3")


@ray.remote(num_cpus=0)
class Actor(Staying):
    def make(self) -> list[ray.ObjectRef]:
        return [ray.put("owned here")]

    def wait_for(self, box: list[ray.ObjectRef]) -> object:
        return ray.get(box[0])


def unread(pid: int, port: int) -> int:
    """How many bytes the process has got from that port and not read."""
    links = pathlib.Path(f"/proc/{pid}/fd").iterdir()
    sockets = {os.readlink(link) for link in links if link.is_symlink()}
    tables = (pathlib.Path(f"/proc/net/{name}").read_text() for name in ("tcp", "tcp6"))  # gRPC has IPv6 sockets only
    rows = [row.split() for table in tables for row in table.splitlines()[1:]]
    mine = [row for row in rows if f"socket:[{row[9]}]" in sockets and row[2].endswith(f":{port:04X}")]
    return sum(int(row[4].partition(":")[2], 16) for row in mine)


def stopped_ahead_of_a_probe(raylet: Program, gcs_port: int) -> bool:
    """Stops the raylet, unless it has a probe to answer: then no other comes, and it would be dead soon."""
    raylet.send_signal(signal.SIGSTOP)
    deadline = time.monotonic() + 0.5  # well within the time-out of a probe
    while time.monotonic() < deadline:
        if unread(raylet.popen.pid, gcs_port):
            return True
        time.sleep(0.01)
    raylet.send_signal(signal.SIGCONT)
    return False


def alive_nodes() -> set[str]:
    return {n["NodeID"] for n in ray.nodes() if n["Alive"]}


def test_killed_node_is_dead_at_once_everywhere(cluster_of: Callable[..., HandCluster]) -> None:
    cluster = cluster_of(3)
    cluster.connect()
    victim = Actor.options(resources={"n1": 0.01}).remote()
    survivor = Actor.options(resources={"n2": 0.01}).remote()
    assert ray.get(victim.node.remote(), timeout=30) == cluster.node_id(1)
    box = ray.get(victim.make.remote(), timeout=30)
    hanging = victim.hang.remote()
    assert ray.get(survivor.wait_for.remote(box), timeout=30) == "owned here"
    below = descendants(cluster.raylets[1].popen.pid)
    start = time.monotonic()
    cluster.raylets[1].send_signal(signal.SIGKILL)
    with pytest.raises(ray.exceptions.ActorDiedError) as caught:
        ray.get(hanging, timeout=30)
    assert time.monotonic() - start < 1, "a closed stream is noticed at once"
    assert "node" in str(caught.value)
    assert alive_nodes() == {cluster.node_id(0), cluster.node_id(2)}
    dead = next(n for n in ray.nodes() if not n["Alive"])
    assert dead["NodeID"] == cluster.node_id(1)
    # Its objects have no owner any more, wherever they are asked for.
    with pytest.raises(ray.exceptions.OwnerDiedError):
        ray.get(box[0], timeout=30)
    with pytest.raises(ray.exceptions.RayTaskError, match="OwnerDied"):
        ray.get(survivor.wait_for.remote(box), timeout=30)
    assert ray.get(survivor.node.remote(), timeout=30) == cluster.node_id(2)
    wait_until(lambda: not [p for p in below if alive(p)], 10, "its workers end with it")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_tasks_and_actors_of_a_node_that_goes_say_so(
    cluster_of: Callable[..., HandCluster], tmp_path: pathlib.Path, number: int
) -> None:
    cluster = cluster_of(2)
    cluster.connect()

    @ray.remote(num_cpus=0, max_retries=0, resources={"n1": 0.01})
    def hang(path: pathlib.Path) -> None:
        path.touch()
        time.sleep(600)

    actor = Actor.options(resources={"n1": 0.01}).remote()
    ray.get(actor.node.remote(), timeout=30)
    begun = hang.remote(tmp_path / "runs")
    wait_until((tmp_path / "runs").exists, 30, "it runs")
    node = cluster.node_id(1)
    cluster.raylets[1].send_signal(number)
    with pytest.raises(ray.exceptions.NodeDiedError, match=rf"dead or unavailable: .*\. Node ID: {node}$") as died:
        ray.get(begun, timeout=30)
    assert str(died.value).count(node) == 1
    with pytest.raises(ray.exceptions.ActorDiedError, match=f"its node {node} died"):
        ray.get(actor.node.remote(), timeout=30)


def test_actor_of_a_dead_node_restarts_on_another(cluster_of: Callable[..., HandCluster]) -> None:
    cluster = cluster_of(1)
    for _ in range(2):
        cluster.add_raylet("--resources", "spot=1")
    cluster.connect()
    actor = Actor.options(resources={"spot": 1}, max_restarts=1, max_task_retries=1).remote()
    first = ray.get(actor.node.remote(), timeout=30)
    number = next(i for i, r in enumerate(cluster.raylets) if r.ready[0] == first)
    cluster.raylets[number].send_signal(signal.SIGKILL)
    second = ray.get(actor.node.remote(), timeout=30)
    assert second in alive_nodes() - {first}


def test_stopped_node_is_declared_dead_and_leaves_when_it_wakes(cluster_of: Callable[..., HandCluster]) -> None:
    cluster = cluster_of(2, *FAST_PROBES)
    cluster.connect()
    actor = Actor.options(resources={"n1": 0.01}).remote()
    ray.get(actor.node.remote(), timeout=30)
    hanging = actor.hang.remote()
    zombie = cluster.raylets[1]
    below = descendants(zombie.popen.pid)
    zombie.send_signal(signal.SIGSTOP)
    with pytest.raises(ray.exceptions.ActorDiedError):
        ray.get(hanging, timeout=30)
    wait_until(lambda: alive_nodes() == {cluster.node_id(0)}, 10, "it is declared dead")
    assert "probes" in cluster.gcs.tail()
    zombie.send_signal(signal.SIGCONT)
    assert zombie.popen.wait(timeout=20) == 3
    wait_until(lambda: not [p for p in below if alive(p)], 10, "and its workers")


@pytest.mark.timeout(120)
def test_a_node_that_hangs_is_dead_within_ten_seconds_by_default(cluster_of: Callable[..., HandCluster]) -> None:
    cluster = cluster_of(2)
    cluster.connect()
    actor = Actor.options(resources={"n1": 0.01}).remote()
    assert ray.get(actor.node.remote(), timeout=30) == cluster.node_id(1)
    hanging = actor.hang.remote()
    start = time.monotonic()
    cluster.raylets[1].send_signal(signal.SIGSTOP)
    with pytest.raises(ray.exceptions.ActorDiedError):
        ray.get(hanging, timeout=60)
    assert time.monotonic() - start < 12, "9.9 s at the latest, and what a busy machine adds"
    assert alive_nodes() == {cluster.node_id(0)}


def test_end_of_a_driver_cleans_up_on_every_node(cluster_of: Callable[..., HandCluster]) -> None:
    cluster = cluster_of(2)
    driver = start_driver(
        f"""
        import os, time, ray
        ray.init(address={cluster.driver_address(0)!r}, logging_level="ERROR")

        @ray.remote(num_cpus=0, resources={{"n1": 0.01}})
        class A:
            def pid(self):
                return os.getpid()

            def hang(self):
                time.sleep(1000)

        a = A.remote()
        print(ray.get(a.pid.remote()), flush=True)
        a.hang.remote()
        time.sleep(1000)
        """
    )
    assert driver.stdout is not None
    pid = int(driver.stdout.readline())
    assert alive(pid)
    driver.kill()
    driver.communicate(timeout=10)
    wait_until(lambda: not alive(pid), 10, "its actor on the other node ends")


def test_death_of_a_worker_is_known_on_other_nodes(cluster_of: Callable[..., HandCluster]) -> None:
    cluster = cluster_of(3)
    cluster.connect()
    owner = Actor.options(resources={"n1": 0.01}).remote()
    reader = Actor.options(resources={"n2": 0.01}).remote()
    box = ray.get(owner.make.remote(), timeout=30)
    pid = ray.get(owner.pid.remote(), timeout=30)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(ray.exceptions.ActorDiedError):
        ray.get(owner.pid.remote(), timeout=30)
    # The reader has never spoken to the owner.
    with pytest.raises(ray.exceptions.RayTaskError, match="OwnerDied"):
        ray.get(reader.wait_for.remote(box), timeout=30)


def test_loss_of_the_gcs_ends_the_nodes(cluster_of: Callable[..., HandCluster]) -> None:
    cluster = cluster_of(2)
    cluster.gcs.send_signal(signal.SIGKILL)
    assert [r.popen.wait(timeout=20) for r in cluster.raylets] == [3, 3]


def test_a_node_that_stops_for_a_while_is_suspect_and_not_dead(cluster_of: Callable[..., HandCluster]) -> None:
    cluster = cluster_of(2, *FAST_PROBES[:4], "--health-check-threshold", "50")
    cluster.connect()
    actor = Actor.options(resources={"n1": 0.01}).remote()
    pid = ray.get(actor.pid.remote(), timeout=30)
    slow = cluster.raylets[1]
    slow.send_signal(signal.SIGSTOP)
    call = actor.pid.remote()
    wait_until(lambda: "is slow or cut off: 2 of 50 probes" in cluster.gcs.tail(), 20, "probes are missed")
    assert alive_nodes() == {cluster.node_id(0), cluster.node_id(1)}
    slow.send_signal(signal.SIGCONT)
    assert ray.get(call, timeout=30) == pid, "what was under way goes on"
    assert ray.get(actor.pid.remote(), timeout=30) == pid
    assert alive_nodes() == {cluster.node_id(0), cluster.node_id(1)}


def test_a_gcs_that_stood_still_takes_no_node_for_dead(cluster_of: Callable[..., HandCluster]) -> None:
    probes = ("--health-check-period", "10ms", "--health-check-timeout", "2s", "--health-check-threshold", "1")
    cluster = cluster_of(2, *probes)
    cluster.connect()
    actor = Actor.options(resources={"n1": 0.01}).remote()
    pid = ray.get(actor.pid.remote(), timeout=30)
    gcs_port = int(cluster.gcs_address.rpartition(":")[2])
    for _ in range(2):
        # The raylet is given a probe that it does not answer until the GCS stands still.
        wait_until(lambda: stopped_ahead_of_a_probe(cluster.raylets[1], gcs_port), 60, "it is given a probe")
        cluster.gcs.send_signal(signal.SIGSTOP)
        cluster.raylets[1].send_signal(signal.SIGCONT)
        time.sleep(3.5)  # so much more than the time-out that the GCS cannot have been awake
        assert ray.get(actor.pid.remote(), timeout=30) == pid
        cluster.gcs.send_signal(signal.SIGCONT)
        assert alive_nodes() == {cluster.node_id(0), cluster.node_id(1)}
    assert ray.get(actor.pid.remote(), timeout=30) == pid
