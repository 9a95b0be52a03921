"""`ray logs`: what the processes of a cluster wrote."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ray.cli.errors import shown
from ray.util.state import _logs

_TAIL = 1000
_LOOK_AGAIN_S = 0.5


class _Logs(click.Group):
    """`ray logs FILE` is short for `ray logs cluster FILE`."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and self.get_command(ctx, args[0]) is None:
            args = ["cluster", *args]
        return super().resolve_command(ctx, args)


def _reading(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--timeout", type=int, expose_value=False, help="Accepted, without effect: files are read."),
        click.option("--interval", type=click.FloatRange(0.01), default=_LOOK_AGAIN_S, help="Seconds, with --follow."),
        click.option(
            "--tail", type=click.IntRange(-1), default=_TAIL, show_default=True, help="Lines at the end. -1: all."
        ),
        click.option("--follow", "-f", is_flag=True, help="Go on with what is added, until Ctrl-C."),
        click.option("--node-ip", "-ip", metavar="IP", help="Of which node."),
        click.option("--node-id", "-id", metavar="HEX", help="Of which node. Default: the head node."),
        click.option("--address", metavar="HOST:PORT", help="Of the cluster. Default: RAY_ADDRESS, or the one here."),
    ):
        command = option(command)
    return command


_err = click.option("--err", is_flag=True, help="What it wrote to stderr, instead of what it printed.")


@click.group(cls=_Logs)
def logs() -> None:
    """Shows logs of a node on this machine: `ray logs raylet.out`, `ray logs actor --id ...`.

    Logs are files of the machine that they were written on, and are read there.
    """


@logs.command()
@click.argument("glob_filter", default="*")
@click.option("--encoding", default="utf-8", show_default=True)
@click.option("--encoding-errors", default="strict", show_default=True, help="As Python's codecs take it.")
@_reading
def cluster(
    glob_filter: str,
    address: str | None,
    node_id: str | None,
    node_ip: str | None,
    encoding: str,
    encoding_errors: str,
    **reading: Any,
) -> None:
    """Lists the log files that match GLOB_FILTER; a single one is shown."""
    with shown():
        ip, found = _logs.names(address, node_id, node_ip, glob_filter)
        matches = [name for kind in found.values() for name in kind]
        if len(matches) == 1:
            path = _logs.find(address, node_id=node_id, node_ip=node_ip, filename=matches[0])
            _show(path, encoding=encoding, errors=encoding_errors, **reading)
            return
    if not matches:
        raise click.ClickException(f"No log file on {ip} matches {glob_filter!r}.")
    click.echo(f"Node IP: {ip}")
    for kind, kind_names in sorted(found.items()):
        click.echo(f"{kind}:")
        for name in kind_names:
            click.echo(f"- {name}")


@logs.command()
@click.option("--id", "-a", "actor_id", metavar="HEX", help="Of the actor.")
@click.option("--pid", "-pid", help="Of its process.")
@_err
@_reading
def actor(
    actor_id: str | None,
    pid: str | None,
    err: bool,
    address: str | None,
    node_id: str | None,
    node_ip: str | None,
    **reading: Any,
) -> None:
    """Shows what an actor wrote."""
    if (actor_id is None) == (pid is None):
        raise click.UsageError("Give either --id or --pid.")
    with shown():
        path = _logs.find(
            address, node_id=node_id, node_ip=node_ip, actor_id=actor_id, pid=pid, suffix="err" if err else "out"
        )
        _show(path, **reading)


@logs.command()
@click.option("--id", "task_id", metavar="HEX", required=True, help="Of the task.")
@click.option("--attempt-number", "-a", type=int, default=0, show_default=True, help="Which attempt at it.")
@_err
@_reading
def task(
    task_id: str,
    attempt_number: int,
    err: bool,
    address: str | None,
    node_id: str | None,
    node_ip: str | None,
    **reading: Any,
) -> None:
    """Shows what the worker wrote that ran a task, which may have run others, too."""
    with shown():
        path = _logs.find(address, task_id=task_id, attempt_number=attempt_number, suffix="err" if err else "out")
        _show(path, **reading)


@logs.command()
@click.option("--pid", "-pid", required=True, help="Of the worker.")
@_err
@_reading
def worker(pid: str, err: bool, address: str | None, node_id: str | None, node_ip: str | None, **reading: Any) -> None:
    """Shows what a worker process wrote, whatever ran there."""
    with shown():
        path = _logs.find(address, node_id=node_id, node_ip=node_ip, pid=pid, suffix="err" if err else "out")
        _show(path, **reading)


def _show(
    path: Path, *, tail: int, follow: bool, interval: float, encoding: str = "utf-8", errors: str = "replace"
) -> None:
    if tail >= 0:
        click.echo(f"--- {path.name}, the last {tail} lines at most; --tail -1 shows all ---", err=True)
    try:
        for text in _logs.chunks(
            path, tail=tail, follow=follow, interval=interval, encoding=encoding, errors=errors, filter_ansi_code=False
        ):
            click.echo(text, nl=False)
    except KeyboardInterrupt:  # the way to end --follow
        pass
