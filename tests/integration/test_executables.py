"""gcs_server and raylet as programs of their own."""

from __future__ import annotations

import fcntl
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
from support.processes import wait_until

import ray

# An editable install has the executables in another folder of the package than its Python files.
CORE = next(folder for path in ray.__path__ if (folder := pathlib.Path(path, "core")).joinpath("raylet").exists())


class Started:
    """Starts programs, which end with the test."""

    def __init__(self) -> None:
        self.processes: list[subprocess.Popen[str]] = []

    def __call__(self, name: str, *arguments: str, **env: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [str(CORE / name), *arguments],
            env={**os.environ, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.processes.append(process)
        return process


@pytest.fixture
def start() -> Iterator[Started]:
    started = Started()
    yield started
    for process in started.processes:
        process.kill()
        process.communicate(timeout=10)


def gcs_arguments(tmp_path: pathlib.Path) -> list[str]:
    (tmp_path / "sockets").mkdir(mode=0o700, exist_ok=True)
    return ["--listen", f"unix:{tmp_path}/sockets/gcs.sock", "--session-dir", str(tmp_path)]


@pytest.mark.parametrize("name", ["gcs_server", "raylet"])
def test_help_documents_the_flags(name: str) -> None:
    out = subprocess.run([str(CORE / name), "--help"], capture_output=True, text=True, check=True).stdout
    assert "--session-dir" in out and "--watch-pid" in out
    assert subprocess.run([str(CORE / name), "--help-config"], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("name", ["gcs_server", "raylet"])
def test_a_wrong_flag_is_named_and_ends_with_2(name: str) -> None:
    done = subprocess.run([str(CORE / name), "--no-such-flag"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "no-such-flag" in done.stderr


def test_gcs_tells_systemd_that_it_is_ready_and_ends_cleanly_at_sigterm(start: Started, tmp_path: pathlib.Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(f"{tmp_path}/notify")
        notify.settimeout(10)
        gcs = start("gcs_server", *gcs_arguments(tmp_path), NOTIFY_SOCKET=f"{tmp_path}/notify")
        assert b"READY=1" in notify.recv(4096)
    gcs.send_signal(signal.SIGTERM)
    assert gcs.wait(timeout=5) == 0, gcs.communicate()[1]


def test_a_tcp_address_is_refused_without_credentials(tmp_path: pathlib.Path) -> None:
    done = subprocess.run(
        [str(CORE / "gcs_server"), "--listen", "0.0.0.0:6379", "--session-dir", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=10,
    )
    assert done.returncode != 0
    assert "0.0.0.0:6379" in done.stderr


def test_the_raylet_joins_a_gcs_started_apart_and_a_driver_can_use_them(start: Started, tmp_path: pathlib.Path) -> None:
    start("gcs_server", *gcs_arguments(tmp_path))
    (tmp_path / "logs").mkdir(exist_ok=True)
    raylet = start(
        "raylet",
        *("--session-dir", str(tmp_path)),
        *("--gcs-address", f"unix:{tmp_path}/sockets/gcs.sock"),
        "--head",
        *("--num-cpus", "1"),
        *("--object-store-memory", str(100 << 20)),
        *("--python", sys.executable),
    )
    wait_until((tmp_path / "sockets" / "raylet.sock").exists, 10, "the raylet listens")

    def connected() -> bool:
        try:
            ray.init(address=f"unix:{tmp_path}/sockets/gcs.sock", logging_level="ERROR")
        except ConnectionError:
            return False
        return True

    wait_until(connected, 10, "a driver can connect")

    @ray.remote
    def f() -> int:
        return 7

    assert ray.get(f.remote(), timeout=30) == 7
    ray.shutdown()
    raylet.send_signal(signal.SIGTERM)
    assert raylet.wait(timeout=5) == 0


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="this machine has no systemd to ask")
@pytest.mark.parametrize("unit", ["raycore-gcs.service", "raycore-raylet@.service"])
def test_systemd_accepts_the_unit_files(unit: str) -> None:
    done = subprocess.run(
        ["systemd-analyze", "verify", str(CORE / "systemd" / unit)], capture_output=True, text=True, check=False
    )
    problems = [line for line in done.stderr.splitlines() if unit in line and "is not executable" not in line]
    assert not problems, problems


def test_a_folder_that_is_cleared_away_meanwhile_is_not_used(tmp_path: pathlib.Path, start: Started) -> None:
    lock = tmp_path / "lock"
    with open(lock, "w") as cleaner:
        fcntl.flock(cleaner, fcntl.LOCK_EX)
        waits = start("gcs_server", *gcs_arguments(tmp_path))

        def opened() -> bool:
            fds = pathlib.Path(f"/proc/{waits.pid}/fd")
            return any(os.readlink(fd) == str(lock) for fd in fds.iterdir() if fd.is_symlink())

        wait_until(opened, 20, "it is about to lock")
        lock.unlink()
    _, said = waits.communicate(timeout=20)
    assert waits.returncode != 0 and f"{lock}: No such file" in said, said
