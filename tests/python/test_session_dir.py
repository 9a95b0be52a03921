"""Records of processes, and which cluster a driver finds by itself."""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import json
import os
import pathlib
import subprocess
import sys

import pytest

from ray._runtime import session_dir
from ray._runtime.session_dir import GCS, RAYLET, ProcessRecord
from ray.exceptions import RaySystemError


@pytest.fixture
def root(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    return session_dir.temp_root()


@pytest.fixture
def child():
    """A process that lives until the test has ended."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.communicate()


def record(made: pathlib.Path, pid: int, address: str, **fields: object) -> ProcessRecord:
    return ProcessRecord(**{"kind": GCS, **fields}, pid=pid, session_dir=str(made), gcs_address=address).write()


def test_a_record_counts_while_its_process_runs(root, child) -> None:
    made = session_dir.make_session_dir(root)
    written = record(made, child.pid, "127.0.0.1:1", addresses=("127.0.0.1:1",))
    assert session_dir.records_of(made) == [written]
    assert session_dir.live_records(root) == [written]
    child.kill()
    child.wait()
    assert not written.lives
    assert written.pidfd() is None
    assert session_dir.live_records(root) == []


def test_another_process_with_the_same_id_is_not_mistaken_for_it(root, child) -> None:
    made = session_dir.make_session_dir(root)
    written = record(made, child.pid, "127.0.0.1:1")
    fields = dataclasses.asdict(written)
    fields["identity"] = fields["identity"][:-1] + "x"  # another start time
    written.path.write_text(json.dumps(fields))
    assert session_dir.live_records(root) == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"kind": 1}', '{"kind": "raylet", "addresses": null}'])
def test_a_spoilt_record_is_passed_over(root, text: str) -> None:
    made = session_dir.make_session_dir(root)
    (made / "processes" / "raylet-1.json").write_text(text)
    assert session_dir.live_records(root) == []


def test_a_bare_driver_finds_what_ray_start_made_and_no_drivers_cluster(root, child) -> None:
    made = session_dir.make_session_dir(root)
    assert session_dir.find_running() is None
    record(made, child.pid, "unix:/x/sockets/gcs.sock", owned=True)
    assert session_dir.find_running(owned=False) is None
    assert session_dir.find_running() == "unix:/x/sockets/gcs.sock"
    other = session_dir.make_session_dir(root)
    record(other, child.pid, "127.0.0.1:2")
    assert session_dir.find_running(owned=False) == "127.0.0.1:2"
    assert session_dir.find_running() == "127.0.0.1:2"


def test_the_address_file_decides_between_clusters_that_live(root, child) -> None:
    first, second = session_dir.make_session_dir(root), session_dir.make_session_dir(root)
    record(first, child.pid, "127.0.0.1:1")
    record(second, child.pid, "127.0.0.1:2", kind=RAYLET)
    session_dir.write_current(root, "127.0.0.1:1")
    assert session_dir.find_running() == "127.0.0.1:1"
    session_dir.write_current(root, "127.0.0.1:9")  # of a cluster that is gone
    assert session_dir.find_running() == "127.0.0.1:2"
    session_dir.forget_current(root)
    assert not (root / "ray_current_cluster").exists()
    session_dir.write_current(root, "127.0.0.1:2")
    session_dir.forget_current(root)
    assert (root / "ray_current_cluster").read_text() == "127.0.0.1:2\n"


def test_clusters_of_another_network_are_not_ours(root, child) -> None:
    made = session_dir.make_session_dir(root)
    written = record(made, child.pid, "127.0.0.1:1")
    written.path.write_text(json.dumps({**dataclasses.asdict(written), "network": "net:[1]"}))
    assert session_dir.find_running() is None


def test_a_node_that_joins_gets_a_directory_of_its_own_in_the_session(root) -> None:
    name = "session_2020-01-01_00-00-00_000000_999999999"  # its head is on another machine
    with session_dir.joined(root, name) as (session, first), session_dir.joined(root, name) as (again, second):
        assert session == again == root / name
        assert first != second and first.parent == second.parent == session
        assert (first / "sockets").stat().st_mode & 0o777 == 0o700
        assert session.stat().st_mode & 0o777 == 0o700
        for _ in range(7):
            session_dir.make_session_dir(root).rename(root / f"session_2021-01-01_00-00-00_00000{_}_999999999")
        session_dir.reap_old_sessions(root)
        assert session.exists()  # a node is about to be started in it
    session_dir.reap_old_sessions(root)
    assert not session.exists()


def test_a_node_joins_no_session_that_another_user_made(root, tmp_path) -> None:
    name = "session_2020-01-01_00-00-00_000000_1"
    root.mkdir()
    (tmp_path / "trap").mkdir()
    (root / name).symlink_to(tmp_path / "trap")
    with pytest.raises(RaySystemError, match="another user"), session_dir.joined(root, name):
        pass
    assert not list((tmp_path / "trap").iterdir())


def test_nothing_is_written_through_a_link_that_somebody_laid(root, tmp_path) -> None:
    root.mkdir()
    (tmp_path / "precious").write_text("kept")
    (root / f".ray_current_cluster.{os.getpid()}").symlink_to(tmp_path / "precious")
    session_dir.write_current(root, "127.0.0.1:1")
    assert (root / "ray_current_cluster").read_text() == "127.0.0.1:1\n"
    assert not (root / "ray_current_cluster").is_symlink()
    assert (tmp_path / "precious").read_text() == "kept"


def test_spilled_objects_stay_while_the_session_is_held(root) -> None:
    """As by a raylet in another container, whose process ids mean nothing here."""
    session = root / "session_2020-01-01_00-00-00_000000_999999999"
    (session / "ray_spilled_objects_1").mkdir(parents=True)
    with session_dir.held(session):
        session_dir.reap_old_sessions(root)
        assert (session / "ray_spilled_objects_1").exists()
    session_dir.reap_old_sessions(root)
    assert session.exists() and not (session / "ray_spilled_objects_1").exists()


def test_a_session_whose_starter_is_gone_stays_while_a_process_of_it_lives(root, child) -> None:
    kept = root / "session_2001-01-01_00-00-00_000000_999999999"
    for number in range(1, 8):
        (root / f"session_2001-01-0{number}_00-00-00_000000_999999999").mkdir(parents=True)
    (kept / "processes").mkdir()
    record(kept, child.pid, "127.0.0.1:1", kind=RAYLET)
    session_dir.reap_old_sessions(root)
    assert kept.exists()
    assert len(list(root.glob("session_2001-*"))) == 6
    assert os.getpid() != child.pid


def test_who_clears_away_and_who_joins_exclude_each_other(root) -> None:
    """Also in a directory whose lock nobody has made yet."""
    made = root / "session_2020-01-01_00-00-00_000000_999999999"
    made.mkdir(parents=True)
    with session_dir._alone(made) as alone:
        assert alone
        with open(made / "lock") as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    with session_dir.held(made), session_dir._alone(made) as alone:
        assert not alone
    assert (session_dir.make_session_dir(root) / "lock").exists()


def test_nothing_is_left_of_a_session_that_found_no_place(root, monkeypatch) -> None:
    def full(folder: pathlib.Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    root.mkdir()
    monkeypatch.setattr(session_dir, "_fill", full)
    with pytest.raises(RaySystemError, match="No space left"), session_dir.joined(root, "session_1_2_3_4"):
        pass
    assert not list(root.iterdir())
