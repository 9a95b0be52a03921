"""`ray start`: a new cluster's head node, or one more node of a cluster."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from typing import Any

import click

from ray._runtime import addresses, connect, environment, session_dir
from ray._runtime.cluster_process import Node
from ray.cli import cluster
from ray.cli.errors import shown
from ray.cli.node_flags import message_flags, node_flags, options_from
from ray.cli.supervise import supervise

_HEAD_ONLY = ("port", "include_dashboard", "system_config", "autoscaling_config")


@click.command()
@click.option("--head", is_flag=True, help="Start a new cluster; this is its head node.")
@click.option("--address", metavar="HOST:PORT", help="Join the cluster whose GCS listens there; auto: the local one.")
@click.option("--port", type=click.IntRange(0, 65535), help="Of the GCS (head only). Default: 6379. 0: any free one.")
@click.option("--block", is_flag=True, help="Stay, watch the processes, and end with them. SIGTERM drains the node.")
@click.option("--system-config", metavar="JSON", help="Settings for the whole cluster (head only).")
@click.option("--include-dashboard", type=bool, help="Accepted, without effect: there is no dashboard yet (head only).")
@click.option("--autoscaling-config", help="Accepted, without effect: there is no autoscaler yet (head only).")
@node_flags
@message_flags
def start(head: bool, address: str | None, port: int | None, block: bool, **given: Any) -> None:
    """Starts a node on this machine: the head of a new cluster (--head), or one that joins a cluster (--address)."""
    options = options_from(given)
    if head:
        if address is not None:
            raise click.UsageError("--head starts a new cluster, --address joins one: give one of them.")
        if given["system_config"]:
            options = replace(options, system_config=_parse_config(given["system_config"]))
        with shown():
            if port is None:
                port = environment.port("RAY_GCS_SERVER_PORT", addresses.DEFAULT_PORT)
            node = Node.start_head(
                options, ip=given["node_ip_address"], port=port, temp_dir=given["temp_dir"], watch=block
            )
    else:
        if address is None:
            raise click.UsageError("--address is needed to join a cluster; --head starts a new one.")
        for name in _HEAD_ONLY:
            if {**given, "port": port}[name] is not None:
                flag = "--" + name.replace("_", "-")
                raise click.UsageError(f"{flag} is for the head node only, which is started with --head.")
        with shown():
            node = join(address, given, watch=block)
    session_dir.write_current(node.root, node.gcs_address)
    _tell(node, head=head)
    if block:
        sys.exit(supervise(node, options.drain_s))
    node.detach()


def join(address: str, given: dict[str, Any], *, watch: bool) -> Node:
    """Joins the cluster at `address`. Raises what `Node.join` does, and RuntimeError for another Python there."""
    where = connect.find(address)
    nodes = cluster.nodes_of(where)
    for node in nodes:
        if node["alive"]:
            connect.check_python(node["python_version"], f"node {node['ip']}")
    return Node.join(
        options_from(given),
        gcs_address=where,
        session_name=connect.session_name(nodes, where),
        local=connect.local_record(where, session_dir.temp_root(given["temp_dir"])),
        ip=given["node_ip_address"],
        temp_dir=given["temp_dir"],
        watch=watch,
    )


def _parse_config(text: str) -> dict[str, object]:
    try:
        got = json.loads(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is not JSON: {error}", param_hint="--system-config") from None
    if not isinstance(got, dict):
        raise click.BadParameter(f"{text!r} is not a JSON object.", param_hint="--system-config")
    return got


def _tell(node: Node, *, head: bool) -> None:
    say = click.echo
    say(f"Local node IP: {node.ip}\n")
    say("--------------------\nRay runtime started.\n--------------------\n")
    if head:
        say("To add another node to this cluster, run on it\n")
        say(f"  ray start --address='{node.gcs_address}'\n")
        if node.security.token_file:
            say("It needs the cluster's token, unless it is on this machine: put what `ray get-auth-token` prints here")
            say("into RAY_AUTH_TOKEN or ~/.ray/auth_token there.\n")
        say("To use the cluster from Python on this machine\n\n  import ray\n  ray.init()\n")
        say(f"and from elsewhere\n\n  ray.init('ray://{node.gcs_address}')\n")
        say("To see the cluster, run\n\n  ray status\n")
    say("To stop the Ray processes of this machine, run\n\n  ray stop\n")
    say(f"Logs are in {node.session_dir}/logs")
