"""`ray drain-node`: a node takes no more work, and leaves when what runs there has ended."""

from __future__ import annotations

import click

from ray._runtime import connect, gcs_query
from ray.cli import cluster
from ray.cli.errors import shown

_IDLE = "DRAIN_NODE_REASON_IDLE_TERMINATION"
_REASONS = (_IDLE, "DRAIN_NODE_REASON_PREEMPTION")


@click.command(name="drain-node", hidden=True)
@click.option(
    "--address", metavar="HOST:PORT", help="Of the cluster. Default: RAY_ADDRESS, or the one on this machine."
)
@click.option("--node-id", required=True, help="In hex.")
@click.option("--reason", type=click.Choice(_REASONS), required=True)
@click.option("--reason-message", required=True, help="For people.")
@click.option("--deadline-remaining-seconds", type=click.FloatRange(0), default=30, show_default=True)
def drain_node(
    address: str | None, node_id: str, reason: str, reason_message: str, deadline_remaining_seconds: float
) -> None:
    """Has a node take no more work, and leave when what runs there has ended, at the deadline at the latest.

    For idle termination only if the node is idle: a busy one stays as it is, and the command fails.
    """
    with shown():
        where = connect.find(address)
        with cluster.credentials(where) as credentials:
            try:
                gcs_query.drain_node(
                    where,
                    credentials,
                    node_id,
                    reason=f"{reason}: {reason_message}",
                    deadline_s=deadline_remaining_seconds,
                    only_if_idle=reason == _IDLE,
                )
            except ValueError as error:
                raise click.BadParameter(str(error), param_hint="--node-id") from None
            except gcs_query.NoSuchNodeError as error:
                message = f"The node cannot be drained: {error}. `ray list nodes` shows the nodes of the cluster."
                raise click.ClickException(message) from None
            except gcs_query.DrainRefusedError as error:
                raise click.ClickException(f"The drain request is not accepted: {error}") from error
