"""`ray timeline`: when the tasks of a cluster ran, as a file for chrome://tracing."""

from __future__ import annotations

import datetime
import os

import click

from ray._runtime import session_dir
from ray._runtime.observer import looking_at
from ray._timeline import events_of, write
from ray.cli.errors import shown


@click.command()
@click.option(
    "--address", metavar="HOST:PORT", help="Of the cluster. Default: RAY_ADDRESS, or the one on this machine."
)
def timeline(address: str | None) -> None:
    """Writes when the tasks ran that `ray list tasks` knows, of all jobs."""
    with shown():
        with looking_at(address) as session:
            events = events_of(session)
        name = f"ray-timeline-{datetime.datetime.now():%Y-%m-%d_%H-%M-%S}.json"
        path = os.path.join(session_dir.temp_root(), name)
        write(events, path)
    click.echo(f"Trace file written to {path} ({os.path.getsize(path)} bytes).")
    click.echo("Open chrome://tracing or https://ui.perfetto.dev and load it.")
