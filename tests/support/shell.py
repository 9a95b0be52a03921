"""Nodes started with `ray start`, in a temporary directory of their own, for tests."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import uuid

from support.processes import alive, wait_until

from ray._runtime import session_dir
from ray._runtime.session_dir import GCS, RAYLET

_DROPPED = ("RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE", "RAY_USE_TLS")


class Shell:
    """Runs commands of `ray`; all processes that come of them can be found by a mark in their environment.

    `within` is put before each command: where it runs, if not on this machine's own network.
    """

    def __init__(self, folder: pathlib.Path, *, within: tuple[str, ...] = (), **env: str) -> None:
        self.folder = folder
        self.within = within
        self.root = folder / "ray"
        self.mark = uuid.uuid4().hex
        self.env = {name: value for name, value in os.environ.items() if name not in _DROPPED}
        self.env.update(RAY_TMPDIR=str(folder), HOME=str(folder), RAY_TEST_MARK=self.mark, **env)
        self._started: list[subprocess.Popen[str]] = []

    def spawn(self, *arguments: str, **env: str) -> subprocess.Popen[str]:
        """Starts `ray ARGUMENTS`; its output is a pipe."""
        process = subprocess.Popen(
            [*self.within, sys.executable, "-m", "ray.cli.main", *arguments],
            env={**self.env, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._started.append(process)
        return process

    def run(self, *arguments: str, code: int | None = 0, **env: str) -> str:
        """Runs `ray ARGUMENTS` to its end, which must be with that exit code (None: any); its output."""
        process = self.spawn(*arguments, **env)
        output, _ = process.communicate(timeout=60)
        assert code is None or process.returncode == code, output
        return output

    def start_head(self, *extra: str, **env: str) -> str:
        """Starts a head node on a free port of the loopback address; the address of the cluster."""
        self.run("start", "--head", "--port=0", "--node-ip-address=127.0.0.1", "--num-cpus=1", *extra, **env)
        return self.address()

    def address(self) -> str:
        """What the address file says."""
        return (self.root / "ray_current_cluster").read_text().strip()

    def session_dir(self) -> pathlib.Path:
        """Of the newest session."""
        return (self.root / "session_latest").resolve()

    def drive(self, script: str, *arguments: str, **env: str) -> str:
        """Runs a driver script; what it prints."""
        done = subprocess.run(
            [*self.within, sys.executable, "-c", script, *arguments],
            env={**self.env, **env},
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    def raylets(self) -> list[session_dir.ProcessRecord]:
        return [r for r in session_dir.live_records(self.root) if r.kind == RAYLET]

    def servers(self) -> list[session_dir.ProcessRecord]:
        return [r for r in session_dir.live_records(self.root) if r.kind == GCS]

    def pids(self) -> list[int]:
        """Live processes that came of these commands."""
        found = []
        for entry in os.listdir("/proc"):
            with contextlib.suppress(OSError):
                if entry.isdigit() and self.mark.encode() in pathlib.Path(f"/proc/{entry}/environ").read_bytes():
                    found.append(int(entry))
        return [pid for pid in found if alive(pid)]

    def wait_gone(self, timeout: float = 10) -> None:
        """Until none of them lives."""
        wait_until(lambda: not self.pids(), timeout, "no process is left")

    def end(self) -> None:
        """Ends whatever is left."""
        for pid in self.pids():
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        for process in self._started:
            process.communicate(timeout=10)
