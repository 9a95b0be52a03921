"""`ray symmetric-run`: the same command on every machine makes a cluster of them and runs a program on it once."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from typing import Any

import click

from ray._runtime import addresses, environment, session_dir
from ray._runtime.cluster_process import Node
from ray.cli import cluster
from ray.cli.errors import shown
from ray.cli.node_flags import node_flags, options_from
from ray.cli.start import join

_WAIT_S = 30.0
_LOOK_AGAIN_S = 0.1  # another machine's start is no event here


@click.command(name="symmetric-run", context_settings={"ignore_unknown_options": False})
@click.option("--address", metavar="HOST:PORT", required=True, help="Of the GCS: the machine of that host is the head.")
@click.option("--min-nodes", type=click.IntRange(1), default=1, show_default=True, help="Wait for so many nodes.")
@node_flags
@click.argument("entrypoint", nargs=-1, required=True, type=click.UNPROCESSED)
def symmetric_run(address: str, min_nodes: int, entrypoint: tuple[str, ...], **given: Any) -> None:
    """Runs ENTRYPOINT once, on the head, when all nodes are there; then the cluster ends everywhere.

    Give the same command on every machine: ray symmetric-run --address HOST:PORT --min-nodes N -- python script.py
    """
    if given["node_ip_address"]:
        raise click.UsageError("--node-ip-address cannot be the same on every machine.")
    with shown():
        host, port = addresses.split(address)
        if cluster.is_here(address):
            code = _run_head(host, port, min_nodes, entrypoint, given)
        else:
            code = _run_worker(address, given)
    sys.exit(code)


def _wait_s() -> float:
    return environment.number("RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT", _WAIT_S)


def _run_head(host: str, port: int, min_nodes: int, entrypoint: tuple[str, ...], given: dict[str, Any]) -> int:
    node = Node.start_head(options_from(given), ip=host, port=port, temp_dir=given["temp_dir"], watch=True)
    session_dir.write_current(node.root, node.gcs_address)
    try:
        deadline = time.monotonic() + _wait_s()
        while (there := _num_nodes(node.gcs_address)) < min_nodes:
            if time.monotonic() > deadline:
                raise ConnectionError(f"Of {min_nodes} nodes only {there} came within {_wait_s():g} s.")
            time.sleep(_LOOK_AGAIN_S)
        click.echo(f"{there} nodes are there; running {' '.join(entrypoint)}")
        return _run(list(entrypoint), {**os.environ, "RAY_ADDRESS": node.gcs_address})
    finally:
        node.stop()


def _num_nodes(address: str) -> int:
    return sum(node["alive"] and not node["driver_only"] for node in cluster.nodes_of(address))


def _run(command: list[str], env: dict[str, str]) -> int:
    """The program's exit code; signals are for it first."""
    child = subprocess.Popen(command, env=env)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda got, _frame: child.send_signal(got))
    code = child.wait()
    return code if code >= 0 else 128 - code


def _head_is_there(address: str) -> bool:
    """Whether the head's node is known; its GCS listens a little earlier, and cannot be joined yet."""
    if not addresses.is_listening(address):
        return False
    try:
        return any(node["is_head"] and node["alive"] for node in cluster.nodes_of(address))
    except ConnectionError:  # it has just begun to listen, or to end
        return False


def _run_worker(address: str, given: dict[str, Any]) -> int:
    deadline = time.monotonic() + _wait_s()
    while not _head_is_there(address):
        if time.monotonic() > deadline:
            raise ConnectionError(f"No head node came up at {address} within {_wait_s():g} s.")
        time.sleep(_LOOK_AGAIN_S)
    node = join(address, given, watch=True)
    click.echo(f"Joined the cluster at {address}; this node stays until the head's program has ended.")
    try:
        assert node.raylet is not None
        select.select([node.raylet.pidfd], [], [])  # it ends when the GCS has gone
        return 0
    finally:
        node.stop()
