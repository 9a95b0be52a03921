"""Forks workers: a small process that has imported what they all need, so that a new one is ready in milliseconds.

Started by the raylet as `python -m ray._runtime.zygote --fd 3 --lifeline 4`, where descriptor 3 is a SOCK_SEQPACKET
socket with one JSON object in each datagram, and 4 the end of a pipe that workers do not outlive. From the raylet:
{"op": "fork", "token", "worker_id", "job_id", "log_dir", "session_dir", "env"}. To it: {"op": "ready", "pid"},
{"op": "forked", "token", "pid", "group"}, where 1 says that it leads a process group; {"op": "error", "token",
"message", "for_now"}, where 1 says that the machine refused it for now; and {"op": "exit", "pid", "status"} with the
raw wait status.
It has one thread, holds no connection but that one, and ends when the raylet does: then the kernel has killed the
workers (the pipe), and what they had started is ended here before.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import traceback
from typing import Any

from ray._runtime import blas, process_groups

_MAX_DATAGRAM = 1 << 20
_LATER = ("numpy",)  # imported while nobody asks; workers share the pages
_REFUSALS = {  # of fork, by errno: what may be otherwise in a moment
    errno.EAGAIN: "fork: the limit of processes is reached (`ulimit -u`, or pids.max of the control group)",
    errno.ENOMEM: "fork: there is no memory for another process",
}
_QUIET_MS = 300  # nobody asked for so long: an import takes tens of milliseconds, in which forks would wait


class Zygote:
    """The loop of the zygote."""

    def __init__(self, sock: socket.socket, lifeline: int) -> None:
        self._sock = sock
        self._lifeline = lifeline
        self._later = list(_LATER)
        self._children: set[int] = set()
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def serve(self) -> WorkerRequest | None:
        """Serves until the raylet is gone (None); in a forked child returns what the child is to be."""
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._send({"op": "ready", "pid": os.getpid()})
        poller = select.poll()
        poller.register(self._sock, select.POLLIN)
        poller.register(self._wake_read, select.POLLIN)
        gc.freeze()
        while True:
            events = dict(poller.poll(_QUIET_MS if self._later else None))
            if not events:
                self._import_next()
            if self._wake_read in events:
                self._reap()
            if self._sock.fileno() in events:
                try:
                    datagram = self._sock.recv(_MAX_DATAGRAM)
                except InterruptedError:
                    continue
                except OSError:
                    datagram = b""
                if not datagram:
                    self._end_children()
                    return None
                request = self._handle(json.loads(datagram))
                if request is not None:
                    return request

    def _import_next(self) -> None:
        name = self._later.pop(0)
        with contextlib.suppress(ImportError), blas.one_thread():  # numpy is optional
            importlib.import_module(name)
        gc.collect()
        gc.freeze()

    def _send(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the raylet is gone: recv will tell
            self._sock.send(json.dumps(message).encode())

    def _reap(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, 4096)
        while True:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is None:
                return
            pid, status = self._wait_for(ended.si_pid)
            self._send({"op": "exit", "pid": pid, "status": status})

    def _wait_for(self, child: int) -> tuple[int, int]:
        if process_groups.wanted():
            # Until it is waited for, nobody else gets its number, which is that of its group, too.
            process_groups.kill(child)
        self._children.discard(child)
        return os.waitpid(child, 0)

    def _end_children(self) -> None:
        """The raylet is gone: nobody but this process knows what workers have started."""
        for pid in self._children:
            os.kill(pid, signal.SIGKILL)  # those that the pipe did not reach: they were about to begin
        while self._children:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
            if ended is not None:
                self._wait_for(ended.si_pid)

    def _handle(self, message: dict[str, Any]) -> WorkerRequest | None:
        if message.get("op") != "fork":
            return None
        token = message.get("token", 0)
        try:
            request = WorkerRequest(message)
            parent = os.getpid()
            pid = os.fork()
        except (OSError, KeyError, ValueError) as error:
            refusal = _REFUSALS.get(error.errno or 0) if isinstance(error, OSError) else None
            why = refusal or f"{type(error).__name__}: {error}"
            self._send({"op": "error", "token": token, "message": why, "for_now": int(refusal is not None)})
            return None
        if pid:
            self._children.add(pid)
            self._send({"op": "forked", "token": token, "pid": pid, "group": int(process_groups.wanted())})
            return None
        request.zygote_pid = parent
        request.lifeline = self._lifeline
        self._become_child()
        return request

    def _become_child(self) -> None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.close(self._wake_read)
        os.close(self._wake_write)
        self._sock.close()
        if process_groups.wanted():
            os.setpgid(0, 0)


class WorkerRequest:
    """A parsed fork request."""

    def __init__(self, message: dict[str, Any]) -> None:
        self.token = int(message["token"])
        self.worker_id = bytes.fromhex(message["worker_id"])
        self.job_id = bytes.fromhex(message["job_id"])
        self.log_dir = str(message["log_dir"])
        self.session_dir = str(message["session_dir"])
        self.env: dict[str, str] = dict(message.get("env") or {})
        self.zygote_pid = 0
        self.lifeline = -1

    def run(self) -> None:
        """Turns this process into the worker; does not return."""
        from ray._core import executor as core_executor
        from ray._runtime import streams, worker_main

        core_executor.die_with_parent(self.zygote_pid)
        die_with_writer(self.lifeline)
        _yield_to_system()
        stem = f"worker-{self.worker_id.hex()}-{self.job_id.hex()}-{os.getpid()}"
        streams.redirect(os.path.join(self.log_dir, stem))
        for name, value in self.env.items():  # not update(): its type checks touch pages that are shared otherwise
            os.environ[name] = value
        args = worker_main.WorkerArgs(self.session_dir, self.worker_id, self.job_id, self.token, self.log_dir)
        worker_main.main(args)


def die_with_writer(lifeline: int) -> None:
    """This process gets SIGKILL when the other end of a pipe closes; at once if it is closed. Takes `lifeline`.

    The kernel sends it while it ends who had that end. So whoever hears of the end of a raylet by its closed
    connections may rely on it that none of its workers does anything any more, however busy the machine is: an actor
    that is restarted elsewhere because of it does not run twice. A worker that waited for its own connection to close,
    or for the end of its parent, which waits for the end of its own, would run on for milliseconds.
    """
    # Who is told belongs to the open file, which forked processes share: each needs one of its own.
    own = os.open(f"/proc/self/fd/{lifeline}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    os.close(lifeline)
    fcntl.fcntl(own, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(own, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(own, fcntl.F_SETFL, os.O_NONBLOCK | os.O_ASYNC)
    closed = select.poll()
    closed.register(own, 0)
    if closed.poll(0):
        os.kill(os.getpid(), signal.SIGKILL)


def _preload() -> None:
    """Imports what RAY_preload_python_modules lists, so that every worker has it."""
    for name in os.environ.get("RAY_preload_python_modules", "").split(","):  # noqa: SIM112  # Ray's name
        if name.strip():
            try:
                importlib.import_module(name.strip())
            except Exception:  # the user's code; workers that need it will say so, too
                traceback.print_exc()


def _yield_to_system() -> None:
    """Where memory runs out, the kernel ends a worker before the node; RAY_worker_niceness makes it slower, too."""
    score = os.environ.get("RAY_worker_oom_score_adjustment", "1000")  # noqa: SIM112
    with contextlib.suppress(OSError, ValueError):
        fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
        os.write(fd, str(int(score)).encode())
        os.close(fd)
    niceness = os.environ.get("RAY_worker_niceness", "0")  # noqa: SIM112
    with contextlib.suppress(OSError, ValueError):
        if int(niceness) > 0:
            os.nice(int(niceness))


def main() -> None:
    """Runs the zygote."""
    # Not argparse: it brings modules that no worker needs, and the first worker of a cluster waits for this process.
    if len(sys.argv) != 5 or sys.argv[1] != "--fd" or sys.argv[3] != "--lifeline":
        raise SystemExit("usage: python -m ray._runtime.zygote --fd NUMBER --lifeline NUMBER")
    fd, lifeline = int(sys.argv[2]), int(sys.argv[4])
    raylet = os.getppid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the driver
    os.set_inheritable(fd, False)
    os.set_inheritable(lifeline, False)
    import cloudpickle  # noqa: F401  # functions and classes are pickled by it

    from ray._core import executor as core_executor
    from ray._runtime import worker_main  # noqa: F401  # what every worker needs, before the first fork

    core_executor.die_with_parent(raylet)
    core_executor.prepare_titles()
    _preload()
    core_executor.outlive_parent()  # for a moment: see _end_children
    request = Zygote(socket.socket(fileno=fd), lifeline).serve()
    if request is None:
        return
    try:
        request.run()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    os._exit(1)


if __name__ == "__main__":
    main()
