"""`ray._runtime.log_files`: finding and reading log files."""

from __future__ import annotations

import os
import pathlib

import pytest

from ray._runtime import log_files
from ray.util.state import _logs


@pytest.fixture
def logs(tmp_path: pathlib.Path) -> pathlib.Path:
    for name in (
        *("gcs_server.out", "gcs_server.err", "raylet.out", "raylet.1.out", "zygote.err"),
        *("python-core-driver-ab_9.log", "python-core-worker-ab_7.log"),
        *("worker-ab-01000000-7.out", "worker-ab-01000000-7.err"),
    ):
        (tmp_path / name).touch()
    (tmp_path / "old").mkdir()
    return tmp_path


def test_names_by_kind(logs: pathlib.Path) -> None:
    assert log_files.by_kind(logs) == {
        "gcs_server": ["gcs_server.err", "gcs_server.out"],
        "raylet": ["raylet.1.out", "raylet.out"],
        "core_worker": ["python-core-worker-ab_7.log"],
        "driver": ["python-core-driver-ab_9.log"],
        "worker_out": ["worker-ab-01000000-7.out"],
        "worker_err": ["worker-ab-01000000-7.err"],
        "internal": ["zygote.err"],
    }
    assert log_files.by_kind(logs, "raylet*") == {"raylet": ["raylet.1.out", "raylet.out"]}
    assert log_files.by_kind(logs / "nowhere") == {}


def test_the_last_process_that_had_the_pid(logs: pathlib.Path) -> None:
    assert log_files.of_worker(logs, "out", pid=7) == logs / "worker-ab-01000000-7.out"
    later = logs / "worker-cd-02000000-7.out"
    later.touch()
    os.utime(logs / "worker-ab-01000000-7.out", (1, 1))
    assert log_files.of_worker(logs, "out", pid=7) == later
    assert log_files.of_worker(logs, "out", pid=77) is None


def read(path: pathlib.Path, tail: int) -> bytes:
    return b"".join(log_files.read(path, tail=tail))


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_the_end_of_a_file(tmp_path: pathlib.Path, end: bytes) -> None:
    path = tmp_path / "f"
    # Longer than what is read at once, and markers are no lines.
    lines = [b"\x1eray-name f", *(b"line %d " % i + b"x" * 300 for i in range(1000)), b"\x1eray-name g", b"last"]
    path.write_bytes(b"\n".join(lines) + end)
    shown = [line for line in lines if not line.startswith(b"\x1e")]
    for tail in (0, 1, 2, 3, 500, 1000, 1001, 5000):
        assert read(path, tail) == (b"\n".join(shown[-tail:]) + end if tail else b""), tail
    assert read(path, -1) == b"\n".join(shown) + end


@pytest.mark.parametrize("end", [b"", b"\n", b"\nshort\n"])
def test_a_line_that_is_longer_than_what_is_read_at_once(tmp_path: pathlib.Path, end: bytes) -> None:
    path = tmp_path / "f"
    long = b"\r".join(b"%d %%" % i for i in range(50_000))
    path.write_bytes(b"first\n" + long + end)
    assert list(log_files.read(path)) == [b"first\n", long] if not end else [b"first\n", long + end]
    assert read(path, 1 + end.count(b"\nshort")) == long + end


@pytest.mark.parametrize("text", [b"", b"\n", b"\n\n", b"a", b"\x1eray-name f", b"\x1eray-name f\n"])
def test_short_files(tmp_path: pathlib.Path, text: bytes) -> None:
    path = tmp_path / "f"
    path.write_bytes(text)
    shown = b"" if text.startswith(b"\x1e") else text
    assert read(path, -1) == read(path, 10) == shown
    assert read(path, 0) == b""


def test_what_is_added_is_followed(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"1\n2\n\x1eray-na")
    following = log_files.read(path, tail=1, follow=True, interval=0.001)
    assert next(following) == b"2\n"
    with open(path, "ab") as file:
        file.write(b"me f\n3\n4")
    assert next(following) == b"3\n"
    with open(path, "ab") as file:
        file.write(b"\n")
    assert next(following) == b"4\n"


def test_bytes_become_text(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "f"
    path.write_bytes("\x1b[36mgr\u00fcn\x1b[0m\n".encode() + b"\xff\n")

    def text(errors: str, filter_ansi_code: bool) -> str:
        options = {"tail": -1, "follow": False, "interval": 1.0, "encoding": "utf-8"}
        return "".join(_logs.chunks(path, errors=errors, filter_ansi_code=filter_ansi_code, **options))

    assert text("replace", True) == "gr\u00fcn\n\ufffd\n"
    assert text("ignore", False) == "\x1b[36mgr\u00fcn\x1b[0m\n\n"
    with pytest.raises(UnicodeDecodeError):
        text("strict", False)
