"""The log files of a session on this machine: which there are, and what they hold."""

from __future__ import annotations

import fnmatch
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

# What a file is of, by the first of these prefixes that its name has; workers' by the ending, too.
_KINDS = (
    ("gcs_server", "gcs_server"),
    ("raylet", "raylet"),
    ("python-core-worker-", "core_worker"),
    ("python-core-driver-", "driver"),
)
_OTHERS = "internal"
# A worker's output names what the following lines come from, for those who show it (raylet/logs/line_splitter.h).
_NAME_MARKER = b"\x1eray-name "
_BLOCK = 64 << 10


def by_kind(logs: Path, pattern: str = "*") -> dict[str, list[str]]:
    """Names of the files that `pattern` matches, by what they are of. Nothing where the folder is not there."""
    found: dict[str, list[str]] = {}
    for name in sorted(os.listdir(logs)) if logs.is_dir() else []:
        if fnmatch.fnmatchcase(name, pattern) and (logs / name).is_file():
            found.setdefault(_kind(name), []).append(name)
    return found


def _kind(name: str) -> str:
    if name.startswith("worker-"):
        return "worker_err" if name.endswith(".err") else "worker_out"
    return next((kind for prefix, kind in _KINDS if name.startswith(prefix)), _OTHERS)


def of_worker(logs: Path, suffix: str, *, pid: int | str, worker_id: str = "*") -> Path | None:
    """Where the worker's output goes; of several that had this pid the last one's. `suffix`: "out" or "err"."""
    found = list(logs.glob(f"worker-{worker_id}-*-{pid}.{suffix}"))
    return max(found, key=lambda path: path.stat().st_mtime_ns, default=None)


def read(path: Path, *, tail: int = -1, follow: bool = False, interval: float = 1.0) -> Iterator[bytes]:
    """What the file holds, in pieces that end with a line's end (the last one may not).

    Args:
        tail: only so many lines at its end; -1: all of it.
        follow: do not end: look every `interval` seconds for what has been added.
    """
    with open(path, "rb") as file:
        file.seek(_start_of_tail(file, tail) if tail >= 0 else 0)
        begun: list[bytes] = []  # pieces of a line whose end has not been read; a line may be as long as the file
        while True:
            block = file.read(_BLOCK)
            if not block:
                if not follow:
                    break
                time.sleep(interval)
                continue
            begun.append(block)
            if b"\n" not in block:
                continue
            *lines, rest = b"".join(begun).split(b"\n")
            begun = [rest]
            shown = b"".join(line + b"\n" for line in lines if not _is_marker(line))
            if shown:
                yield shown
        rest = b"".join(begun)
        if rest and not _is_marker(rest):
            yield rest


def _is_marker(line: bytes) -> bool:
    """One that has been written in part counts, too."""
    return line.startswith(_NAME_MARKER) or (line != b"" and _NAME_MARKER.startswith(line))


def _start_of_tail(file: BinaryIO, wanted: int) -> int:
    """Where the last `wanted` lines that are shown begin."""
    end = file.seek(0, os.SEEK_END)
    size = _BLOCK
    while True:
        start = max(0, end - size)
        file.seek(start)
        text = file.read(end - start)
        at, found = len(text), 0
        while at > 0 and found < wanted:
            line = text.rfind(b"\n", 0, at - 1) + 1  # its own end does not count
            if line == 0 and start > 0:
                break  # it begins before this piece
            found += not _is_marker(text[line : min(at, line + len(_NAME_MARKER))].removesuffix(b"\n"))
            at = line
        if found == wanted or start == 0:
            return start + at
        size *= 2
