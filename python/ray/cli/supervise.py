"""`ray start --block`: stays with the node's processes, and ends with them."""

from __future__ import annotations

import datetime
import os
import select
import signal
import time
from types import FrameType

import click

from ray._runtime.cluster_process import Node
from ray._runtime.processes import STOP_S, Process
from ray.exceptions import RaySystemError

_EXIT_LOG = "ray_process_exit.log"
_RESTARTS, _RESTARTS_S = 5, 60.0  # as in the systemd unit of the gcs_server


class _Signals:
    """SIGTERM, SIGINT and SIGHUP as readable bytes of a descriptor."""

    def __init__(self) -> None:
        self.fd, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._note)
        self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)

    @staticmethod
    def _note(number: int, frame: FrameType | None) -> None:
        """The byte in the descriptor is all that is wanted."""

    def read(self) -> bool:
        """Whether one came."""
        try:
            return bool(os.read(self.fd, 64))
        except BlockingIOError:
            return False


def supervise(node: Node, drain_s: float) -> int:
    """Waits until the node is told to stop, or a process of it ends by itself; the command's exit code.

    SIGTERM, and Ctrl-C, let running work finish for `drain_s` seconds; a second one does not wait. A process that ends
    with a failure is noted in ray_process_exit.log. A gcs_server that keeps its tables is started again, but not more
    than _RESTARTS times within _RESTARTS_S; else the others are ended, and the code is 1.
    """
    signals = _Signals()
    restarts: list[float] = []
    while True:
        fds = {process.pidfd: process for process in node.processes}
        readable, _, _ = select.select([signals.fd, *fds], [], [])
        ended = [fds[fd] for fd in readable if fd in fds]
        if ended:
            if ended == [node.gcs_server] and _start_again(node, restarts):
                continue
            return _on_end(node, ended)
        if signals.read():
            _drain(node, signals, drain_s)
            return 0


def _start_again(node: Node, restarts: list[float]) -> bool:
    """Whether a new gcs_server took the place of the one that has ended."""
    assert node.gcs_server is not None
    now = time.monotonic()
    restarts[:] = [at for at in restarts if now - at < _RESTARTS_S]
    if not node.gcs_is_durable or node.gcs_server.popen.wait() == 0 or len(restarts) >= _RESTARTS:
        return False
    restarts.append(now)
    text = _note_failure(node, node.gcs_server)
    try:
        node.start_gcs_server()
    except RaySystemError as error:
        click.echo(f"{text} It could not be started again: {error}", err=True)
        return False
    click.echo(f"{text} It was started again (pid {node.gcs_server.pid}).", err=True)
    return True


def _on_end(node: Node, ended: list[Process]) -> int:
    failed = False
    for process in ended:
        if process.popen.wait() == 0:  # `ray stop`, or another order to leave
            click.echo(f"{process.name} (pid {process.pid}) has stopped.")
            continue
        failed = True
        text = _note_failure(node, process)
        click.echo(f"{text} The other processes of this node are ended. Logs: {process.log_file}", err=True)
    node.stop()
    return 1 if failed else 0


def _note_failure(node: Node, process: Process) -> str:
    """What is written to the log of such ends."""
    code = process.popen.wait()
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    text = f"{process.name} (pid {process.pid}) ended unexpectedly: {how}."
    with open(node.session_dir / "logs" / _EXIT_LOG, "a") as log:
        log.write(f"{datetime.datetime.now().isoformat(timespec='milliseconds')} {text}\n")
    return text


def _drain(node: Node, signals: _Signals, drain_s: float) -> None:
    if node.raylet is not None:
        click.echo(f"Draining the node: running work may go on for {drain_s:g} s. Once more, and it may not.")
        node.raylet.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + drain_s + STOP_S
        select.select([node.raylet.pidfd, signals.fd], [], [], max(0.0, deadline - time.monotonic()))
    node.stop()
