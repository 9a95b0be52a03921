"""`ray explain`: what an object, task, actor or placement group waits for."""

from __future__ import annotations

import dataclasses
import json

import click

from ray._runtime.explain import explain as find_out
from ray._runtime.explain import subject_of
from ray._runtime.observer import looking_at
from ray.cli.errors import shown


@click.command()
@click.argument("subject", metavar="ID")
@click.option(
    "--address", metavar="HOST:PORT", help="Of the cluster. Default: RAY_ADDRESS, or the one on this machine."
)
@click.option(
    "--timeout", type=click.FloatRange(0, min_open=True), default=10.0, show_default=True, help="Seconds for all of it."
)
@click.option("--json", "as_json", is_flag=True, help="As JSON instead of text.")
def explain(subject: str, address: str | None, timeout: float, as_json: bool) -> None:
    """Tells what an object, task, actor or placement group waits for, where, and what would unblock it.

    ID is in hex, as refs and logs show it.
    """
    with shown():
        subject_of(subject)  # before anything is started for it
        with looking_at(address) as session:
            found = find_out(session, subject, timeout)
    click.echo(json.dumps(dataclasses.asdict(found), indent=2) if as_json else str(found))
