"""The command group `ray` and its global options; each command has a file of its own."""

from __future__ import annotations

import logging

import click

from ray._version import __version__
from ray.cli.debug import debug
from ray.cli.drain_node import drain_node
from ray.cli.explain import explain
from ray.cli.get_auth_token import get_auth_token
from ray.cli.health_check import health_check
from ray.cli.kill_actor import kill_actor
from ray.cli.logs import logs
from ray.cli.memory import memory
from ray.cli.microbenchmark import microbenchmark
from ray.cli.stack import stack
from ray.cli.start import start
from ray.cli.state import get_row, list_rows, summary
from ray.cli.status import status
from ray.cli.stop import stop
from ray.cli.symmetric_run import symmetric_run
from ray.cli.timeline import timeline


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--logging-level", default="info", help="Of this command's own messages: debug, info, warning or error.")
@click.option("--logging-format", default="%(message)s", help="As the logging module takes it.")
@click.version_option(__version__, prog_name="ray")
def cli(logging_level: str, logging_format: str) -> None:
    """Starts, joins, watches and stops clusters."""
    level = logging.getLevelName(logging_level.upper())
    if not isinstance(level, int):
        raise click.BadParameter(f"{logging_level!r} is not a level.", param_hint="--logging-level")
    logging.basicConfig(level=level, format=logging_format)


COMMANDS = (
    debug, drain_node, explain, get_auth_token, get_row, health_check, kill_actor, list_rows, logs, memory,
    microbenchmark, stack, start, status, stop, summary, symmetric_run, timeline,
)  # fmt: skip
for command in COMMANDS:
    cli.add_command(command)


def main() -> None:
    """The entry point of the installed command."""
    cli(prog_name="ray")


if __name__ == "__main__":
    main()
