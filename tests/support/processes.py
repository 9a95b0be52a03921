"""Looking at processes, sockets and files from the outside, for tests that nothing is left behind."""

from __future__ import annotations

import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from typing import Any


def wait_until(condition: Callable[[], Any], timeout: float, what: str) -> Any:
    """The first truthy value of `condition`, looked at every 10 ms; AssertionError after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {timeout} s: {what}"
        time.sleep(0.01)


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


def doomed(pid: int) -> bool:
    """Whether the process runs no instruction of its own any more: it has been killed, though it may not have ended."""
    try:
        flags = int(pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[6])
        pending = re.findall(r"(?:Sig|Shd)Pnd:\s*(\w+)", pathlib.Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return True
    exiting, killed = 0x4, 1 << (signal.SIGKILL - 1)
    return bool(flags & exiting) or any(int(mask, 16) & killed for mask in pending)


def descendants(pid: int) -> list[int]:
    """All live processes below `pid`."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                parent = int(pathlib.Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError):
                continue
            children.setdefault(parent, []).append(int(entry))
    found, todo = [], [pid]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += below
    return [p for p in found if alive(p)]


def session_processes(session_dir: str) -> list[int]:
    """Live processes whose command line or open sockets name the session."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            command = pathlib.Path(f"/proc/{entry}/cmdline").read_bytes().decode(errors="replace")
            environ = pathlib.Path(f"/proc/{entry}/environ").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if (session_dir in command or session_dir in environ) and alive(int(entry)):
            found.append(int(entry))
    return found


def free_port() -> int:
    """Free a moment ago: for programs that must be told one."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def listening_tcp(pids: list[int]) -> int:
    """How many listening TCP sockets these processes hold."""
    inodes = set()
    for pid in pids:
        try:
            for fd in os.listdir(f"/proc/{pid}/fd"):
                target = os.readlink(f"/proc/{pid}/fd/{fd}")
                if target.startswith("socket:["):
                    inodes.add(target[8:-1])
        except OSError:
            continue
    count = 0
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in pathlib.Path(table).read_text().splitlines()[1:]:
            columns = line.split()
            count += columns[3] == "0A" and columns[9] in inodes
    return count


def run_driver(code: str, *, timeout: float = 60, **env: str) -> subprocess.CompletedProcess[str]:
    """Runs `code` as a driver script of its own and returns its output."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def start_driver(code: str, **env: str) -> subprocess.Popen[str]:
    """Starts `code` as a driver script of its own; its input and output are pipes."""
    return subprocess.Popen(
        [sys.executable, "-u", "-c", textwrap.dedent(code)],
        env={**os.environ, **env},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def command_line(pid: int) -> bytes:
    """As in /proc; empty when the process has gone."""
    try:
        return pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def is_worker(pid: int) -> bool:
    """Whether its title says that it runs tasks or an actor, or waits for them."""
    return command_line(pid).startswith(b"ray::")
