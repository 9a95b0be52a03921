"""A node that is told to leave: new work goes elsewhere, running work may finish."""

from __future__ import annotations

import os
import pathlib
import signal
import time
from typing import Any

import numpy as np
import pytest
from support.processes import wait_until

import ray
from ray.cluster_utils import Cluster, ClusterNode


def row(cluster: Cluster, node: ClusterNode) -> dict[str, Any]:
    """The node as the GCS has it; asked from outside, since a driver's own node may be the one that leaves."""
    return next(found for found in cluster._list_nodes() if found["node_id"] == node.node_id)


def terminate(node: ClusterNode) -> None:
    os.kill(node._node.raylet.pid, signal.SIGTERM)


@ray.remote(num_cpus=0, resources={"guest": 0.1}, max_retries=0)
def waits(folder: str) -> str:
    pathlib.Path(folder, "started").touch()
    while not pathlib.Path(folder, "go").exists():
        time.sleep(0.01)
    pathlib.Path(folder, "finished").touch()
    return ray.get_runtime_context().get_node_id()


def connect_on(node: ClusterNode) -> None:
    """A driver on that node."""
    ray.init(address=f"unix:{node._node.node_dir}/sockets/gcs.sock", logging_level="ERROR", log_to_driver=False)


def test_an_idle_node_leaves_at_once_and_in_order(cluster: Cluster) -> None:
    cluster.add_node(num_cpus=1)
    guest = cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
    began = time.monotonic()
    terminate(guest)
    wait_until(lambda: not row(cluster, guest)["alive"], 10, "it is gone")
    assert time.monotonic() - began < 5
    (gone,) = [node for node in ray.nodes() if node["NodeID"] == guest.node_id]
    assert gone["State"] == "DEAD" and gone["DeathReason"] == 1
    assert "drained (SIGTERM)" in gone["DeathReasonMessage"]
    assert guest._node.raylet.popen.wait(5) == 0


def test_running_work_may_finish(cluster: Cluster, tmp_path: pathlib.Path) -> None:
    cluster.add_node(num_cpus=1)
    guest = cluster.add_node(num_cpus=1, resources={"guest": 1})
    connect_on(guest)
    ref = waits.remote(str(tmp_path))
    wait_until((tmp_path / "started").exists, 20, "the task runs")
    terminate(guest)
    wait_until(lambda: row(cluster, guest)["draining"], 10, "it drains")
    assert ref is not None and [node["State"] for node in ray.nodes() if node["NodeID"] == guest.node_id] == [
        "DRAINING"
    ]
    assert not (tmp_path / "finished").exists()
    (tmp_path / "go").touch()
    wait_until(lambda: not row(cluster, guest)["alive"], 10, "it is gone")
    assert (tmp_path / "finished").exists()  # the driver leaves with the node, so it may miss the result
    assert row(cluster, guest)["left"]


def test_the_deadline_ends_the_wait(cluster: Cluster, tmp_path: pathlib.Path) -> None:
    cluster.add_node(num_cpus=1)
    guest = cluster.add_node(num_cpus=1, resources={"guest": 1}, drain_s=0.5)
    connect_on(guest)
    ref = waits.remote(str(tmp_path))
    wait_until((tmp_path / "started").exists, 20, "the task runs")
    terminate(guest)
    wait_until(lambda: not row(cluster, guest)["alive"], 10, "it is gone")
    assert "deadline" in row(cluster, guest)["death_reason"]
    with pytest.raises(ray.exceptions.RayError):
        ray.get(ref, timeout=20)


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_does_not_wait(cluster: Cluster, tmp_path: pathlib.Path, second: signal.Signals) -> None:
    cluster.add_node(num_cpus=1)
    guest = cluster.add_node(num_cpus=1, resources={"guest": 1})
    connect_on(guest)
    waits.remote(str(tmp_path))
    wait_until((tmp_path / "started").exists, 20, "the task runs")
    terminate(guest)
    wait_until(lambda: row(cluster, guest)["draining"], 10, "it drains")
    os.kill(guest._node.raylet.pid, second)
    assert guest._node.raylet.popen.wait(10) == 0
    assert row(cluster, guest)["left"]


def test_a_node_can_be_drained_by_order(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    from click.testing import CliRunner

    from ray.cli.main import cli

    cluster.add_node(num_cpus=1)
    guest = cluster.add_node(num_cpus=1)
    order = [
        *("drain-node", "--address", cluster.address, "--reason", "DRAIN_NODE_REASON_PREEMPTION"),
        *("--reason-message", "spot instance", "--node-id"),
    ]
    done = CliRunner().invoke(cli, [*order, guest.node_id])
    assert done.exit_code == 0, done.output
    wait_until(lambda: not row(cluster, guest)["alive"], 10, "it is gone")
    assert "spot instance" in row(cluster, guest)["death_reason"]
    for node_id in (guest.node_id, "ab" * 28):
        unknown = CliRunner().invoke(cli, [*order, node_id])
        assert unknown.exit_code == 1 and f"node {node_id} is not alive" in unknown.output, unknown.output
        assert "No Ray cluster" not in unknown.output
    bad = CliRunner().invoke(cli, [*order, "zz"])
    assert bad.exit_code == 2 and "'zz' is not the id of a node" in bad.output


def test_a_busy_node_is_not_drained_for_being_idle(
    cluster: Cluster, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from click.testing import CliRunner

    from ray.cli.main import cli

    cluster.add_node(num_cpus=1)
    guest = cluster.add_node(num_cpus=1, resources={"guest": 1})
    order = [
        *("drain-node", "--address", cluster.address, "--reason", "DRAIN_NODE_REASON_IDLE_TERMINATION"),
        *("--reason-message", "scaling down", "--node-id", guest.node_id),
    ]
    ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
    ref = waits.remote(str(tmp_path))
    wait_until(lambda: (tmp_path / "started").exists(), 20, "it runs")
    refused = CliRunner().invoke(cli, order)
    assert refused.exit_code == 1
    assert "is not idle: it has 1 leases" in refused.output, refused.output
    assert row(cluster, guest)["alive"] and not row(cluster, guest)["draining"]
    (tmp_path / "go").touch()
    assert ray.get(ref) == guest.node_id
    # Its lease is kept for a moment, in case that more comes.
    wait_until(lambda: CliRunner().invoke(cli, order).exit_code == 0, 20, "it is idle")
    wait_until(lambda: not row(cluster, guest)["alive"], 10, "it is gone")
    assert "scaling down" in row(cluster, guest)["death_reason"]


MB = 1 << 20


@ray.remote(num_cpus=0)
class Maker:
    def __init__(self) -> None:
        self.calls = 0

    def put(self, value: int) -> list[Any]:
        return [ray.put(np.full(2 * MB, value, np.uint8))]

    def node(self) -> str:
        return ray.get_runtime_context().get_node_id()

    def add(self) -> int:
        self.calls += 1
        return self.calls

    def slow(self, folder: str) -> str:
        pathlib.Path(folder, "started").touch()
        while not pathlib.Path(folder, "go").exists():
            time.sleep(0.01)
        return "done"


@ray.remote(num_cpus=0, resources={"guest": 0.1}, max_retries=0)
def makes(value: int) -> np.ndarray:
    return np.full(2 * MB, value, np.uint8)


def connect(cluster: Cluster) -> None:
    ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)


def leave(cluster: Cluster, node: ClusterNode) -> None:
    terminate(node)
    wait_until(lambda: not row(cluster, node)["alive"], 20, "it is gone")
    assert "what was here is elsewhere" in row(cluster, node)["death_reason"]


def test_results_that_are_only_there_are_brought_elsewhere(cluster: Cluster) -> None:
    cluster.add_node(num_cpus=1)
    guest = cluster.add_node(num_cpus=1, resources={"guest": 1})
    connect(cluster)
    refs = [makes.remote(value) for value in range(3)]
    ray.wait(refs, num_returns=3, timeout=30, fetch_local=False)
    leave(cluster, guest)
    # They could not be made again: the node is gone, and they have no retries.
    assert [int(value[0]) for value in ray.get(refs, timeout=20)] == [0, 1, 2]


def test_what_workers_of_the_node_own_is_kept(cluster: Cluster) -> None:
    cluster.add_node(num_cpus=1)
    guest = cluster.add_node(num_cpus=1, resources={"guest": 1})
    connect(cluster)

    @ray.remote(num_cpus=0, resources={"guest": 0.1})
    def puts() -> list[Any]:
        return [ray.put(np.full(2 * MB, 7, np.uint8))]

    (inner,) = ray.get(puts.remote(), timeout=30)
    leave(cluster, guest)
    assert int(ray.get(inner, timeout=20)[0]) == 7


def test_actors_that_may_restart_go_on_elsewhere(cluster: Cluster) -> None:
    cluster.add_node(num_cpus=1, resources={"place": 1})
    connect(cluster)
    guest = cluster.add_node(num_cpus=1, resources={"place": 1000})
    actor = Maker.options(max_restarts=1, resources={"place": 2}).remote()
    assert ray.get(actor.node.remote(), timeout=30) == guest.node_id
    other = cluster.add_node(num_cpus=1, resources={"place": 1000})
    leave(cluster, guest)
    assert ray.get(actor.node.remote(), timeout=30) == other.node_id
    # A move is not charged: the one restart is still there.
    last = cluster.add_node(num_cpus=1, resources={"place": 1000})
    leave(cluster, other)
    assert ray.get(actor.node.remote(), timeout=30) == last.node_id


def test_calls_of_an_actor_that_moves_do_not_fail(cluster: Cluster, tmp_path: pathlib.Path) -> None:
    cluster.add_node(num_cpus=1)
    connect(cluster)
    guest = cluster.add_node(num_cpus=1, resources={"place": 10})
    actor = Maker.options(max_restarts=1, resources={"place": 1}).remote()
    assert ray.get(actor.node.remote(), timeout=30) == guest.node_id
    other = cluster.add_node(num_cpus=1, resources={"place": 10})
    slow = actor.slow.remote(str(tmp_path))
    wait_until((tmp_path / "started").exists, 20, "the call runs")
    queued = [actor.add.remote() for _ in range(20)]
    terminate(guest)
    wait_until(lambda: row(cluster, guest)["draining"], 10, "it drains")
    queued += [actor.add.remote() for _ in range(20)]
    (tmp_path / "go").touch()
    # What ran has ended; what was queued runs in the next process, once each and in order, though no call has retries.
    assert ray.get(slow, timeout=30) == "done"
    assert ray.get(queued, timeout=30) == list(range(1, 41))
    assert ray.get(actor.node.remote(), timeout=30) == other.node_id
    wait_until(lambda: not row(cluster, guest)["alive"], 20, "it is gone")


def test_an_actor_that_may_not_restart_stays_until_the_deadline(cluster: Cluster) -> None:
    cluster.add_node(num_cpus=1, resources={"place": 1})
    connect(cluster)
    guest = cluster.add_node(num_cpus=1, resources={"guest": 1}, drain_s=1)
    actor = Maker.options(max_restarts=0, resources={"guest": 1}).remote()
    assert ray.get(actor.node.remote(), timeout=30) == guest.node_id
    terminate(guest)
    wait_until(lambda: row(cluster, guest)["draining"], 10, "it drains")
    assert ray.get(actor.add.remote(), timeout=30) == 1
    wait_until(lambda: not row(cluster, guest)["alive"], 20, "it is gone")
    assert "deadline" in row(cluster, guest)["death_reason"]
