"""`ray health-check`: whether a cluster answers, by the exit code."""

from __future__ import annotations

import sys

import click

from ray._runtime import connect
from ray.cli import cluster
from ray.exceptions import RayError

_COMPONENTS = ("ray_client_server",)  # ray:// connects to the GCS itself; nothing else reports apart from it


@click.command(name="health-check", hidden=True)
@click.option(
    "--address", metavar="HOST:PORT", help="Of the cluster. Default: RAY_ADDRESS, or the one on this machine."
)
@click.option(
    "--component",
    type=click.Choice(_COMPONENTS),
    help="A part of the head node to ask for, which here is a part of the GCS.",
)
@click.option(
    "--skip-version-check", is_flag=True, help="Accepted, without effect: nothing is exchanged but the answer."
)
def health_check(address: str | None, component: str | None, skip_version_check: bool) -> None:
    """Ends with code 0 if the GCS of the cluster answers, with 1 if not."""
    try:
        cluster.nodes_of(connect.find(address))
    except (ConnectionError, RayError, ValueError) as error:
        click.echo(str(error), err=True)
        sys.exit(1)
