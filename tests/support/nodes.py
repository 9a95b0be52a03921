"""A cluster whose programs a test starts itself, one by one: gcs_server and raylets that speak TCP to each other."""

from __future__ import annotations

import os
import pathlib
import secrets
import select
import signal
import subprocess
import sys
from typing import Any

from support.networks import Network
from support.processes import alive, descendants, wait_until

import ray

# An editable install has the executables in another folder of the package than its Python files.
CORE = next(folder for path in ray.__path__ if (folder := pathlib.Path(path, "core")).joinpath("raylet").exists())
HOST = "127.0.0.1"


def bracketed(host: str) -> str:
    """As it is written before a port."""
    return f"[{host}]" if ":" in host else host


class Program:
    """A started gcs_server or raylet; `ready` is what it said after READY."""

    def __init__(
        self, name: str, session_dir: pathlib.Path, *arguments: str, env: dict[str, str], within: tuple[str, ...] = ()
    ) -> None:
        self.name = name
        self.session_dir = session_dir
        for folder in ("sockets", "logs"):
            (session_dir / folder).mkdir(mode=0o700, parents=True, exist_ok=True)
        self.log = session_dir / "logs" / f"{name}.out"
        read_end, write_end = os.pipe()
        self.popen = subprocess.Popen(
            [
                *within,
                str(CORE / name),
                *arguments,
                *("--session-dir", str(session_dir)),
                *("--ready-fd", str(write_end)),
                *("--log-file", str(self.log)),
            ],
            env={**os.environ, **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            pass_fds=(write_end,),
        )
        os.close(write_end)
        self._ready_fd = read_end
        self.ready: list[str] = []

    def wait_ready(self, timeout: float = 30) -> Program:
        assert select.select([self._ready_fd], [], [], timeout)[0], f"{self.name} is not ready\n{self.tail()}"
        words = os.read(self._ready_fd, 4096).decode().split()
        assert words[:1] == ["READY"], f"{self.name} ended: {self.errors()}\n{self.tail()}"
        self.ready = words[1:]
        return self

    def errors(self) -> str:
        """What it wrote to stderr until its end."""
        return self.popen.communicate(timeout=20)[1]

    def tail(self) -> str:
        return self.log.read_text()[-4000:] if self.log.exists() else ""

    def send_signal(self, number: int) -> None:
        self.popen.send_signal(number)

    def end(self) -> None:
        """Kills it and what it started. Idempotent."""
        if self._ready_fd < 0:
            return
        below = descendants(self.popen.pid)
        self.popen.kill()
        self.popen.communicate(timeout=10)
        wait_until(lambda: not any(map(alive, below)), 20, f"{self.name} leaves no process")
        os.close(self._ready_fd)
        self._ready_fd = -1


class HandCluster:
    """`folder` gets a session folder for each node; everything ends with `close`.

    On a `network`, each node is on one of its own, and the GCS beside the first one.
    """

    def __init__(
        self, folder: pathlib.Path, *gcs_arguments: str, host: str = HOST, network: Network | None = None
    ) -> None:
        self.folder = folder
        self.network = network
        self.host = host if network is None else network.hosts[0]
        self.token_file = folder / "token"
        self.token_file.touch(mode=0o600)
        self.token_file.write_text(secrets.token_hex(32) + "\n")
        self.programs: list[Program] = []
        self.raylets: list[Program] = []
        listen = ("--listen", f"{bracketed(self.host)}:0")
        self._gcs_arguments = gcs_arguments
        self.gcs = self.start("gcs_server", folder / "head", *listen, *gcs_arguments).wait_ready()
        self.gcs_address = self.gcs.ready[0]

    def kill_gcs(self) -> None:
        self.gcs.end()

    def restart_gcs(self) -> None:
        """A new gcs_server at the address of the one before."""
        listen = ("--listen", self.gcs_address)
        self.gcs = self.start("gcs_server", self.folder / "head", *listen, *self._gcs_arguments).wait_ready()

    def start(self, name: str, session_dir: pathlib.Path, *arguments: str, number: int = 0, **env: str) -> Program:
        if "--auth-token-file" not in arguments:
            arguments = (*arguments, "--auth-token-file", str(self.token_file))
        within = () if self.network is None else self.network.within(number)
        program = Program(name, session_dir, *arguments, env=env, within=within)
        self.programs.append(program)
        return program

    def start_raylet(self, *arguments: str, cpus: float = 1, listen: bool = True, **env: str) -> Program:
        """Starts a raylet without waiting for it."""
        number = len(self.raylets)
        host = self.host if self.network is None else self.network.hosts[number]
        raylet = self.start(
            "raylet",
            self.folder / f"n{number}",
            *("--gcs-address", self.gcs_address),
            *(("--listen", f"{bracketed(host)}:0") if listen else ()),
            *("--node-ip", host),
            *("--num-cpus", str(cpus)),
            *("--object-store-memory", str(100 << 20)),
            *("--python", sys.executable),
            *("--resources", f"n{number}=10"),
            *(() if number else ("--head",)),
            *arguments,
            number=number,
            **env,
        )
        self.raylets.append(raylet)
        return raylet

    def add_raylet(self, *arguments: str, **kwargs: Any) -> Program:
        """A node that is part of the cluster, with 10 of the resource n0, n1, ... by its number."""
        return self.start_raylet(*arguments, **kwargs).wait_ready()

    def connect(self, number: int = 0, **kwargs: Any) -> None:
        """Makes this process a driver on that node."""
        ray.init(address=self.driver_address(number), logging_level="ERROR", **kwargs)

    def driver_address(self, number: int = 0) -> str:
        return f"unix:{self.raylets[number].session_dir}/sockets/gcs.sock"

    def node_id(self, number: int) -> str:
        return self.raylets[number].ready[0]

    def close(self) -> None:
        if ray.is_initialized():
            ray.shutdown()
        for program in reversed(self.programs):
            if program.popen.poll() is None:
                program.send_signal(signal.SIGCONT)
            program.end()
