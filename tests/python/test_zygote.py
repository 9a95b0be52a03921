"""The zygote's protocol, with a real zygote process."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys

import pytest


@contextlib.contextmanager
def _running(**env):
    """A zygote's socket and process; the pipe that its workers do not outlive is open as long."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(30)
    lifeline, kept = os.pipe()
    passed = (theirs.fileno(), lifeline)
    process = subprocess.Popen(
        [sys.executable, "-m", "ray._runtime.zygote", "--fd", str(passed[0]), "--lifeline", str(passed[1])],
        pass_fds=passed,
        env={**os.environ, **env},
    )
    theirs.close()
    os.close(lifeline)
    try:
        yield ours, process
    finally:
        ours.close()
        os.close(kept)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


@pytest.fixture
def zygote():
    with _running() as running:
        yield running


def _receive(sock):
    return json.loads(sock.recv(1 << 16))


def _fork(sock, tmp_path, **changes):
    message = {
        "op": "fork",
        "token": 7,
        "worker_id": "ab" * 28,
        "job_id": "00000001",
        "log_dir": str(tmp_path),
        "session_dir": str(tmp_path / "nothing"),
        "env": {"RAY_TEST": "1"},
    }
    message.update(changes)
    sock.send(json.dumps(message).encode())


def test_reports_ready_then_ends_with_its_socket(zygote):
    sock, process = zygote
    assert _receive(sock) == {"op": "ready", "pid": process.pid}
    sock.close()
    assert process.wait(30) == 0


def test_fork_gives_log_files_and_reports_the_end(zygote, tmp_path):
    sock, _ = zygote
    _receive(sock)
    _fork(sock, tmp_path)
    forked = _receive(sock)
    assert (forked["op"], forked["token"]) == ("forked", 7)
    # There is no raylet in the session directory, so the worker ends at once, with a code that says so.
    ended = _receive(sock)
    assert (ended["op"], ended["pid"]) == ("exit", forked["pid"])
    assert os.waitstatus_to_exitcode(ended["status"]) == 1
    stem = f"worker-{'ab' * 28}-00000001-{forked['pid']}"
    assert {stem + ".out", stem + ".err"} <= {path.name for path in tmp_path.iterdir()}


def test_bad_request_is_answered(zygote, tmp_path):
    sock, _ = zygote
    _receive(sock)
    _fork(sock, tmp_path, worker_id="not hex")
    answer = _receive(sock)
    assert (answer["op"], answer["token"]) == ("error", 7)


def test_what_the_machine_refuses_is_told_from_what_fails(tmp_path):
    (tmp_path / "refusing.py").write_text(
        "import errno, os\n"
        "codes = [errno.EAGAIN, errno.ENOMEM, errno.EPERM]\n"
        "def fork():\n"
        "    raise OSError(codes.pop(0), 'refused')\n"
        "os.fork = fork\n"
    )
    answers = []
    with _running(PYTHONPATH=str(tmp_path), RAY_preload_python_modules="refusing") as (sock, process):
        _receive(sock)
        for _ in range(3):
            _fork(sock, tmp_path)
            answers.append(_receive(sock))
        sock.close()
        assert process.wait(30) == 0
    assert [(answer["op"], answer["for_now"]) for answer in answers] == [("error", 1), ("error", 1), ("error", 0)]
    assert "ulimit -u" in answers[0]["message"]


def test_ctrl_c_does_not_end_it(zygote, tmp_path):
    sock, process = zygote
    _receive(sock)
    process.send_signal(signal.SIGINT)
    # It answers still, and what comes after.
    for _ in range(2):
        _fork(sock, tmp_path, worker_id="not hex")
        assert _receive(sock)["op"] == "error"
    assert process.poll() is None


_WITH_WRITER = """
import sys
from ray._runtime.zygote import die_with_writer
print("up", flush=True)
sys.stdin.readline()
die_with_writer(int(sys.argv[1]))
print("armed", flush=True)
while True:
    pass
"""


@pytest.mark.parametrize("before", [False, True])
def test_a_process_ends_with_the_writer_of_its_pipe(before):
    lifeline, writer = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", _WITH_WRITER, str(lifeline)],
        pass_fds=(lifeline,),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    os.close(lifeline)
    try:
        assert process.stdout.readline() == "up\n"
        if before:
            os.close(writer)
        process.stdin.write("\n")
        process.stdin.flush()
        if not before:
            assert process.stdout.readline() == "armed\n"
            assert process.poll() is None
            os.close(writer)
        assert process.wait(30) == -signal.SIGKILL
    finally:
        process.kill()
        process.communicate()
