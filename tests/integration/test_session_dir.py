"""The session directory: its files, their sizes, and which of the old ones stay."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest
from support.processes import run_driver, wait_until

import ray
from ray._runtime import session_dir as sessions


def start(tmp_path: pathlib.Path, **options: object) -> pathlib.Path:
    ray.init(num_cpus=1, logging_level="ERROR", _temp_dir=str(tmp_path), **options)  # type: ignore[arg-type]
    return pathlib.Path(ray.get_runtime_context()._session().session_dir)


def test_every_process_has_its_log_files(tmp_path: pathlib.Path) -> None:
    session_dir = start(tmp_path)

    @ray.remote
    def f() -> int:
        print("hello")
        return os.getpid()

    pid = ray.get(f.remote())
    names = {path.name for path in (session_dir / "logs").iterdir()}
    assert {"gcs_server.out", "gcs_server.err", "raylet.out", "raylet.err"} <= names
    worker, job = "[0-9a-f]" * 56, "[0-9a-f]" * 8
    for pattern in (
        f"worker-{worker}-{job}-{pid}.out",
        f"worker-{worker}-{job}-{pid}.err",
        f"python-core-worker-{worker}_{pid}.log",
        f"python-core-driver-{worker}_{os.getpid()}.log",
    ):
        assert len(list((session_dir / "logs").glob(pattern))) == 1, (pattern, names)
    assert (tmp_path / "session_latest").resolve() == session_dir.resolve()
    ray.shutdown()


def test_worker_logs_rotate_without_losing_a_line(tmp_path: pathlib.Path) -> None:
    out = run_driver(
        """
        import sys, ray
        ray.init(num_cpus=1, logging_level="ERROR")
        @ray.remote
        def speaks():
            for i in range(3000): print("line", i)
        ray.get(speaks.remote())
        print(ray.get_runtime_context()._session().session_dir, file=sys.stderr)
        ray.shutdown()
        """,
        RAY_ROTATION_MAX_BYTES="5000",
        RAY_ROTATION_BACKUP_COUNT="20",
        RAY_TMPDIR=str(tmp_path),
    )
    lines = [line.rpartition("line ")[2] for line in out.stdout.splitlines() if "line " in line]
    assert lines == [str(i) for i in range(3000)], out.stderr
    (logs,) = tmp_path.glob("ray/session_2*/logs")
    files = list(logs.glob("worker-*.out*"))
    assert len(files) > 5
    assert all(path.stat().st_size < 6000 for path in files)
    text = "".join(
        path.read_text() for path in sorted(files, key=lambda p: -int(p.suffix[1:]) if p.suffix[1:].isdigit() else 1)
    )
    assert [line[5:] for line in text.splitlines() if line.startswith("line ")] == lines


def test_logs_of_the_system_rotate(tmp_path: pathlib.Path) -> None:
    out = run_driver(
        """
        import ray
        ray.init(num_cpus=1, logging_level="ERROR")
        @ray.remote
        def f(): pass
        ray.get([f.remote() for _ in range(10)])
        ray.shutdown()
        """,
        RAY_ROTATION_MAX_BYTES="300",
        RAY_ROTATION_BACKUP_COUNT="2",
        RAY_TMPDIR=str(tmp_path),
    )
    assert out.returncode == 0, out.stderr
    (logs,) = tmp_path.glob("ray/session_2*/logs")
    assert (logs / "raylet.out.2").exists() and not (logs / "raylet.out.3").exists()


def test_old_sessions_go_but_the_newest_and_those_that_live_stay(tmp_path: pathlib.Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    old = [tmp_path / f"session_2020-01-{day:02}_00-00-00_000000_{ended.pid}" for day in range(1, 10)]
    living = tmp_path / f"session_2019-01-01_00-00-00_000000_{os.getpid()}"
    other = tmp_path / "session_notes"
    for path in (*old, living, other):
        (path / "logs").mkdir(parents=True)
    start(tmp_path)
    ray.shutdown()
    assert [path.exists() for path in old] == [False] * 4 + [True] * 5
    assert living.exists() and other.exists()


IN_A_CONTAINER = """
import sys, numpy as np, ray
ray.init(num_cpus=1, object_store_memory=80 << 20, logging_level="ERROR", _temp_dir=sys.argv[1])
refs = [ray.put(np.full(30 << 20, i, np.uint8)) for i in range(5)]
print(ray.get_runtime_context()._session().session_dir, flush=True)
input()
print([int(ray.get(ref)[-1]) for ref in refs], flush=True)
input()
"""


def test_a_cluster_in_another_container_keeps_what_it_spilled(tmp_path: pathlib.Path) -> None:
    """It shares the folder, but its process ids mean nothing here."""
    container = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if subprocess.run([*container, "true"], capture_output=True).returncode != 0:
        pytest.skip("this machine gives no pid namespace")
    root = tmp_path / "shared"
    free = next(pid for pid in range(30_000, 2, -1) if not os.path.exists(f"/proc/{pid}"))
    script = f'echo {free - 1} > /proc/sys/kernel/ns_last_pid && "$@"; exit $?'  # its id there is nobody's here
    there = subprocess.Popen(
        [*container, "sh", "-c", script, "sh", sys.executable, "-c", IN_A_CONTAINER, str(root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    )
    try:
        assert there.stdin and there.stdout
        session = pathlib.Path(there.stdout.readline().strip())
        assert session.name.endswith(f"_{free}")
        # The oldest of many, so that it would be the first to go.
        for number in range(1, 8):
            (root / f"session_2999-01-0{number}_00-00-00_000000_999999999").mkdir()
        start(root)
        ray.shutdown()
        assert list(session.glob("ray_spilled_objects_*/*"))
        there.stdin.write("\n")
        assert there.stdout.readline() == "[0, 1, 2, 3, 4]\n"
    finally:
        there.kill()  # and with it all that is in there
        there.communicate()

    def reaped() -> bool:
        sessions.reap_old_sessions(root)
        return not session.exists()

    wait_until(reaped, 10, "the session is deleted, now that its processes have ended")


def test_paths_longer_than_a_socket_address_work(tmp_path: pathlib.Path) -> None:
    deep = tmp_path / ("long" * 20) / ("longer" * 15)
    session_dir = start(deep)
    assert len(str(session_dir / "sockets" / "raylet.sock")) > 200

    @ray.remote
    def f() -> int:
        return 1

    assert ray.get(f.remote()) == 1
    ray.shutdown()


@pytest.mark.parametrize("where", ["a file", "/proc/none"])
def test_a_place_that_cannot_be_written_is_named(where: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").touch()
    place = str(tmp_path / "file") if where == "a file" else where
    with pytest.raises(ray.exceptions.RaySystemError, match="RAY_TMPDIR") as caught:
        ray.init(num_cpus=1, _temp_dir=place, logging_level="ERROR")
    assert place in str(caught.value)
    assert not ray.is_initialized()


def test_the_environment_says_where(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    ray.init(num_cpus=1, logging_level="ERROR")
    assert ray.get_runtime_context()._session().session_dir.startswith(f"{tmp_path}/ray/session_")
    ray.shutdown()
