"""The processes of a local cluster: gcs_server and raylet, started together and stopped together.

They watch the driver and each other through pidfds, so that nothing is left over however any of them ends. Each session
has a directory <tmp>/ray/session_<date>_<time>_<us>_<pid> with its sockets and logs.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from ray._runtime.node_resources import NodeSizes, detect
from ray.exceptions import RaySystemError

_START_S = 30.0
_STOP_S = 5.0  # until SIGKILL
_KEEP_SESSIONS = 5  # newest directories of ended sessions, for their logs
_LOG_TAIL = 4000
_CURRENT = "ray_current_cluster"
_LATEST = "session_latest"


def temp_root(temp_dir: str | None = None) -> Path:
    """Where session directories are: `temp_dir`, else <RAY_TMPDIR or /tmp>/ray."""
    return Path(temp_dir) if temp_dir else Path(os.environ.get("RAY_TMPDIR") or "/tmp") / "ray"


def find_running(temp_dir: str | None = None) -> str | None:
    """Address of the newest local cluster that runs, or None."""
    try:
        address = (temp_root(temp_dir) / _CURRENT).read_text().strip()
    except OSError:
        return None
    return address if _listens(Path(address.removeprefix("unix:"))) else None


def _listens(path: Path) -> bool:
    """Whether a process serves that socket."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
        folder = os.open(path.parent, os.O_PATH | os.O_CLOEXEC)  # the path may be longer than addresses can be
        try:
            probe.connect(f"/proc/self/fd/{folder}/{path.name}")
        finally:
            os.close(folder)
        return True
    return False


class _Process:
    """A child with its READY line pending, and its log file for when that does not come."""

    def __init__(self, name: str, command: list[str], logs: Path) -> None:
        self.name = name
        self.log_file = logs / f"{name}.out"
        self._output = logs / f"{name}.err"
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        try:
            with open(self._output, "ab", opener=_private) as output:
                self.popen = subprocess.Popen(
                    [*command, "--log-file", str(self.log_file), "--ready-fd", str(write_end)],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    pass_fds=(write_end,),
                    start_new_session=True,  # Ctrl-C in the terminal is for the driver
                )
        except BaseException:
            os.close(read_end)
            raise
        finally:
            os.close(write_end)
        self._ready_fd = read_end
        self.pidfd = os.pidfd_open(self.popen.pid)

    def wait_ready(self, deadline: float) -> None:
        """Returns when the process serves. RaySystemError, with the end of its log, when it ended or took too long."""
        got = b""
        while b"\n" not in got:
            readable, _, _ = select.select([self._ready_fd], [], [], max(0.0, deadline - time.monotonic()))
            if not readable:
                raise RaySystemError(f"{self.name} was not ready within {_START_S:.0f} s.\n{self._tail()}")
            chunk = os.read(self._ready_fd, 256)
            if not chunk:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.popen.wait(1.0)
                raise RaySystemError(
                    f"{self.name} ended while it started (exit code {self.popen.returncode}).\n{self._tail()}"
                )
            got += chunk

    def _tail(self) -> str:
        parts = []
        for path in (self.log_file, self._output):
            with contextlib.suppress(OSError):
                text = path.read_bytes()[-_LOG_TAIL:].decode("utf-8", "replace")
                if text:
                    parts.append(f"End of {path}:\n{text}")
        return "\n".join(parts) or f"It wrote nothing to {self.log_file}."

    def terminate(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.popen.send_signal(signal.SIGTERM)

    def reap(self, deadline: float) -> None:
        """Waits for the end; SIGKILL at `deadline`."""
        try:
            self.popen.wait(0)
        except subprocess.TimeoutExpired:
            if not select.select([self.pidfd], [], [], max(0.0, deadline - time.monotonic()))[0]:
                self.popen.kill()
            self.popen.wait()
        os.close(self.pidfd)
        os.close(self._ready_fd)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


class LocalCluster:
    """A running gcs_server and raylet of this process."""

    def __init__(self, session_dir: Path, root: Path) -> None:
        self.session_dir = session_dir
        self.gcs_address = f"unix:{session_dir}/sockets/gcs.sock"
        self._root = root
        self._owner = os.getpid()
        self._processes: list[_Process] = []

    @classmethod
    def start(
        cls,
        *,
        num_cpus: float | None = None,
        num_gpus: float | None = None,
        resources: dict[str, float] | None = None,
        labels: dict[str, str] | None = None,
        object_store_memory: int | None = None,
        memory: int | None = None,
        temp_dir: str | None = None,
        node_name: str | None = None,
        log_level: str | None = None,
        object_spilling_directory: str | None = None,
    ) -> LocalCluster:
        """Starts a cluster of one node; sizes that are None are detected.

        Args:
            object_spilling_directory: folders for objects that the store has no room for, separated by commas. None:
                the session's folder.

        Raises:
            RaySystemError: a process did not start (the text has the end of its log), or there is no place for files.
        """
        root = temp_root(temp_dir)
        sizes = detect(num_cpus, num_gpus, memory, object_store_memory)
        try:
            session_dir = _make_session_dir(root)
        except OSError as error:
            raise RaySystemError(
                f"Cannot make a session directory in {root}: {error.strerror or error}. "
                "Set RAY_TMPDIR to a folder that can be written to."
            ) from error
        _reap_old_sessions(root)
        cluster = cls(session_dir, root)
        try:
            cluster._spawn(sizes, resources or {}, labels or {}, node_name, log_level, object_spilling_directory)
            deadline = time.monotonic() + _START_S
            for process in cluster._processes:
                process.wait_ready(deadline)
            _replace_text(root / _CURRENT, cluster.gcs_address)
        except BaseException:
            cluster.stop()
            raise
        return cluster

    def _spawn(
        self,
        sizes: NodeSizes,
        resources: dict[str, float],
        labels: dict[str, str],
        node_name: str | None,
        log_level: str | None,
        object_spilling_directory: str | None,
    ) -> None:
        logs = self.session_dir / "logs"
        common = ["--session-dir", str(self.session_dir), "--watch-pid", str(os.getpid())]
        if log_level:
            common += ["--log-level", log_level]
        gcs_command = [
            _binary("gcs_server"),
            "--listen",
            self.gcs_address,
            *common,
            "--exit-when-empty",
        ]
        gcs = _Process("gcs_server", gcs_command, logs)
        self._processes.append(gcs)
        # The raylet starts at the same time and tries its link to the GCS until that answers.
        raylet_command = [
            _binary("raylet"), *common, "--watch-pid", str(gcs.popen.pid),
            "--gcs-address", self.gcs_address, "--head", "--local-mode", "--python", sys.executable,
            "--num-cpus", _number(sizes.num_cpus), "--num-gpus", _number(sizes.num_gpus), "--memory", str(sizes.memory),
            "--object-store-memory", str(sizes.object_store_memory),
            "--resources", json.dumps(resources), "--labels", json.dumps(labels),
        ]  # fmt: skip
        if node_name:
            raylet_command += ["--node-name", node_name]
        if object_spilling_directory:
            raylet_command += ["--object-spilling-directory", object_spilling_directory]
        self._processes.append(_Process("raylet", raylet_command, logs))

    def stop(self) -> None:
        """Ends the processes and waits for them. Idempotent; does nothing in a forked child."""
        if os.getpid() != self._owner:
            return
        current = self._root / _CURRENT
        with contextlib.suppress(OSError):
            if current.read_text().strip() == self.gcs_address:
                current.unlink()
        processes, self._processes = self._processes, []
        for process in reversed(processes):  # the raylet first, which tells its workers
            process.terminate()
        deadline = time.monotonic() + _STOP_S
        for process in reversed(processes):
            process.reap(deadline)
        shutil.rmtree(self.session_dir / "sockets", ignore_errors=True)  # of those that were killed


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else str(value)


def _binary(name: str) -> str:
    """Path of one of our executables: where RAY_BINARY_DIR says, or in the package (two folders, if it is editable)."""
    given = os.environ.get("RAY_BINARY_DIR")
    folders = [given] if given else [os.path.join(folder, "core") for folder in sys.modules["ray"].__path__]
    for folder in folders:
        path = os.path.join(folder, name)
        if os.access(path, os.X_OK):
            return path
    raise RaySystemError(f"{name} is missing in {' and '.join(folders)}: the installation of ray is incomplete.")


def _make_session_dir(root: Path) -> Path:
    root.mkdir(mode=0o777 if root == temp_root() else 0o700, parents=True, exist_ok=True)
    while True:
        session_dir = root / f"session_{datetime.datetime.now():%Y-%m-%d_%H-%M-%S_%f}_{os.getpid()}"
        try:
            session_dir.mkdir(mode=0o700)
            break
        except FileExistsError:
            continue
    for name in ("sockets", "logs"):
        (session_dir / name).mkdir(mode=0o700)
    latest = root / f".{_LATEST}.{os.getpid()}"
    with contextlib.suppress(OSError):  # shared with other users: whoever owns the link keeps it
        latest.unlink(missing_ok=True)
        latest.symlink_to(session_dir.name)
        latest.replace(root / _LATEST)
    return session_dir


def _replace_text(path: Path, text: str) -> None:
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    with contextlib.suppress(OSError):
        fresh.write_text(text)
        fresh.replace(path)


def _owner_pid(session_dir: Path) -> int | None:
    last = session_dir.name.rpartition("_")[2]
    return int(last) if last.isdigit() else None


def _reap_old_sessions(root: Path) -> None:
    """Deletes directories of sessions whose driver is gone, all but the newest few."""
    ended = []
    for path in root.glob("session_*_*"):
        pid = _owner_pid(path)
        try:
            if (
                pid is not None
                and not path.is_symlink()
                and path.stat().st_uid == os.getuid()
                and not os.path.exists(f"/proc/{pid}")
                and not _listens(path / "sockets" / "gcs.sock")
            ):
                ended.append(path)
        except OSError:
            continue
    ended.sort()
    for path in ended[:-_KEEP_SESSIONS]:
        shutil.rmtree(path, ignore_errors=True)
    for path in ended[-_KEEP_SESSIONS:]:  # kept for its logs, not for the objects that a crashed node had spilled
        for spilled in path.glob("ray_spilled_objects_*"):
            shutil.rmtree(spilled, ignore_errors=True)
