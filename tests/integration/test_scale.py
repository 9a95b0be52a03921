"""What many groups, actors and queued tasks cost each, all at the same time: a small run of tests/perf/scale.py."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

SCRIPT = pathlib.Path(__file__).parents[1] / "perf" / "scale.py"


def test_memory_of_each(tmp_path: pathlib.Path) -> None:
    result = tmp_path / "figures.json"
    sizes = ("--groups", "300", "--actors", "40", "--tasks", "50000")
    command = [sys.executable, str(SCRIPT), *sizes, "--json", str(result)]
    env = {**os.environ, "RAY_TMPDIR": str(tmp_path)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    figures = json.loads(result.read_text())
    groups, tasks, actors = (figures[what] for what in ("placement_groups", "tasks", "actors"))
    # Several times what was measured: these are for growth of another order, not for a page more or less.
    assert tasks["bytes_each_queued"]["driver"] < 4000, tasks
    assert tasks["bytes_each_queued"]["raylet"] < 100, "the raylet has a bounded number of requests of each owner"
    assert tasks["bytes_each_queued"]["gcs_server"] < 100, tasks
    assert groups["bytes_each"]["gcs_server"] < 40_000, groups
    assert groups["bytes_each"]["raylet"] < 20_000, groups
    assert actors["bytes_each"]["gcs_server"] < 100_000, actors
    assert actors["bytes_each"]["driver"] < 100_000, actors
