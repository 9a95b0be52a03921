"""`ray stack`: where the workers on this machine are in their code."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import click

_TITLE = b"ray::"  # of each worker, in its command line


@click.command()
def stack() -> None:
    """Shows the stacks of all worker processes on this machine that are yours, by py-spy."""
    py_spy = shutil.which("py-spy")
    if py_spy is None:
        raise click.ClickException("This needs py-spy, which is not on the PATH: pip install py-spy.")
    pids = _workers()
    if not pids:
        click.echo("No worker process runs on this machine.")
    failed = 0
    for pid in pids:
        done = subprocess.run([py_spy, "dump", "--pid", str(pid)], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            click.echo(done.stdout)
        elif (Path("/proc") / str(pid)).exists():  # else it ended meanwhile
            failed += 1
            click.echo(f"Process {pid}: py-spy failed: {done.stderr.strip()}", err=True)
    if failed:
        raise click.ClickException(
            f"{failed} of {len(pids)} processes could not be looked into. py-spy may need root for that (sudo)."
        )


def _workers() -> list[int]:
    """Pids of workers that this user may look into: one's own, root all."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal():
            continue
        try:
            mine = os.geteuid() in (0, folder.stat().st_uid)
            if mine and (folder / "cmdline").read_bytes().startswith(_TITLE):
                found.append(int(folder.name))
        except (FileNotFoundError, ProcessLookupError):  # it has ended
            continue
    return sorted(found)
