"""The memory monitor, with readings of the test's own: which worker it ends, and what becomes of its work."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.processes import wait_until

import ray
from ray.exceptions import OutOfMemoryError


def soon(condition: Callable[[], Any]) -> None:
    wait_until(condition, 20, "what the test waits for")


class Machine:
    """A machine's memory, as files that the raylet reads."""

    def __init__(self, root: pathlib.Path) -> None:
        self.root = root
        (root / "proc").mkdir(parents=True)
        self.free(900_000)

    def free(self, kilobytes: int) -> None:
        fresh = self.root / "proc" / "fresh"
        fresh.write_text(f"MemTotal: 1000000 kB\nMemAvailable: {kilobytes} kB\n")
        fresh.replace(self.root / "proc" / "meminfo")

    def pressure(self) -> None:
        self.free(10_000)

    def relief(self) -> None:
        self.free(900_000)


@pytest.fixture
def machine(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    monkeypatch.setenv("RAY_task_oom_retry_delay_base_ms", "100")
    made = Machine(tmp_path / "machine")
    ray.init(
        num_cpus=4,
        logging_level="ERROR",
        log_to_driver=False,
        _system_config={"memory_root": str(made.root), "memory_monitor_refresh_ms": 20},
    )
    yield made
    ray.shutdown()


@ray.remote
def work(path: str, until: int) -> int:
    """Notes each of its runs in a file; returns in the run number `until`."""
    with open(path, "a") as file:
        file.write(f"{os.getpid()}\n")
    while len(pathlib.Path(path).read_text().splitlines()) < until:
        time.sleep(0.01)
    return until


def runs(path: pathlib.Path) -> list[int]:
    return [int(pid) for pid in path.read_text().splitlines()] if path.exists() else []


def test_retries_do_not_count_as_those_of_crashes(machine: Machine, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "runs"
    ref = work.options(max_retries=1).remote(str(path), 4)
    for n in (1, 2, 3):
        soon(lambda n=n: len(runs(path)) == n)  # type: ignore[misc]
        machine.pressure()
        soon(lambda: not os.path.exists(f"/proc/{runs(path)[-1]}"))
        machine.relief()
    assert ray.get(ref, timeout=30) == 4


def test_without_retries_a_typed_error_tells_why(machine: Machine, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "runs"
    ref = work.options(max_retries=0, name="hog").remote(str(path), 2)
    soon(lambda: len(runs(path)) == 1)
    machine.pressure()
    with pytest.raises(OutOfMemoryError) as caught:
        ray.get(ref, timeout=30)
    text = str(caught.value)
    assert "low on memory" in text and "0.990" in text and "threshold of 0.950" in text
    assert "'hog'" in text and "ray::hog" in text and str(runs(path)[0]) in text
    assert len(runs(path)) == 1


def test_the_newest_that_can_be_run_again_goes_first(machine: Machine, tmp_path: pathlib.Path) -> None:
    paths = [tmp_path / name for name in ("old", "new", "precious")]
    refs = []
    for path, retries in zip(paths, (-1, -1, 0), strict=True):
        refs.append(work.options(max_retries=retries).remote(str(path), 2))
        soon(lambda path=path: len(runs(path)) == 1)  # type: ignore[misc]
    machine.pressure()
    soon(lambda: not os.path.exists(f"/proc/{runs(paths[1])[0]}"))
    machine.relief()
    assert ray.get(refs[1], timeout=30) == 2
    assert [len(runs(path)) for path in paths] == [1, 2, 1]
    for path in paths:
        with open(path, "a") as file:  # lets them end
            file.write("0\n")
    assert ray.get(refs, timeout=30) == [2, 2, 2]


def test_actors_restart(machine: Machine) -> None:
    # It may be ended more than once before the pressure goes.
    @ray.remote(max_restarts=-1, max_task_retries=-1)
    class Actor:
        def pid(self) -> int:
            return os.getpid()

    actor = Actor.remote()
    before = ray.get(actor.pid.remote())
    machine.pressure()
    soon(lambda: not os.path.exists(f"/proc/{before}"))
    machine.relief()
    assert ray.get(actor.pid.remote(), timeout=30) != before


def test_off(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Machine(tmp_path / "machine")
    made.pressure()
    monkeypatch.setenv("RAY_memory_root", str(made.root))
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "0")
    ray.init(num_cpus=1, logging_level="ERROR", log_to_driver=False)
    try:
        assert ray.get(work.remote(str(tmp_path / "runs"), 1), timeout=30) == 1
    finally:
        ray.shutdown()


_LIMIT = 1 << 30


@pytest.fixture
def control_group() -> Iterator[pathlib.Path]:
    """A control group of this machine's kernel with a limit of memory; skipped where none can be made."""
    entries = [line.split(":", 2) for line in pathlib.Path("/proc/self/cgroup").read_text().splitlines()]
    paths = {name: path for _, names, path in entries for name in names.split(",")}
    top = pathlib.Path("/sys/fs/cgroup")
    if "memory" in paths:  # version 1
        parent, limit = top / "memory" / paths["memory"].lstrip("/"), "memory.limit_in_bytes"
    else:
        parent, limit = top / paths.get("", "/").lstrip("/"), "memory.max"
    group = parent / f"ray-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    try:
        try:
            (group / limit).write_text(str(_LIMIT))
        except OSError as error:
            pytest.skip(f"no control group with a limit of memory can be made here: {error}")
        yield group
    finally:
        soon(lambda: not (group / "cgroup.procs").read_text())
        group.rmdir()


def test_the_limit_of_a_real_control_group(control_group: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """The hog stays below the limit, so that it is the monitor that ends it, and not the kernel."""
    script = f"""
        import os, time
        import ray
        from ray.exceptions import OutOfMemoryError

        ray.init("local", num_cpus=2, logging_level="ERROR", log_to_driver=False, object_store_memory=80 << 20,
                 _system_config={{"memory_usage_threshold": 0.6, "memory_monitor_refresh_ms": 20}})
        assert ray.cluster_resources()["memory"] < {_LIMIT}

        @ray.remote(max_retries=0)
        def hog():
            held = [b"x" * (8 << 20) for _ in range({int(_LIMIT * 0.75) >> 23})]
            time.sleep(60)
            return len(held)

        @ray.remote(max_retries=0)
        def modest():
            return os.getpid()

        try:
            ray.get(hog.remote(), timeout=60)
        except OutOfMemoryError as error:
            print("told:", " ".join(str(error).split()))
        print("goes on:", ray.get(modest.remote(), timeout=30) > 0)
    """
    done = subprocess.run(
        [
            "/bin/sh",
            "-c",
            'echo $$ > "$0"/cgroup.procs && exec "$@"',
            str(control_group),
            sys.executable,
            "-c",
            textwrap.dedent(script),
        ],
        env={**os.environ, "RAY_TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "told:" in done.stdout and "goes on: True" in done.stdout
    assert "/ 1.07 GB" in done.stdout, done.stdout  # the limit, not what the machine has
