"""The tables of `ray.util.state`, from inside a program and from a terminal."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner
from support.processes import wait_until

import ray
from ray.cli.main import cli
from ray.cli.state import _filter
from ray.util import placement_group, remove_placement_group, state


@ray.remote(num_cpus=0)
class Living:
    def pid(self) -> int:
        return os.getpid()


@pytest.fixture(scope="module")
def actor() -> Iterator[Any]:
    ray.init(address="local", num_cpus=2, resources={"thing": 1}, logging_level="ERROR", log_to_driver=False)
    made = Living.options(name="lively", namespace="here").remote()
    ray.get(made.pid.remote())
    yield made
    ray.shutdown()


def command(*arguments: str) -> str:
    done = CliRunner().invoke(cli, list(arguments))
    assert done.exit_code == 0, done.output
    return str(done.output)


def test_nodes(actor: Any) -> None:
    (node,) = state.list_nodes()
    assert node.node_id == ray.get_runtime_context().get_node_id() == node["node_id"]
    assert (node.state, node.is_head_node, node.resources_total["thing"]) == ("ALIVE", True, 1)
    assert state.get_node(node.node_id) == node and state.get_node("0" * 56) is None
    assert node.asdict()["node_ip"] == node.node_ip
    assert node.end_time_ms is None and 0 < time.time() * 1000 - node.start_time_ms < 3_600_000


def test_actors(actor: Any) -> None:
    pid = ray.get(actor.pid.remote())
    (row,) = state.list_actors(filters=[("name", "=", "LIVELY"), ("state", "!=", "dead")])
    assert (row.actor_id, row.pid, row.state, row.class_name) == (actor._actor_id.hex(), pid, "ALIVE", "Living")
    assert row.ray_namespace == "here" and row.num_restarts is None
    detailed = state.get_actor(row.actor_id)
    assert detailed is not None and detailed.num_restarts == 0 and detailed.is_detached is False
    gone = Living.remote()
    ray.get(gone.pid.remote())
    ray.kill(gone)
    wait_until(lambda: state.get_actor(gone._actor_id.hex()).state == "DEAD", 20, "it is dead")
    counts = state.summarize_actors()["cluster"]
    assert counts["summary"]["Living"]["state_counts"] == {"ALIVE": 1, "DEAD": 1} and counts["total_actors"] == 2
    assert len(state.list_actors(limit=1)) == 1


def test_jobs_and_workers(actor: Any) -> None:
    (job,) = state.list_jobs()
    assert job.job_id == ray.get_runtime_context().get_job_id() and (job.type, job.status) == ("DRIVER", "RUNNING")
    assert job.driver_info is not None and job.driver_info["pid"] == os.getpid()
    kinds = {worker.pid: worker.worker_type for worker in state.list_workers()}
    assert kinds[os.getpid()] == "DRIVER" and kinds[ray.get(actor.pid.remote())] == "WORKER"
    assert state.get_worker(ray.get_runtime_context().get_worker_id()).is_alive


def test_placement_groups(actor: Any) -> None:
    group = placement_group([{"thing": 1}], name="listed")
    assert group.wait(30)
    row = state.get_placement_group(group.id.hex())
    assert row is not None and (row.name, row.state) == ("listed", "CREATED")
    assert row.bundles == [
        {
            "bundle_id": {"placement_group_id": group.id.hex(), "bundle_index": 0},
            "unit_resources": {"thing": 1.0},
            "node_id": ray.get_runtime_context().get_node_id(),
            "label_selector": {},
        }
    ]
    assert row.get("topology_strategy") == {} and row.get("nothing", 5) == 5 and row.get("nothing") is None
    remove_placement_group(group)
    wait_until(lambda: state.get_placement_group(group.id.hex()).state == "REMOVED", 20, "it is removed")


def test_objects(actor: Any) -> None:
    ref = ray.put(b"x" * (1 << 20))
    (row,) = state.get_objects(ref.hex())
    assert (row.pid, row.type, row.reference_type) == (os.getpid(), "DRIVER", "LOCAL_REFERENCE")
    assert row.object_size >= 1 << 20
    assert state.summarize_objects()["cluster"]["total_size_mb"] >= 1


def test_bad_questions_are_refused(actor: Any) -> None:
    with pytest.raises(ValueError, match="predicate"):
        state.list_actors(filters=[("state", ">", "ALIVE")])
    with pytest.raises(ValueError, match="no_such_column"):
        state.list_actors(filters=[("no_such_column", "=", "1")])
    with pytest.raises(ValueError, match="limit"):
        state.list_nodes(limit=-1)
    assert CliRunner().invoke(cli, ["list", "actors", "--filter", "nothing"]).exit_code == 2
    assert CliRunner().invoke(cli, ["get", "nodes", "0" * 56]).exit_code == 1


def test_commands(actor: Any) -> None:
    (row,) = json.loads(command("list", "actors", "--format=json", "--filter", "name=lively"))
    assert row["state"] == "ALIVE" and "num_restarts" not in row
    assert "num_restarts: 0" in command("list", "actors", "--detail", "-f", "name=lively")
    table = command("list", "nodes").splitlines()
    assert "NODE_ID" in table[0] and ray.get_runtime_context().get_node_id() in table[1]
    assert "ALIVE" in command("get", "nodes", ray.get_runtime_context().get_node_id())
    assert "Living" in command("summary", "actors")
    assert command("list", "workers", "-f", "pid=0").strip() == "No resource in the cluster"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a=b", ("a", "=", "b")),
        ("a != b", ("a", "!=", "b")),
        ("a=b!=c", ("a", "=", "b!=c")),
        ("a!=b=c", ("a", "!=", "b=c")),
        ("a==b", ("a", "=", "=b")),
    ],
)
def test_a_filter_is_split_at_its_first_operator(text: str, parts: tuple[str, str, str]) -> None:
    assert _filter(text) == parts
