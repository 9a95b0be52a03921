"""`ray.cluster_utils.Cluster`: nodes that a test adds and removes."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest
from support.processes import session_processes, wait_until

import ray
from ray.cluster_utils import Cluster


def connect(cluster: Cluster) -> None:
    ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)


def alive() -> list[dict[str, object]]:
    return [node for node in ray.nodes() if node["Alive"]]


def test_nodes_are_listed_with_what_they_have(cluster: Cluster) -> None:
    head = cluster.add_node(num_cpus=2, include_dashboard=False, resources={"head": 10}, labels={"zone": "a"})
    left = cluster.add_node(num_cpus=1, num_gpus=2, resources={"left": 10}, object_store_memory=200 << 20)
    connect(cluster)
    by_id = {node["NodeID"]: node for node in alive()}
    assert set(by_id) == {head.node_id, left.node_id} and head.unique_id == head.node_id
    assert by_id[head.node_id]["Resources"]["CPU"] == 2 and by_id[left.node_id]["Resources"]["GPU"] == 2
    assert by_id[left.node_id]["Resources"]["object_store_memory"] == 200 << 20
    assert by_id[head.node_id]["Labels"]["zone"] == "a"
    assert ray.cluster_resources()["CPU"] == 3
    assert ray.get_runtime_context().get_node_id() == head.node_id
    assert by_id[left.node_id]["RayletSocketName"] == left.raylet_socket_name
    assert os.path.exists(left.raylet_socket_name) and os.path.exists(left.plasma_store_socket_name)
    assert head.raylet_socket_name != left.raylet_socket_name
    assert head.get_session_dir_path() == left.get_session_dir_path()
    assert by_id[left.node_id]["NodeManagerPort"] == left.node_manager_port > 0
    assert cluster.gcs_address == cluster.address == ray.get_runtime_context().gcs_address
    assert cluster.list_all_nodes() == [head, left] and cluster.worker_nodes == {left}
    assert cluster.remaining_processes_alive()


def test_places_and_processes_of_a_node(cluster: Cluster) -> None:
    head = cluster.add_node(num_cpus=1)
    left = cluster.add_node(num_cpus=1)
    assert head.is_head() and not left.is_head()
    info = left.address_info
    assert info["session_dir"] == head.address_info["session_dir"] == left.get_session_dir_path()
    assert (info["raylet_socket_name"], info["object_store_address"]) == (
        left.raylet_socket_name,
        left.plasma_store_socket_name,
    )
    assert os.path.dirname(left.raylet_socket_name) == left.get_sockets_dir_path()
    assert os.path.dirname(info["session_dir"]) == left.get_temp_dir_path()
    assert info["address"] == info["gcs_address"] == cluster.address
    connect(cluster)
    worker_info = ray._private.worker._global_node.address_info
    assert worker_info == {**head.address_info, "node_id": head.node_id}
    assert {kind for kind, _ in head.live_processes()} == {"gcs_server", "raylet"}
    ((kind, raylet),) = left.live_processes()
    assert kind == "raylet" and left.all_processes["raylet"][0].process is raylet
    assert os.path.exists(left.all_processes["raylet"][0].stdout_file)
    raylet.kill()
    raylet.wait()
    assert left.live_processes() == [] and left.dead_processes() == [("raylet", raylet)]


@pytest.mark.parametrize("graceful", [True, False])
def test_a_removed_node_is_dead_and_stays_listed(cluster: Cluster, graceful: bool) -> None:
    cluster.add_node(num_cpus=1)
    node = cluster.add_node(num_cpus=1, resources={"guest": 1})
    connect(cluster)
    guest = node.node_id
    cluster.remove_node(node, allow_graceful=graceful)
    cluster.wait_for_nodes()
    assert guest not in [n["NodeID"] for n in alive()]
    (gone,) = [n for n in ray.nodes() if n["NodeID"] == guest]
    assert gone["DeathReasonMessage"] and not gone["Alive"] and gone["Resources"] == {}
    assert "guest" not in ray.cluster_resources()
    with pytest.raises(ValueError, match="not a node"):
        cluster.remove_node(node)


def test_a_killed_raylet_is_noticed(cluster: Cluster) -> None:
    cluster.add_node(num_cpus=1)
    node = cluster.add_node(num_cpus=1)
    connect(cluster)
    node.kill_raylet()
    wait_until(lambda: len(alive()) == 1, 10, "the node is dead")
    assert not node.any_processes_alive() and not cluster.remaining_processes_alive()
    cluster.remove_node(node)


def test_nodes_that_join_in_the_background_can_be_waited_for(cluster: Cluster) -> None:
    cluster.add_node(num_cpus=1)
    cluster.add_node(wait=False, num_cpus=1)
    cluster.add_node(wait=False, num_cpus=1)
    cluster.wait_for_nodes(timeout=30)
    connect(cluster)
    assert len(alive()) == 3


def test_a_head_that_was_removed_can_be_replaced(cluster: Cluster) -> None:
    first = cluster.add_node(num_cpus=1)
    before = cluster.address
    cluster.remove_node(first, allow_graceful=False)
    cluster.add_node(num_cpus=2)
    assert cluster.address != before
    connect(cluster)
    assert ray.cluster_resources()["CPU"] == 2


def test_shutdown_leaves_nothing(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    cluster = Cluster(initialize_head=True, connect=True, head_node_args={"num_cpus": 1})
    cluster.add_node(num_cpus=1)
    session = cluster.list_all_nodes()[0].get_session_dir_path()
    assert session_processes(session)
    ray.shutdown()
    cluster.shutdown()
    cluster.shutdown()
    wait_until(lambda: not session_processes(session), 3, "no process of the session")
    assert not list(pathlib.Path(session).glob("node_*")) and not list(pathlib.Path(session).glob("sockets"))
    assert not list((pathlib.Path(session) / "processes").iterdir())


def test_it_ends_with_its_process(tmp_path: pathlib.Path) -> None:
    script = (
        "import os\n"
        "from ray.cluster_utils import Cluster\n"
        "c = Cluster()\n"
        "c.add_node(num_cpus=1); c.add_node(num_cpus=1)\n"
        "print(c.list_all_nodes()[0].get_session_dir_path(), flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "RAY_TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    session = done.stdout.strip()
    assert session
    wait_until(lambda: not session_processes(session), 5, "no process of the session")


def test_bad_arguments_are_named(cluster: Cluster) -> None:
    with pytest.raises(TypeError, match="no_such_argument"):
        cluster.add_node(no_such_argument=1)
    with pytest.raises(ValueError, match=r"1\.5"):
        cluster.add_node(resources={"x": 1.5})
    with pytest.raises(AssertionError, match="CPU"):
        cluster.add_node(resources={"CPU": 1})
    for sizes in ({"num_cpus": -1}, {"num_gpus": 0.5}, {"object_store_memory": 10}, {"object_store_memory": 1 << 60}):
        with pytest.raises(ValueError, match=f"{next(iter(sizes))}.*{next(iter(sizes.values()))}"):
            cluster.add_node(**sizes)
    with pytest.raises(ValueError, match="node-id"):
        cluster.add_node(labels={"ray.io/node-id": "mine"})
    assert cluster.address is None and not cluster.list_all_nodes()
    with pytest.raises(RuntimeError, match="uninitialized"):
        Cluster(connect=True)
