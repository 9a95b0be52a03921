"""Limits of running processes, lowered and restored by a test."""

from __future__ import annotations

import contextlib
import pathlib
import resource
import subprocess
from collections.abc import Iterator

import pytest


@contextlib.contextmanager
def out_of_descriptors(pid: int) -> Iterator[None]:
    """The process keeps what it has open, and gets nothing more."""
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))


def processor_seconds(pid: int) -> float:
    """What the process has used up so far."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100  # in ticks


@contextlib.contextmanager
def small_disk(folder: pathlib.Path, size: str) -> Iterator[pathlib.Path]:
    """A disk of that size, mounted on `folder`; skips the test where this process may not mount."""
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    if done.returncode != 0:
        pytest.skip(f"disks cannot be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], timeout=20, check=True)


def grow(disk: pathlib.Path, size: str) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], timeout=20, check=True)


def fill(disk: pathlib.Path) -> pathlib.Path:
    """A file that takes all the room that is left."""
    path = disk / "filler"
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as f:
        for size in (1 << 16, 1 << 12, 1 << 9, 1):
            with contextlib.suppress(OSError):
                while f.write(b"x" * size) == size:
                    pass
    return path
