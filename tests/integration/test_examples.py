"""The programs of docs/user/examples do what they say."""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys

EXAMPLES = pathlib.Path(__file__).parents[2] / "docs" / "user" / "examples"


def run(name: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments], capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def test_the_book_examples_run_in_about_the_time_of_the_longest_look_up() -> None:
    runtimes = {
        name: float(value)
        for name, value in re.findall(r"'(\w[\w ]*)': ([\d.]+)", run("book_examples.py").splitlines()[-1])
    }
    assert runtimes["serial"] >= 2.8
    for name in ("parallel", "object store", "wait", "actor"):
        assert 0.7 <= runtimes[name] < 1.4, runtimes


def test_the_code_search_answers_as_the_serial_index() -> None:
    out = run("code_search.py", "--limit", "300", "--queries", "event loop")
    assert "300 files" in out
    assert "'event loop'" in out


def test_the_parameter_server_reaches_95_percent() -> None:
    accuracy = re.search(r"test accuracy ([\d.]+)%", run("parameter_server.py"))
    assert accuracy is not None and float(accuracy.group(1)) >= 95.0
