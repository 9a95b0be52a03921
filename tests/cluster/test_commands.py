"""Commands that look into a running cluster or end a part of it: `ray logs`, `ray kill-actor`, `ray stack`."""

from __future__ import annotations

import os
import pathlib
import sys

import pytest
from click.testing import CliRunner, Result
from support.processes import wait_until

import ray
from ray.cli.main import cli
from ray.cluster_utils import Cluster
from ray.util.state import get_log, list_logs
from ray.util.state.exception import RayStateApiException


@ray.remote(num_cpus=0)
class Speaker:
    def speak(self, text: str) -> int:
        print(text)
        print("error:", text, file=sys.stderr)
        return os.getpid()


@pytest.fixture
def address(cluster: Cluster) -> str:
    cluster.add_node(num_cpus=1)
    cluster.add_node(num_cpus=1, resources={"guest": 1})
    ray.init(address=cluster.address, log_to_driver=False, namespace="here")
    assert cluster.address is not None
    return cluster.address


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments))


def output(*arguments: str) -> str:
    done = run(*arguments)
    assert done.exit_code == 0, done.output
    return str(done.stdout)


def refusal(*arguments: str, code: int = 1) -> str:
    done = run(*arguments)
    assert done.exit_code == code, done.output
    return str(done.output)


def test_logs_of_actors_and_processes(address: str) -> None:
    speaker = Speaker.options(resources={"guest": 1}).remote()
    pid = ray.get([speaker.speak.remote(f"line {i}") for i in range(5)])[0]
    actor_id = speaker._actor_id.hex()
    wait_until(lambda: "line 4" in "".join(get_log(actor_id=actor_id)), 20, "it is written")
    printed = "".join(f"line {i}\n" for i in range(5))
    assert "".join(get_log(actor_id=actor_id)) == printed
    assert "".join(get_log(pid=pid, tail=1)) == "line 4\n"
    assert "".join(get_log(pid=str(pid), suffix="err", tail=2)) == "error: line 3\nerror: line 4\n"
    assert output("logs", "actor", "--address", address, "--id", actor_id) == printed
    assert output("logs", "actor", "--address", address, "--pid", str(pid), "--tail", "1", "--err") == "error: line 4\n"
    assert output("logs", "worker", "--address", address, "--pid", str(pid), "--tail", "2") == "line 3\nline 4\n"
    last = speaker.speak.remote("line 5").task_id().hex()
    printed += "line 5\n"
    wait_until(lambda: "".join(get_log(task_id=last)) == printed, 20, "it is written")
    assert output("logs", "task", "--address", address, "--id", last) == printed
    assert output("logs", "task", "--address", address, "--id", last, "--tail", "1", "--err") == "error: line 5\n"
    ray.kill(speaker)
    wait_until(lambda: ray.util.state.get_actor(actor_id).state == "DEAD", 20, "it is dead")
    assert "".join(get_log(actor_id=actor_id)) == printed


def test_logs_of_a_node(cluster: Cluster, address: str) -> None:
    guest = cluster.list_all_nodes()[1]
    assert list_logs(glob_filter="gcs_server.*") == {"gcs_server": ["gcs_server.err", "gcs_server.out"]}
    for node in ({"node_id": guest.node_id}, {"node_ip": "127.0.0.1"}):
        assert "raylet.out" in list_logs(**node, glob_filter="raylet*")["raylet"]
    text = output("logs", "gcs_server.*", "--address", address)
    assert text == "Node IP: 127.0.0.1\ngcs_server:\n- gcs_server.err\n- gcs_server.out\n"
    logs = pathlib.Path(guest.get_logs_dir_path())
    (logs / "own.out").write_text("one\ntwo\n")
    assert "".join(get_log(filename="own.out")) == "one\ntwo\n"
    assert output("logs", "own.out", "--tail", "-1", "--address", address) == "one\ntwo\n"
    assert output("logs", "cluster", "own.*", "--tail", "1", "--address", address) == "two\n"


def test_logs_that_are_not_there(address: str) -> None:
    finished = ray.remote(lambda: None).remote()
    ray.get(finished)
    done, waiting = finished.task_id().hex(), ray.remote(lambda: None).options(resources={"nothing": 1}).remote()
    for arguments, why in (
        ({"filename": "nothing.out"}, "there is no file nothing.out"),
        ({"pid": 1}, "no worker with the pid 1"),
        ({"actor_id": "ab" * 16}, "no actor with the id abab"),
        ({"task_id": "ab" * 24}, "no attempt 0 at task abab.*nobody knows"),
        ({"task_id": "nothing"}, "no attempt 0 at task nothing"),
        ({"task_id": done, "attempt_number": 1}, r"its attempts are \[0\]"),
        ({"task_id": waiting.task_id().hex()}, "no process has run task"),
        ({"filename": "raylet.out", "node_id": "ab" * 28}, "no node with the id abab"),
        ({"filename": "raylet.out", "node_ip": "1.2.3.4"}, "no node with the address 1.2.3.4"),
    ):
        with pytest.raises(RayStateApiException, match=why):
            get_log(**arguments)
    for arguments, why in (
        ({}, "Exactly one"),
        ({"filename": "a", "pid": 1}, "Exactly one"),
        ({"task_id": done, "pid": 1}, "Exactly one"),
        ({"filename": "../../x"}, "in the folder of the logs"),
        ({"pid": "x"}, "number of a process"),
        ({"filename": "a", "tail": -2}, "-1 for all"),
        ({"filename": "a", "suffix": "log"}, "suffix"),
    ):
        with pytest.raises(ValueError, match=why):
            get_log(**arguments)
    with pytest.raises(NotImplementedError, match="submission_id"):
        get_log(submission_id="job")
    assert "matches 'nothing'" in refusal("logs", "nothing", "--address", address)
    assert "no actor with the id" in refusal("logs", "actor", "--id", "ab" * 16, "--address", address)
    assert "either --id or --pid" in refusal("logs", "actor", "--address", address, code=2)


def test_logs_of_another_machine(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray._runtime.addresses.is_local", lambda ip: False)
    with pytest.raises(RayStateApiException, match=r"on the machine 127.0.0.1, and can be read there only"):
        list_logs()


def test_actors_are_killed_by_name(address: str, tmp_path: pathlib.Path) -> None:
    first = Speaker.options(name="speaker", lifetime="detached").remote()
    assert ray.get(first.speak.remote("here"))
    assert "--no-restart" in refusal("kill-actor", "--name", "x", "--no-restart", code=2)
    ray.shutdown()  # commands connect as drivers of their own
    assert "No actor is named 'nobody'" in refusal("kill-actor", "--address", address, "--name", "nobody")
    assert "terminated" in output("kill-actor", "--address", address, "--name", "speaker")
    ray.init(address=address, log_to_driver=False, namespace="here")
    with pytest.raises(ValueError, match="speaker"):
        ray.get_actor("speaker")
    for namespace in ("here", "there"):
        Speaker.options(name="twin", namespace=namespace, lifetime="detached", max_restarts=-1).remote()
    ray.shutdown()
    assert "Several namespaces" in refusal("kill-actor", "--address", address, "--name", "twin")
    twin = ("kill-actor", "--address", address, "--name", "twin", "--namespace", "there", "--force", "--no-restart")
    assert "killed" in output(*twin)
    ray.init(address=address, log_to_driver=False, namespace="here")
    assert ray.get(ray.get_actor("twin").speak.remote("alive"), timeout=30)
    with pytest.raises(ValueError, match="twin"):
        ray.get_actor("twin", namespace="there")


def test_stacks_need_py_spy(address: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "pip install py-spy" in refusal("stack")
    tool = tmp_path / "py-spy"
    tool.write_text('#!/bin/sh\necho "stack of $*"\n')
    tool.chmod(0o755)
    speaker = Speaker.remote()
    pid = ray.get(speaker.speak.remote(""))
    assert f"stack of dump --pid {pid}\n" in output("stack")
    tool.write_text('#!/bin/sh\necho "no permission" >&2\nexit 1\n')
    text = refusal("stack")
    assert f"Process {pid}: py-spy failed: no permission" in text and "sudo" in text
