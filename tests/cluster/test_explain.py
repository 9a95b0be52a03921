"""`explain` over several nodes and processes: other programs' ids, owners that are gone, objects on their way."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from support.processes import wait_until
from support.shell import Shell

import ray
from ray.cluster_utils import Cluster
from ray.util.state import Explanation, UnknownIdError, WaitState, explain

MB = 1 << 20


@pytest.fixture
def gate(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    path = tmp_path / "gate"
    yield path
    path.touch()


def until(subject: Any, holds: Callable[[Explanation], bool]) -> Explanation:
    """Its explanation, once `holds` of it."""
    deadline = time.monotonic() + 30
    while True:
        found = explain(subject)
        if holds(found):
            return found
        assert time.monotonic() < deadline, f"not as expected within 30 s:\n{found}"
        time.sleep(0.01)


@ray.remote(num_cpus=0, resources={"guest": 0.01})
def waits_there(gate: pathlib.Path) -> np.ndarray:
    while not gate.exists():
        time.sleep(0.01)
    return np.zeros(5 * MB, np.uint8)


@ray.remote(num_cpus=0, resources={"guest": 0.01})
class Owner:
    def put(self) -> list[Any]:
        return [ray.put(np.zeros(1000, np.uint8))]

    def submit(self, gate: pathlib.Path) -> list[Any]:
        return [waits_there.remote(gate)]

    def pid(self) -> int:
        return os.getpid()


def connect(cluster: Cluster) -> None:
    ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)


def test_work_on_another_node_is_found_there(cluster: Cluster, gate: pathlib.Path) -> None:
    cluster.add_node(num_cpus=1)
    guest = cluster.add_node(num_cpus=1, resources={"guest": 1})
    connect(cluster)
    (inner,) = ray.get(Owner.remote().submit.remote(gate), timeout=30)
    found = until(inner, lambda e: e.chain()[-1].state is WaitState.RUNNING)
    assert found.state is WaitState.PENDING and found.waits_for[0].node_id == guest.node_id
    assert found.owner_id != ray.get_runtime_context().get_worker_id()  # its owner was asked, not this process


def test_an_owner_that_died_is_called_dead(cluster: Cluster) -> None:
    cluster.add_node(num_cpus=1)
    cluster.add_node(num_cpus=1, resources={"guest": 1})
    connect(cluster)
    owner = Owner.remote()
    pid = ray.get(owner.pid.remote(), timeout=30)
    (inner,) = ray.get(owner.put.remote(), timeout=30)
    os.kill(pid, signal.SIGKILL)
    found = until(inner, lambda e: e.state in (WaitState.OWNER_DIED, WaitState.FAILED))
    assert "Error" in found.unblock or found.state is WaitState.FAILED
    with pytest.raises(UnknownIdError):
        explain("cd" * 28)


def test_an_object_on_its_way_names_where_it_comes_from(cluster: Cluster, gate: pathlib.Path) -> None:
    cluster.add_node(num_cpus=1)
    guest = cluster.add_node(num_cpus=1, resources={"guest": 1})
    connect(cluster)
    gate.touch()
    ref = waits_there.remote(gate)
    ray.wait([ref], timeout=30, fetch_local=False)
    os.kill(guest._node.raylet.pid, signal.SIGSTOP)
    try:
        ray.wait([ref], timeout=0.1)
        found = until(ref, lambda e: e.state is WaitState.PULLING)
        assert "chunks of it are here" in found.detail and guest.node_id in found.detail
        assert any(guest.node_id in note and "did not answer" in note for note in found.notes)
    finally:
        os.kill(guest._node.raylet.pid, signal.SIGCONT)
    assert len(ray.get(ref, timeout=30)) == 5 * MB


def test_an_object_that_is_made_again(cluster: Cluster, gate: pathlib.Path) -> None:
    cluster.add_node(num_cpus=1)
    guest = cluster.add_node(num_cpus=1, resources={"guest": 1})
    connect(cluster)
    gate.touch()
    ref = waits_there.remote(gate)
    ray.wait([ref], timeout=30, fetch_local=False)
    gate.unlink()
    cluster.remove_node(guest, allow_graceful=False)
    found = until(ref, lambda e: e.state is WaitState.RECONSTRUCTING and bool(e.waits_for))
    assert found.attempt >= 1 and "was lost" in found.detail
    task = until(ref, lambda e: e.chain()[-1].state is WaitState.INFEASIBLE).chain()[-1]
    assert task.need == {"guest": 0.01}
    cluster.add_node(num_cpus=1, resources={"guest": 1})
    until(ref, lambda e: e.chain()[-1].state is WaitState.RUNNING)
    gate.touch()
    assert len(ray.get(ref, timeout=30)) == 5 * MB


DRIVER = """
import sys, time, ray
ray.init(address="auto", logging_level="ERROR", log_to_driver=False)
@ray.remote(num_cpus=0)
def never():
    time.sleep(1000)
@ray.remote(num_cpus=50)
def too_large(value):
    pass
ref = too_large.remote(1)
chained = too_large.options(num_cpus=0).remote(never.remote())
print(ref.hex(), chained.task_id().hex(), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def other(shell: Shell) -> Iterator[tuple[Shell, list[str], subprocess.Popen[str]]]:
    """A cluster with a driver that waits, and the ids that it told."""
    shell.start_head()
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER], env=shell.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert driver.stdout is not None
    yield shell, driver.stdout.readline().split(), driver
    driver.communicate(timeout=30)


def test_the_command_explains_what_other_programs_wait_for(
    other: tuple[Shell, list[str], subprocess.Popen[str]],
) -> None:
    shell, (ref, chained), driver = other
    wait_until(lambda: "INFEASIBLE" in shell.run("explain", ref), 30, "the raylet looked at it")
    output = shell.run("explain", ref)
    assert "too_large" in output and "needs {CPU: 50}" in output and "unblocked by: a node joining" in output

    found = json.loads(shell.run("explain", chained, "--json"))
    assert (found["kind"], found["state"]) == ("task", "WAITING_FOR_ARGUMENTS")
    assert found["waits_for"][0]["waits_for"][0]["name"].endswith("never")
    # Looking is no job.
    jobs = shell.drive(
        "import ray; from ray._core import gcs; from ray._runtime.session import require_session as s;"
        "ray.init(logging_level='ERROR'); print(len(gcs.list_jobs(s().core)))"
    )
    assert jobs == "2"  # the driver's, and that of the script which counted them

    assert "is not an id" in shell.run("explain", "nonsense", code=1)
    assert "UnknownIdError" in shell.run("explain", "ef" * 28, code=1)

    driver.kill()
    driver.wait(10)
    wait_until(lambda: "UnknownIdError" in shell.run("explain", ref, code=None), 30, "its owner is gone, and so is it")
