"""Nodes that join over TCP, and those that may not."""

from __future__ import annotations

import pathlib
import re
import signal
from collections.abc import Callable

import pytest
from support.nodes import HandCluster
from support.processes import wait_until

import ray


def alive() -> list[str]:
    return [n["NodeID"] for n in ray.nodes() if n["Alive"]]


def test_two_nodes_are_seen_from_a_driver_on_either(cluster_of: Callable[..., HandCluster]) -> None:
    cluster = cluster_of(2)
    assert re.fullmatch(r"127\.0\.0\.1:[1-9]\d*", cluster.gcs_address)
    for number in range(2):
        cluster.connect(number)
        nodes = {n["NodeID"]: n for n in ray.nodes()}
        assert set(nodes) == {cluster.node_id(0), cluster.node_id(1)}
        assert all(n["Alive"] for n in nodes.values())
        for raylet in cluster.raylets:
            assert f"127.0.0.1:{nodes[raylet.ready[0]]['NodeManagerPort']}" == raylet.ready[1]
        assert ray.get_runtime_context().get_node_id() == cluster.node_id(number)
        assert ray.cluster_resources()["CPU"] == 2
        ray.shutdown()


def test_cluster_speaks_ipv6(cluster_of: Callable[..., HandCluster]) -> None:
    cluster = cluster_of(1, host="::1")
    assert cluster.gcs_address.startswith("[::1]:")
    assert cluster.raylets[0].ready[1].startswith("[::1]:")
    cluster.connect()
    assert alive() == [cluster.node_id(0)]


def test_node_without_a_listener_is_a_full_member(cluster_of: Callable[..., HandCluster]) -> None:
    cluster = cluster_of(1)
    guest = cluster.add_raylet(listen=False)
    assert guest.ready[1] == "-"
    cluster.connect(1)
    ports = {n["NodeID"]: n["NodeManagerPort"] for n in ray.nodes()}
    assert ports[guest.ready[0]] == 0

    @ray.remote(num_cpus=0, resources={"n0": 0.01})
    class Far:
        def read(self, box: list[ray.ObjectRef]) -> tuple[str, object]:
            return ray.get_runtime_context().get_node_id(), ray.get(box[0])

    # The other node calls back to ask for the value, over the link that the guest opened.
    assert ray.get(Far.remote().read.remote([ray.put("from the guest")]), timeout=30) == (
        cluster.node_id(0),
        "from the guest",
    )


def test_node_that_leaves_is_dead(cluster_of: Callable[..., HandCluster]) -> None:
    cluster = cluster_of(2)
    cluster.connect()
    assert len(alive()) == 2
    cluster.raylets[1].send_signal(signal.SIGTERM)
    assert cluster.raylets[1].popen.wait(timeout=20) == 0
    wait_until(lambda: alive() == [cluster.node_id(0)], 5, "its death is known")


def test_node_with_a_wrong_token_is_refused(cluster_of: Callable[..., HandCluster], tmp_path: pathlib.Path) -> None:
    cluster = cluster_of(1)
    other = tmp_path / "other"
    other.touch(mode=0o600)
    other.write_text("another-cluster-has-this-token")
    intruder = cluster.start_raylet("--auth-token-file", str(other))
    assert intruder.popen.wait(timeout=20) == 1
    errors = intruder.errors()
    assert "token is not that of this cluster" in errors and "RAY_AUTH_TOKEN" in errors
    assert cluster.token_file.read_text().strip() not in errors + intruder.tail() + cluster.gcs.tail()
    cluster.connect()
    assert alive() == [cluster.node_id(0)]


@pytest.mark.parametrize(("head", "guest", "joins"), [("3.11.2", "3.11.9", True), ("3.11.2", "3.12.0", False)])
def test_python_minor_version_must_match(
    cluster_of: Callable[..., HandCluster], head: str, guest: str, joins: bool
) -> None:
    cluster = cluster_of(0)
    cluster.add_raylet("--python-version", head)
    second = cluster.start_raylet("--python-version", guest)
    if joins:
        second.wait_ready()
        return
    assert second.popen.wait(timeout=20) == 1
    errors = second.errors()
    assert head in errors and guest in errors


def test_user_processes_never_hold_the_token(cluster_of: Callable[..., HandCluster]) -> None:
    cluster = cluster_of(1)
    cluster.connect()

    @ray.remote
    def look() -> str:
        import os

        seen = pathlib.Path("/proc/self/environ").read_text() + str(os.environ)
        return seen + pathlib.Path("/proc/self/cmdline").read_text()

    seen = ray.get(look.remote(), timeout=30)
    assert cluster.token_file.read_text().strip() not in seen
    assert "auth-token-file" not in seen
