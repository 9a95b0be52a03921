"""`ray stop`: ends what `ray start` started on this machine."""

from __future__ import annotations

import os
import select
import shutil
import signal
import time
from pathlib import Path

import click

from ray._runtime import session_dir
from ray._runtime.session_dir import GCS, ProcessRecord, send_signal
from ray.cli.node_flags import message_flags


@click.command()
@click.option("-f", "--force", is_flag=True, help="Kill at once, without asking first.")
@click.option(
    "-g",
    "--grace-period",
    type=click.FloatRange(0),
    default=16,
    show_default=True,
    help="Seconds until processes are killed.",
)
@message_flags
def stop(force: bool, grace_period: float) -> None:
    """Ends the processes that `ray start` started on this machine for this user.

    They are found by the records in their session directories, never by name: below $RAY_TMPDIR/ray (or /tmp/ray), and
    where --temp-dir said, with the same RAY_TMPDIR. Clusters of another one, of drivers that called ray.init(), and of
    tests are left alone.
    """
    root = session_dir.temp_root()
    found = [record for record in session_dir.live_records(root) if not record.owned]
    opened = [(record, fd) for record in found if (fd := record.pidfd()) is not None]
    try:
        stopped = _end(opened, 0.0 if force else grace_period)
    finally:
        for _, fd in opened:
            os.close(fd)
    for record in found:
        _clean(record)
    for place in {root, *(Path(record.session_dir).parent for record in found)}:
        session_dir.forget_current(place)
    if stopped:
        click.echo(f"Stopped all {stopped} Ray processes.")
    else:
        click.echo("Did not find any active Ray processes.")


def _end(opened: list[tuple[ProcessRecord, int]], grace: float) -> int:
    """Raylets first, in order not waiting for running work, then GCSs; those left after the grace are killed."""
    raylets = [fd for record, fd in opened if record.kind != GCS]
    servers = [fd for record, fd in opened if record.kind == GCS]
    # At SIGINT the nodes of other machines end as well, at SIGTERM they wait for another head.
    replaceable = [fd for record, fd in opened if record.kind == GCS and record.replaceable]
    if grace > 0:
        began = time.monotonic()
        _ask(raylets, signal.SIGINT, began + grace * 2 / 3)
        _ask(replaceable, signal.SIGTERM, began + grace)
        _ask([fd for fd in servers if fd not in replaceable], signal.SIGINT, began + grace)
    everyone = [*raylets, *servers]
    for fd in everyone:
        send_signal(fd, signal.SIGKILL)
    _wait(everyone, time.monotonic() + 10)
    return len(everyone)


def _ask(fds: list[int], number: signal.Signals, deadline: float) -> None:
    for fd in fds:
        send_signal(fd, number)
    _wait(fds, deadline)


def _wait(fds: list[int], deadline: float) -> None:
    waiting = set(fds)
    while waiting and (left := deadline - time.monotonic()) > 0:
        waiting -= set(select.select(list(waiting), [], [], left)[0])


def _clean(record: ProcessRecord) -> None:
    record.remove()
    node_dir = Path(record.node_dir)
    shutil.rmtree(node_dir / "sockets", ignore_errors=True)
    if record.node_dir != record.session_dir:
        shutil.rmtree(node_dir, ignore_errors=True)
