"""A worker's stdout and stderr: where the writer's name changes, a mark says who writes from there on.

The raylet's log reader takes the marks out and uses the name for the driver's `(name pid=123)` prefix. Each stream
rotates its own file between two lines, so that none is cut or lost; the reader follows the renamed files.
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
import sys
import threading

MARK = "\x1eray-name "
_MAX_BYTES = 512 << 20
_BACKUPS = 5


class Names:
    """The name under which this process writes now; set by the executor."""

    current = ""


class Rotation:
    """A file behind a descriptor that is renamed to <path>.1 and begun anew when it would grow beyond `max_bytes`."""

    def __init__(self, fd: int, path: str, max_bytes: int, backups: int) -> None:
        self._fd = fd
        self._path = path
        self._backups = backups
        self._max_bytes = max_bytes
        self.room = max_bytes - os.fstat(fd).st_size

    def rotate(self) -> None:
        """Makes room, if there is none. REQUIRES: nothing is buffered."""
        size = os.fstat(self._fd).st_size  # others write to the descriptor, too
        self.room = self._max_bytes - size
        if self.room > 0 or size == 0:
            return
        names = [self._path, *(f"{self._path}.{i}" for i in range(1, self._backups + 1))]
        with contextlib.suppress(OSError):  # a full disk, say: then it grows
            for older, younger in zip(names[::-1], names[-2::-1], strict=False):
                with contextlib.suppress(FileNotFoundError):
                    os.rename(younger, older)
            if not self._backups:
                os.unlink(self._path)
            _open_as(self._fd, self._path)
        self.room = self._max_bytes


class NamedStream(io.TextIOWrapper):
    """A line-buffered text stream to a descriptor, which announces the writer's name."""

    def __init__(self, fd: int, names: Names, rotation: Rotation | None = None) -> None:
        raw = io.BufferedWriter(io.FileIO(fd, "wb", closefd=False), 1 << 16)
        super().__init__(raw, encoding="utf-8", errors="backslashreplace", newline="\n", line_buffering=True)
        self._names = names
        self._announced = ""
        self._at_line_start = True
        self._lock = threading.RLock()  # a mark and the text after it stay together
        self._rotation = rotation
        self.dirty = False

    def write(self, text: str) -> int:
        if not text:
            return 0
        with self._lock:
            name = self._names.current
            if name != self._announced:
                self._announced = name
                super().write(f"{'' if self._at_line_start else chr(10)}{MARK}{name}\n")
            self.dirty = True
            rotation = self._rotation
            if rotation is not None:
                if rotation.room <= 0 and self._at_line_start:
                    self.flush()
                    rotation.rotate()
                rotation.room -= len(text)
            self._at_line_start = text.endswith("\n")
            return super().write(text)

    def flush_if_dirty(self) -> None:
        """Writes out what a task printed without a final newline."""
        if self.dirty:
            self.dirty = False
            self.flush()


def redirect(path_stem: str) -> None:
    """Sends descriptors 1 and 2 to <path_stem>.out and .err, at their ends."""
    for fd, suffix in ((1, ".out"), (2, ".err")):
        _open_as(fd, path_stem + suffix)


def _open_as(fd: int, path: str) -> None:
    opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    os.dup2(opened, fd)
    os.close(opened)


def _rotation_of(fd: int) -> Rotation | None:
    """How the log file behind a descriptor is kept small; None where it is no file, or without a limit."""
    max_bytes = _number("RAY_ROTATION_MAX_BYTES", _MAX_BYTES)
    try:
        if max_bytes == 0 or not stat.S_ISREG(os.fstat(fd).st_mode):
            return None
        path = os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return None
    return Rotation(fd, path, max_bytes, _number("RAY_ROTATION_BACKUP_COUNT", _BACKUPS))


def _number(variable: str, default: int) -> int:
    text = os.environ.get(variable, "")
    return int(text) if text.isdecimal() else default


def install(names: Names) -> list[NamedStream]:
    """Replaces sys.stdout and sys.stderr; both of them."""
    streams = [NamedStream(fd, names, _rotation_of(fd)) for fd in (1, 2)]
    sys.stdout, sys.stderr = streams
    sys.__stdout__, sys.__stderr__ = streams  # type: ignore[misc]  # typed as constants, which they are outside of workers
    return streams
