"""`ray memory`: which refs the processes of a cluster hold, and why."""

from __future__ import annotations

import click

from ray._private.internal_api import memory_summary
from ray._runtime.memory_report import GROUPS, SORTS, UNITS
from ray.cli.errors import shown


@click.command()
@click.option(
    "--address", metavar="HOST:PORT", help="Of the cluster. Default: RAY_ADDRESS, or the one on this machine."
)
@click.option("--group-by", type=click.Choice(GROUPS), default="NODE_ADDRESS", show_default=True)
@click.option("--sort-by", type=click.Choice(SORTS), default="OBJECT_SIZE", show_default=True)
@click.option("--units", type=click.Choice(list(UNITS)), default="B", show_default=True, help="Of sizes.")
@click.option("--no-format", is_flag=True, help="Fields separated by bars instead of columns, for other programs.")
@click.option("--stats-only", is_flag=True, help="Tell of the object stores only.")
@click.option("--num-entries", "-n", type=click.IntRange(0), help="Show at most so many refs of each group.")
def memory(
    address: str | None,
    group_by: str,
    sort_by: str,
    units: str,
    no_format: bool,
    stats_only: bool,
    num_entries: int | None,
) -> None:
    """Shows each object ref that a process holds: type of reference, size, where it was made."""
    with shown():
        text = memory_summary(
            address, group_by, sort_by, units, line_wrap=not no_format, stats_only=stats_only, num_entries=num_entries
        )
    click.echo(text, nl=False)
