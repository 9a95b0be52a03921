"""The driver's printing thread: what workers of its job printed, and messages of the cluster."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Iterable
from typing import Any, TextIO

from ray._core import executor as core_executor
from ray._core.worker import CoreWorker
from ray._runtime.log_dedup import Line, LogDeduplicator

logger = logging.getLogger("ray")

_LOG, _UNREAD_ERROR = 1, 3
_OF_TASKS = ("retry",)  # what became of single tasks: as much part of their output as what they print
_CYAN, _YELLOW, _RESET = "\033[36m", "\033[33m", "\033[0m"
_DRAIN_S = 0.5
_IDLE_MS = 60_000


class LogStream:
    """Prints until the core shuts down; lines get a prefix, unless the job has a logging format of its own."""

    def __init__(self, core: CoreWorker, *, own_ip: str, print_logs: bool, prefixes: bool = True) -> None:
        self._core = core
        self._prefixes = prefixes and os.environ.get("RAY_DISABLE_WORKER_LOG_PREFIX", "0") != "1"
        self._own_ip = own_ip
        self._print_logs = print_logs
        self._messages = 0  # of the system, so far
        self._dedup = LogDeduplicator() if os.environ.get("RAY_DEDUP_LOGS", "1") != "0" else None
        self._thread = threading.Thread(target=self._run, name="ray-log-stream", daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Waits a moment for what is still to be printed. REQUIRES: the core was shut down."""
        if self._thread is not threading.current_thread():
            self._thread.join(_DRAIN_S)

    def _run(self) -> None:
        ended = False
        while not ended:
            event = core_executor.next_event(self._core, self._wait_ms())
            ended = event is None and self._core.closed
            with contextlib.suppress(OSError, ValueError):  # a closed stdout must not end the thread
                if event is not None:
                    self._show(event)
                elif self._dedup is not None:
                    _print_all(self._dedup.flush() if ended else self._dedup.expire(time.monotonic()))

    def _wait_ms(self) -> int:
        deadline = self._dedup.next_deadline() if self._dedup is not None else None
        if deadline is None:
            return _IDLE_MS
        return min(_IDLE_MS, int(max(0.0, deadline - time.monotonic()) * 1000) + 1)

    def _show(self, event: dict[str, Any]) -> None:
        if event["kind"] == _LOG:
            if self._print_logs:
                self._show_line(event)
        elif event["kind"] == _UNREAD_ERROR:
            if os.environ.get("RAY_IGNORE_UNHANDLED_ERRORS", "0") == "0":
                logger.error("Unhandled error (suppress with 'RAY_IGNORE_UNHANDLED_ERRORS=1'): %s", event["error"])
        else:
            self._show_message(event)

    def _show_line(self, event: dict[str, Any]) -> None:
        pid, node_ip = event["pid"], event["node_ip"]
        head = prefix(event["name"], pid, node_ip, self._own_ip) if self._prefixes else ""
        origin = head, _CYAN, event["is_stderr"]
        self._show_folded(Line(event["text"], (node_ip, pid), origin))

    def _show_message(self, event: dict[str, Any]) -> None:
        if event["message_kind"] in _OF_TASKS and not self._print_logs:
            return
        text = event["text"] if event["error"] is None else f"{event['text']}{event['error']}"
        self._messages += 1
        # Each counts as one of another process, so that those that differ in numbers only are folded.
        self._show_folded(Line(text, self._messages, ("(raylet)", _YELLOW, True)))

    def _show_folded(self, line: Line) -> None:
        _print_all([line] if self._dedup is None else self._dedup.add(line, time.monotonic()))


def _print_all(lines: Iterable[Line]) -> None:
    for line in lines:
        head, colour, is_stderr = line.origin
        _print(sys.stderr if is_stderr else sys.stdout, head, colour, line.text)


def prefix(name: str, pid: int, node_ip: str, own_ip: str) -> str:
    """What precedes each forwarded line: (name pid=123), with the address of another node."""
    where = f", ip={node_ip}" if node_ip and node_ip != own_ip else ""
    return f"({name} pid={pid}{where})" if name else f"(pid={pid}{where})"


def _print(out: TextIO | None, head: str, colour: str, text: str) -> None:
    if out is None:
        return
    if head:
        head = f"{colour}{head}{_RESET} " if out.isatty() else f"{head} "
    # One write for all lines: nothing of the program's own comes between.
    out.write("".join(f"{head}{line}\n" for line in text.split("\n")))
    out.flush()
