"""Questions about a cluster from a process that is connected to it, to another one, or to none."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import pytest
from support.nodes import HandCluster
from support.shell import Shell

import ray
from ray.cli.main import cli
from ray.util import state
from ray.util.state.exception import RayStateApiException

# Asks about the cluster at argv[1] ("own": the program's own address) and shows that its own session goes on as before.
CONNECTED = """
import asyncio, json, os, sys, time
import ray
from ray._core.gcs import node_stats
from ray._core.object_ref import active_worker
from ray._private.internal_api import memory_summary
from ray._runtime.session import require_session
from ray.util import state

ray.init(address="local", num_cpus=2, logging_level="ERROR", log_to_driver=False, resources={"mine": 1})
address = sys.argv[1] if sys.argv[1] != "own" else ray.get_runtime_context().gcs_address
core = require_session().core

@ray.remote
def double(x):
    return 2 * x

async def doubled(x):
    return await double.remote(x)

def until_stored(number):  # the deadline is that of the process
    while json.loads(node_stats(core))["store"]["num_objects"] != number:
        time.sleep(0.01)

def log_file():  # of the core: where its lines go
    links = (f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd"))
    return [held for held in (os.readlink(link) for link in links if os.path.islink(link)) if "core-driver" in held]

early, log = ray.put(bytes(1 << 20)), log_file()
pinned = ray.cloudpickle.dumps(early)
until_stored(1)
looks = [
    lambda: state.list_nodes(address=address)[0].resources_total.get("mine", 0),
    lambda: memory_summary(address=address) != "",
]
for look in looks:
    print(look())
    assert active_worker() is core is require_session().core and log_file() == log and len(log) == 1
    assert asyncio.run(doubled(3)) == 6 and ray.get(double.remote(4)) == 8
    late = ray.put(bytes(1 << 20))
    until_stored(2)
    del late
    until_stored(1)
del early
ray.get(double.remote(1))
assert len(ray.get(ray.cloudpickle.loads(pinned))) == 1 << 20  # what left through other pickles is kept
ray.shutdown()
"""


@pytest.mark.parametrize("address", ["auto", "own"])
def test_a_program_looks_at_its_own_cluster(shell: Shell, address: str) -> None:
    shell.start_head()  # which `auto` does not mean in a program that is connected elsewhere
    assert shell.drive(CONNECTED, address).split() == ["1.0", "True"]


def test_a_program_looks_at_another_cluster(shell: Shell) -> None:
    address = shell.start_head()
    assert shell.drive(CONNECTED, address).split() == ["0", "True"]


def test_a_process_without_a_session_looks(shell: Shell) -> None:
    address = shell.start_head("--resources", '{"mine": 1}')
    script = (
        "import ray, sys; from ray.util import state\n"
        "for address in ('auto', None, sys.argv[1]):\n"
        "    print(state.list_nodes(address=address)[0].resources_total['mine'], ray.is_initialized())\n"
        "ray.init(sys.argv[1], logging_level='ERROR'); print(ray.get(ray.put(7)))\n"
    )
    assert shell.drive(script, address).splitlines() == ["1.0 False"] * 3 + ["7"]
    assert "mine" in shell.run("list", "nodes", "--detail")


def test_nodes_that_say_nothing_are_named_after_one_time_out_for_all(
    cluster_of: Callable[..., HandCluster], capfd: pytest.CaptureFixture[str]
) -> None:
    cluster = cluster_of(4, "--health-check-period", "1000s")
    cluster.connect()
    silent = cluster.raylets[1:]
    for raylet in silent:
        raylet.send_signal(signal.SIGSTOP)
    try:
        start = time.monotonic()
        with pytest.raises(RayStateApiException) as caught:
            state.list_workers(timeout=2)
        assert time.monotonic() - start < 6  # they were asked at the same time
        assert all(cluster.node_id(number) in str(caught.value) for number in (1, 2, 3))
        me = ray.get_runtime_context().get_worker_id()
        assert state.get_worker(me, timeout=1).pid == os.getpid()
        for look in (lambda: state.get_worker("0" * 56, timeout=1), lambda: state.get_objects("0" * 56, timeout=1)):
            with pytest.raises(RayStateApiException, match=cluster.node_id(1)):
                look()
        rows = state.list_workers(timeout=1, raise_on_missing_output=False)
        assert me in {row.worker_id for row in rows} and {row.node_id for row in rows} == {cluster.node_id(0)}
        cli.main(["list", "workers", "--timeout=1"], standalone_mode=False)
        said = capfd.readouterr()
        assert me in said.out and "Warning: Not everything could be had" in said.err
        assert cluster.node_id(2) in said.err
    finally:
        for raylet in silent:
            raylet.send_signal(signal.SIGCONT)
    assert state.get_worker("0" * 56) is None
