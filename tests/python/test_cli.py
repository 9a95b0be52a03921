"""The command `ray` without a cluster: what its flags mean and what it refuses."""

from __future__ import annotations

import datetime
import pathlib
import subprocess
import sys
from typing import Any

import click
import pytest
from click.testing import CliRunner

import ray
from ray._runtime import addresses, gcs_query
from ray._runtime.cluster_process import Node, NodeOptions
from ray.cli import cluster, node_flags, status, symmetric_run
from ray.cli.main import cli


def run(*arguments: str) -> Any:
    return CliRunner().invoke(cli, list(arguments))


@pytest.fixture(autouse=True)
def own_temp_root(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def test_version() -> None:
    assert run("--version").output == f"ray, version {ray.__version__}\n"


def test_the_package_does_without_click() -> None:
    code = "import sys, ray; sys.exit('click' in sys.modules or 'ray.cli' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "--address is needed"),
        (["--head", "--address=127.0.0.1:1"], "give one of them"),
        (["--address=127.0.0.1:1", "--port=1"], "--port is for the head node only"),
        (["--address=127.0.0.1:1", "--include-dashboard=false"], "--include-dashboard is for the head node only"),
        (["--address=127.0.0.1:1", "--system-config={}"], "--system-config is for the head node only"),
        (["--head", "--system-config=["], "is not JSON"),
        (["--head", "--resources=[]"], "is not a JSON object"),
        (["--head", '--resources={"CPU": 1}'], "CPU has a flag of its own"),
        (["--head", '--resources={"x": 0.5}'], "whole number"),
        (["--head", '--resources={"x": "1"}'], "must be a number"),
        (["--head", "--labels=a"], "is not KEY=VALUE"),
        (["--head", "--object-store-memory=1000"], "78643200 bytes"),
        (["--head", "--num-cpus=-1"], "--num-cpus"),
        (["--head", "--port=65536"], "--port"),
        (["--address=nonsense"], "Malformed"),
    ],
    ids=str,
)
def test_flags_that_start_refuses(arguments: list[str], text: str) -> None:
    done = run("start", *arguments)
    assert done.exit_code != 0
    assert text in done.output


def test_a_component_that_does_not_report_is_refused() -> None:
    done = run("health-check", "--address=127.0.0.1:1", "--component=nonsense")
    assert done.exit_code == 2 and "'nonsense' is not 'ray_client_server'" in done.output


def test_pointless_flags_say_why_they_are() -> None:
    text = " ".join(run("start", "--help").output.split())
    for flag in (
        "--min-worker-port",
        "--ray-client-server-port",
        "--dashboard-agent-listen-port",
        "--plasma-directory",
    ):
        assert flag in text
    assert "Accepted, without effect: workers open no port." in text


def test_the_port_of_the_environment_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_GCS_SERVER_PORT", "default")
    done = run("start", "--head")
    assert done.exit_code == 1
    assert "RAY_GCS_SERVER_PORT must be a whole number, got 'default'" in done.output


def test_user_and_password_for_redis_go_to_the_head(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[NodeOptions] = []

    def start_head(options: NodeOptions, **where: Any) -> None:
        given.append(options)
        raise RuntimeError("not today")

    monkeypatch.setattr(Node, "start_head", start_head)
    assert "not today" in run("start", "--head", "--redis-username=u", "--redis-password=hidden").output
    assert (given[0].redis_username, given[0].redis_password) == ("u", "hidden")
    assert "hidden" not in repr(given[0])


def test_the_gcs_of_a_driver_can_be_asked_to_drain_a_node(tmp_path: pathlib.Path) -> None:
    """It listens on a Unix socket; here nobody does."""
    address = f"unix:{tmp_path}/gcs.sock"
    reason = ("--reason=DRAIN_NODE_REASON_PREEMPTION", "--reason-message=x")
    done = run("drain-node", "--address", address, "--node-id", "ab" * 28, *reason)
    assert done.exit_code == 1
    assert f"No Ray cluster answers at {address}" in done.output


def test_a_query_that_hangs_is_a_cluster_that_does_not_answer(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging = tmp_path / "raylet"
    hanging.write_text("#!/bin/sh\nexec sleep 1000\n")
    hanging.chmod(0o700)
    monkeypatch.setenv("RAY_BINARY_DIR", str(tmp_path))
    monkeypatch.setattr(gcs_query, "_GRACE_S", 0.1)
    with pytest.raises(ConnectionError, match="unix:/x could not be asked in time"):
        cluster.nodes_of("unix:/x", timeout=0.1)


def test_commands_that_find_no_cluster_say_so() -> None:
    for command in ("status", "health-check"):
        done = run(command)
        assert done.exit_code == 1
        assert "Could not find any running Ray instance" in done.output
    assert run("start", "--address=auto").exit_code == 1
    done = run("stop")
    assert (done.exit_code, done.output) == (0, "Did not find any active Ray processes.\n")


def test_labels(tmp_path: pathlib.Path) -> None:
    assert node_flags.parse_labels("a=1, b = x=y,") == {"a": "1", "b": "x=y"}
    assert node_flags.parse_labels("") == {}
    with pytest.raises(click.BadParameter):
        node_flags.parse_labels("=1")


def node(**fields: Any) -> dict[str, Any]:
    base = {
        "node_id": "aa",
        "node_name": "one",
        "ip": "10.0.0.1",
        "alive": True,
        "is_head": False,
        "driver_only": False,
        "draining": False,
        "left": False,
        "death_reason": "",
        "end_time_ms": 0,
        "total": {"CPU": 2, "memory": 1 << 30, "node:10.0.0.1": 1},
        "available": {"CPU": 2, "memory": 1 << 30, "node:10.0.0.1": 1},
        "labels": {"zone": "a"},
    }
    return {**base, **fields}


def test_the_report_of_status() -> None:
    nodes = [
        node(is_head=True),
        node(node_id="bb", available={"CPU": 0.5, "memory": 1 << 30}, draining=True),
        node(node_id="cc", alive=False, death_reason="its link broke", available={}),
        node(node_id="dd", alive=False, death_reason="SIGTERM", left=True, available={}),
        node(node_id="ee", driver_only=True, total={}, available={}),
    ]
    text = "\n".join(status.report(nodes, datetime.datetime(2030, 1, 2, 3, 4, 5), verbose=True))
    assert text.startswith("======== Autoscaler status: 2030-01-02 03:04:05 ========\nNode status\n")
    assert "Active:\n 1 bb (draining)\nIdle:\n 1 aa (head)\nPending:\n (no pending nodes)\n" in text
    assert "Recent failures:\n cc: its link broke (ip: 10.0.0.1)\n" in text
    assert "Total Usage:\n 1.5/4.0 CPU\n 0B/2.00GiB memory\n" in text
    assert "Labels: zone=a" in text
    assert "dd" not in text and "ee" not in text


def test_the_report_of_what_waits() -> None:
    nodes = [
        node(waiting=[{"need": {"GPU": 1.0, "CPU": 1.0}, "count": 3}]),
        node(
            node_id="bb", waiting=[{"need": {"CPU": 1.0, "GPU": 1.0}, "count": 2}, {"need": {"CPU": 8.0}, "count": 1}]
        ),
    ]
    groups = [{"id": "ff", "strategy": 4, "why": "", "bundles": [{"CPU": 4.0}, {"CPU": 4.0}, {"GPU": 1.0}]}] * 2
    waiting = {"actors": [{"need": {"CPU": 8.0}, "count": 4}], "placement_groups": groups}
    text = "\n".join(status.report(nodes, datetime.datetime(2030, 1, 2), waiting=waiting))
    assert (
        "Pending Demands:\n {'CPU': 1.0, 'GPU': 1.0}: 5+ pending tasks/actors\n {'CPU': 8.0}: 5+ pending tasks/actors\n"
        " {'CPU': 4.0} * 2, {'GPU': 1.0} * 1 (STRICT_SPREAD): 2+ pending placement groups" in text
    )


def test_the_report_of_an_empty_cluster() -> None:
    text = "\n".join(status.report([], datetime.datetime(2030, 1, 2)))
    assert "(no active nodes)" in text and "(no resources)" in text and "(no failures)" in text
    assert text.endswith("Pending Demands:\n (no resource demands)")


def test_a_head_is_there_when_its_node_is(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = [
        ConnectionError("it has just begun"),
        [],
        [{"is_head": True, "alive": False}, {"is_head": False, "alive": True}],
        [{"is_head": False, "alive": True}, {"is_head": True, "alive": True}],
    ]

    def nodes_of(address: str) -> Any:
        answer = asked.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(cluster, "nodes_of", nodes_of)
    monkeypatch.setattr(addresses, "is_listening", lambda address: False)
    assert not symmetric_run._head_is_there("10.0.0.1:6379") and len(asked) == 4
    monkeypatch.setattr(addresses, "is_listening", lambda address: True)
    assert [symmetric_run._head_is_there("10.0.0.1:6379") for _ in range(4)] == [False, False, False, True]
