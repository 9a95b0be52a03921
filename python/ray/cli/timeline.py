"""`ray timeline`: when the tasks of a cluster ran, as a file for chrome://tracing."""

from __future__ import annotations

import datetime
import os

import click

from ray._runtime import session_dir
from ray._runtime.profile import timeline as write_timeline
from ray.api import init, shutdown
from ray.cli.errors import shown


@click.command()
@click.option(
    "--address", metavar="HOST:PORT", help="Of the cluster. Default: RAY_ADDRESS, or the one on this machine."
)
def timeline(address: str | None) -> None:
    """Writes when tasks ran, in a cluster that was started with RAY_PROFILING=1."""
    with shown():
        init(address or "auto", log_to_driver=False, logging_level="ERROR")
        try:
            name = f"ray-timeline-{datetime.datetime.now():%Y-%m-%d_%H-%M-%S}.json"
            path = os.path.join(session_dir.temp_root(), name)
            write_timeline(path)
        finally:
            shutdown()
    click.echo(f"Trace file written to {path} ({os.path.getsize(path)} bytes).")
    click.echo("Open chrome://tracing or https://ui.perfetto.dev and load it.")
