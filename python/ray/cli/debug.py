"""`ray debug`: attaches to a task or actor that waits at a breakpoint."""

from __future__ import annotations

import contextlib
import datetime
import os
import select
import socket
import sys
from typing import Any

import click

from ray._runtime.session import Session, require_session
from ray.api import init, shutdown
from ray.cli.errors import shown
from ray.util import rpdb

_CHUNK = 1 << 16


@click.command()
@click.option(
    "--address", metavar="HOST:PORT", help="Of the cluster. Default: RAY_ADDRESS, or the one on this machine."
)
@click.option("-v", "--verbose", is_flag=True, help="Also how the code got to each breakpoint.")
def debug(address: str | None, verbose: bool) -> None:
    """Lists what waits at a breakpoint, and attaches to it: `breakpoint()` in a task or actor waits for this.

    Of the whole cluster all are listed. One is attached to on the machine where it waits: breakpoints listen on sockets
    of their own machine only, since who reaches one can run anything.
    """
    with shown():
        init(address or "auto", log_to_driver=False, logging_level="ERROR")
        try:
            _serve(require_session(), verbose)
        finally:
            shutdown()


def _serve(session: Session, verbose: bool) -> None:
    while True:
        found = [entry for entry in rpdb.active_breakpoints(session) if not _forgotten(session, entry)]
        click.echo("\n".join(_listing(found, verbose)))
        if not found:
            return
        click.echo("Number of a breakpoint, Enter to look again, q to leave: ", nl=False)
        answer = _line()
        if answer is None or answer.strip() in ("q", "quit"):
            return
        if not answer.strip():
            continue
        if not answer.strip().isdecimal() or int(answer) >= len(found):
            click.echo(f"There is no breakpoint {answer.strip()!r}.")
            continue
        chosen = found[int(answer)]
        if not _is_here(chosen):
            click.echo(f"It waits on another machine: run `ray debug` on {chosen['node_ip']}.")
            continue
        connection = _connect(chosen)
        if connection is None:
            click.echo("It does not wait any more.")
            continue
        with connection:
            _talk(connection)


def _line() -> str | None:
    """A line of the standard input, taken without a buffer that would keep what comes after it; None: it has ended."""
    taken = bytearray()
    while not taken.endswith(b"\n"):
        byte = os.read(sys.stdin.fileno(), 1)
        if not byte:
            return None
        taken += byte
    return taken.decode(errors="replace")


def _is_here(entry: dict[str, Any]) -> bool:
    return bool(entry["machine"] == rpdb.boot_id())


def _forgotten(session: Session, entry: dict[str, Any]) -> bool:
    """Whether its process has ended without a word; then it is taken out of the table."""
    if not _is_here(entry) or os.path.exists(f"/proc/{entry['pid']}"):
        return False
    session.kv_del(rpdb.NAMESPACE, entry["key"])
    return True


def _connect(entry: dict[str, Any]) -> socket.socket | None:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with rpdb.short_path(entry["socket"]) as path:
            connection.connect(path)
    except OSError:
        connection.close()
        return None
    return connection


def _talk(connection: socket.socket) -> None:
    """Passes lines from here to the debugger, and its text back, until it hangs up."""
    keyboard = sys.stdin.fileno()
    sources: list[Any] = [connection, keyboard]
    while True:
        ready, _, _ = select.select(sources, [], [])
        if connection in ready:
            with contextlib.suppress(ConnectionError):
                text = connection.recv(_CHUNK)
                if text:
                    os.write(sys.stdout.fileno(), text)
                    continue
            return
        typed = os.read(keyboard, _CHUNK)
        if not typed:  # the end of the input lets the code go on
            sources.remove(keyboard)
            connection.shutdown(socket.SHUT_WR)
            continue
        with contextlib.suppress(ConnectionError):
            connection.sendall(typed)


def _listing(found: list[dict[str, Any]], verbose: bool) -> list[str]:
    if not found:
        return ["Nothing waits at a breakpoint."]
    lines = ["Active breakpoints:"]
    for number, entry in enumerate(found):
        since = datetime.datetime.fromtimestamp(entry["timestamp"]).strftime("%Y-%m-%d %H:%M:%S")
        where = "" if _is_here(entry) else f" on {entry['node_ip']}"
        lines.append(
            f"{number}: {entry['proctitle']} (pid={entry['pid']}{where}), {entry['reason']} "
            f"at {entry['filename']}:{entry['lineno']}, since {since}"
        )
        if verbose:
            lines += [f"    {line}" for line in entry["traceback"].splitlines()]
    return lines
