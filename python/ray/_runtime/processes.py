"""Child processes of ours: started until they say READY, watched through pidfds, ended within a deadline."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

from ray._runtime.security import SECRET_VARIABLES
from ray.exceptions import RaySystemError

START_S = 30.0
STOP_S = 5.0  # until SIGKILL
_LOG_TAIL = 4000
_REFUSALS = (1, 2)  # exit codes of our executables: could not start; bad flags


def binary(name: str) -> str:
    """Path of one of our executables: where RAY_BINARY_DIR says, or in the package (two folders, if it is editable)."""
    given = os.environ.get("RAY_BINARY_DIR")
    folders = [given] if given else [os.path.join(folder, "core") for folder in sys.modules["ray"].__path__]
    for folder in folders:
        path = os.path.join(folder, name)
        if os.access(path, os.X_OK):
            return path
    raise RaySystemError(f"{name} is missing in {' and '.join(folders)}: the installation of ray is incomplete.")


class Process:
    """A child with its READY line pending, and its log file for when that does not come."""

    def __init__(
        self,
        name: str,
        command: list[str],
        logs: Path,
        *,
        redirect_output: bool = True,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.name = name
        self.program = os.path.basename(command[0])
        self.log_file = logs / f"{name}.out"
        self.output_file = logs / f"{name}.err"
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        log_flags = ["--log-file", str(self.log_file)] if redirect_output else []
        try:
            with open(self.output_file, "ab", opener=_private) as output:
                self.popen = subprocess.Popen(
                    [*command, *log_flags, "--ready-fd", str(write_end)],
                    stdin=subprocess.DEVNULL,
                    stdout=output if redirect_output else None,
                    stderr=output if redirect_output else None,
                    pass_fds=(write_end,),
                    start_new_session=True,  # Ctrl-C in the terminal is for the driver
                    env={
                        **{name: value for name, value in os.environ.items() if name not in SECRET_VARIABLES},
                        **(environment or {}),
                    },
                )
        except BaseException:
            os.close(read_end)
            raise
        finally:
            os.close(write_end)
        self._ready_fd = read_end
        self.pidfd = os.pidfd_open(self.popen.pid)

    @property
    def pid(self) -> int:
        return self.popen.pid

    def wait_ready(self, deadline: float) -> list[str]:
        """Returns when the process serves: what it says of itself after READY.

        Raises:
            RaySystemError: it ended or took too long; with the end of its log.
        """
        got = b""
        while b"\n" not in got:
            readable, _, _ = select.select([self._ready_fd], [], [], max(0.0, deadline - time.monotonic()))
            if not readable:
                raise RaySystemError(f"{self.name} was not ready within {START_S:.0f} s.\n{self._tail()}")
            chunk = os.read(self._ready_fd, 256)
            if not chunk:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.popen.wait(1.0)
                raise RaySystemError(self._why_it_ended())
            got += chunk
        return got.decode().split()[1:]

    def _why_it_ended(self) -> str:
        """In its own words, if it ended in good order: it says on stderr what kept it from starting."""
        code = self.popen.returncode
        said = _end_of(self.output_file).strip()
        if code in _REFUSALS and said:
            return f"{self.name} could not start: {said.removeprefix(f'{self.program}: ')}. Its log is {self.log_file}."
        return f"{self.name} ended while it started (exit code {code}).\n{self._tail()}"

    def _tail(self) -> str:
        parts = []
        for path in (self.log_file, self.output_file):
            if text := _end_of(path):
                parts.append(f"End of {path}:\n{text}")
        return "\n".join(parts) or f"It wrote nothing to {self.log_file}."

    @property
    def ended(self) -> bool:
        return self.popen.poll() is not None

    def send_signal(self, number: signal.Signals) -> None:
        """Nothing happens if it has ended."""
        with contextlib.suppress(ProcessLookupError):
            self.popen.send_signal(number)

    def reap(self, deadline: float) -> None:
        """Waits for the end; SIGKILL at `deadline`. Idempotent."""
        try:
            self.popen.wait(0)
        except subprocess.TimeoutExpired:
            if not select.select([self.pidfd], [], [], max(0.0, deadline - time.monotonic()))[0]:
                self.popen.kill()
            self.popen.wait()
        self.detach()

    def detach(self) -> None:
        """Lets go of the process, which runs on by itself. Idempotent."""
        for fd in (self.pidfd, self._ready_fd):
            if fd >= 0:
                os.close(fd)
        self.pidfd = self._ready_fd = -1


def _end_of(path: Path) -> str:
    """Of a log; "" where there is none."""
    with contextlib.suppress(OSError):
        return path.read_bytes()[-_LOG_TAIL:].decode("utf-8", "replace")
    return ""


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)
