"""Breakpoints inside tasks and actors: `breakpoint()` stops there, and `ray debug` on the same machine takes over.

The debugger is Python's pdb. It listens on a Unix socket in the session's own directory, which only the user of the
cluster can enter, and takes commands from one process of that user; nothing is ever reachable over the network. What
waits for somebody is written down in the cluster's key-value table, where `ray debug` finds it.
"""

from __future__ import annotations

import contextlib
import json
import os
import pdb
import socket
import struct
import sys
import time
import traceback
import uuid
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any

from ray._runtime.session import Session, current_session

NAMESPACE = b"ray_pdb"
_PREFIX = b"RAY_PDB_"


@contextlib.contextmanager
def short_path(path: str) -> Iterator[str]:
    """Another path to the same place that fits into a socket's address, which takes about 100 bytes."""
    folder = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{os.path.basename(path)}"
    finally:
        os.close(folder)


def boot_id() -> str:
    """Tells this machine, as it runs now, from all others."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


def _uid_of_peer(connection: socket.socket) -> int:
    size = struct.calcsize("3i")
    _, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return int(uid)


class _Wire:
    """What the debugger reads and writes. When the other side has gone, reads find the end and writes are lost."""

    encoding = "utf-8"

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._reader = connection.makefile("r", encoding="utf-8", errors="replace")

    def readline(self) -> str:
        try:
            return self._reader.readline()
        except OSError:
            return ""

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            self._connection.sendall(text.encode("utf-8", "replace"))
        return len(text)

    def flush(self) -> None:
        """Nothing is buffered."""

    def close(self) -> None:
        self._reader.close()
        self._connection.close()


class _Breakpoint:
    """A place where code waits for a debugger; entered in the table while it does, and until the debugger leaves."""

    def __init__(self, session: Session, frame: FrameType, what: str, breakpoint_uuid: str | None) -> None:
        self._session = session
        self._key = _PREFIX + (breakpoint_uuid or uuid.uuid4().hex).encode()
        self._path = os.path.join(session.session_dir, "sockets", f"pdb-{uuid.uuid4().hex[:12]}.sock")
        task = session.task
        self._entry = {
            "proctitle": task.task_name if task is not None else "driver",
            "reason": what,
            "pid": os.getpid(),
            "worker_id": session.worker_id.hex(),
            "job_id": session.job_id.hex(),
            "node_id": session.node_id.hex(),
            "node_ip": session.node_ip,
            "machine": boot_id(),
            "socket": self._path,
            "filename": frame.f_code.co_filename,
            "lineno": frame.f_lineno,
            "traceback": "".join(traceback.format_stack(frame)),
            "timestamp": time.time(),
        }

    def wait(self) -> _Wire:
        """Until somebody attaches. A task that is cancelled meanwhile gets its KeyboardInterrupt here."""
        place = f"{self._entry['filename']}:{self._entry['lineno']}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            with short_path(self._path) as path:
                listener.bind(path)
                os.chmod(path, 0o600)
            try:
                listener.listen(1)
                self._session.kv_put(NAMESPACE, self._key, json.dumps(self._entry).encode())
                print(f"Waits for a debugger at {place}: run `ray debug` on {self._session.node_ip}.", file=sys.stderr)
                while True:
                    connection, _ = listener.accept()
                    if _uid_of_peer(connection) == os.getuid():
                        return _Wire(connection)
                    connection.close()
            except BaseException:
                self.remove()
                raise
            finally:
                os.unlink(self._path)  # one debugger for each stop

    def remove(self) -> None:
        """Takes it out of the table."""
        with contextlib.suppress(Exception):  # the session is over, and the table with it
            self._session.kv_del(NAMESPACE, self._key)


class _RemotePdb(pdb.Pdb):
    """pdb over a socket. Whoever hangs up lets the code go on, as `continue` does; `quit` ends it with BdbQuit."""

    def __init__(self, where: _Breakpoint, wire: _Wire) -> None:
        super().__init__(stdin=wire, stdout=wire, nosigint=True, readrc=False)  # type: ignore[arg-type]  # all that pdb uses of a file is there
        self.use_rawinput = False
        self._where = where
        self._wire = wire

    def leave(self) -> None:
        """The debugger is needed no more."""
        self._where.remove()
        self._wire.close()

    def do_continue(self, arg: str) -> bool | None:
        """continue: go on until the next breakpoint."""
        result = super().do_continue(arg)
        if not self.breaks:  # else it may stop again
            self.leave()
        return result

    do_c = do_cont = do_continue

    def do_EOF(self, arg: str) -> bool | None:
        """Nobody is there any more."""
        self.clear_all_breaks()
        return self.do_continue(arg)

    def do_quit(self, arg: str) -> bool | None:
        """quit: end the task or call with BdbQuit."""
        result = super().do_quit(arg)
        self.leave()
        return result

    do_q = do_exit = do_quit


def _attach(session: Session, frame: FrameType, what: str, breakpoint_uuid: str | None) -> _RemotePdb:
    where = _Breakpoint(session, frame, what, breakpoint_uuid)
    return _RemotePdb(where, where.wait())


def set_trace(breakpoint_uuid: str | None = None) -> None:
    """Stops the caller: in a task or actor until `ray debug` attaches, in a driver with pdb on its own terminal.

    `breakpoint()` comes here in workers, unless PYTHONBREAKPOINT says otherwise.
    """
    frame = sys._getframe(1)
    session = current_session()
    if session is None or session.is_driver:
        debugger: pdb.Pdb = pdb.Pdb()
    else:
        debugger = _attach(session, frame, "breakpoint", breakpoint_uuid)
    debugger.set_trace(frame)  # the last thing done: whatever is called after it would be stopped in


def _driver_set_trace() -> None:
    """Stops the caller with pdb on this process's own terminal."""
    frame = sys._getframe(1)
    pdb.Pdb().set_trace(frame)


def post_mortem_wanted() -> bool:
    """Whether errors of tasks are to stop for a debugger: RAY_DEBUG_POST_MORTEM=1 in the worker's environment."""
    return os.environ.get("RAY_DEBUG_POST_MORTEM", "0").lower() in ("1", "true")


def _post_mortem(tb: TracebackType | None = None) -> None:
    """Stops where an error was raised, the one at hand or that of `tb`, until `ray debug` has been there and left."""
    tb = tb or sys.exc_info()[2]
    session = current_session()
    if tb is None or session is None:
        return
    last = tb
    while last.tb_next is not None:
        last = last.tb_next
    debugger = _attach(session, last.tb_frame, "post-mortem", None)
    debugger.reset()
    with contextlib.suppress(Exception):  # bdb.BdbQuit: seen enough
        debugger.interaction(None, tb)
    debugger.leave()


def active_breakpoints(session: Session) -> list[dict[str, Any]]:
    """What waits for a debugger in the cluster of `session`, the oldest first; for `ray debug`."""
    found = []
    for key in session.kv_keys(NAMESPACE, _PREFIX):
        value = session.kv_get(NAMESPACE, key)
        if value is not None:
            found.append({**json.loads(value), "key": key})
    return sorted(found, key=lambda entry: float(entry["timestamp"]))


__all__ = ["set_trace"]
