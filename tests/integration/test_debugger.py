"""Breakpoints in tasks and actors, and `ray debug`, which attaches to them."""

from __future__ import annotations

import os
import pathlib
import stat
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from support.processes import wait_until

import ray
from ray._runtime.session import require_session
from ray.util import rpdb


@pytest.fixture(autouse=True)
def cluster(own_tmpdir: pathlib.Path) -> Iterator[None]:
    ray.init(num_cpus=2, logging_level="ERROR", log_to_driver=False)
    yield
    ray.shutdown()


def waiting(n: int = 1) -> list[dict[str, Any]]:
    def found() -> list[dict[str, Any]] | None:
        entries = rpdb.active_breakpoints(require_session())
        return entries if len(entries) == n and all(os.path.exists(entry["socket"]) for entry in entries) else None

    return wait_until(found, 30, f"{n} breakpoint(s)")  # type: ignore[no-any-return]


def debug(typed: str) -> str:
    """What `ray debug` shows to somebody who types that."""
    done = subprocess.run(
        [sys.executable, "-m", "ray.cli.main", "debug"], input=typed, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@ray.remote
def stops(secret: int) -> int:
    breakpoint()
    return secret


def test_attach_look_change_and_go_on() -> None:
    ref = stops.options(name="held").remote(41)
    [entry] = waiting()
    assert (entry["proctitle"], entry["reason"]) == ("held", "breakpoint")
    assert entry["filename"] == __file__
    assert stat.S_IMODE(os.stat(entry["socket"]).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(os.path.dirname(entry["socket"])).st_mode) == 0o700
    shown = debug("0\np 'the secret is', secret\nsecret = 42\ncontinue\n\n")
    assert "held" in shown and "('the secret is', 41)" in shown and "Nothing waits" in shown
    assert ray.get(ref, timeout=30) == 42
    assert not os.path.exists(entry["socket"])


def test_hanging_up_lets_the_code_go_on() -> None:
    ref = stops.remote(1)
    waiting()
    debug("0\n")  # the input ends while attached
    assert ray.get(ref, timeout=30) == 1
    assert rpdb.active_breakpoints(require_session()) == []


def test_quit_fails_the_task() -> None:
    ref = stops.options(max_retries=0).remote(1)
    waiting()
    debug("0\nquit\n\n")
    with pytest.raises(ray.exceptions.RayTaskError, match="BdbQuit"):
        ray.get(ref, timeout=30)


def test_a_task_that_waits_can_be_cancelled() -> None:
    ref = stops.remote(1)
    waiting()
    ray.cancel(ref)
    with pytest.raises(ray.exceptions.TaskCancelledError):
        ray.get(ref, timeout=30)
    wait_until(lambda: not rpdb.active_breakpoints(require_session()), 30, "it is not listed any more")


def test_methods_stop_too_and_the_dead_are_forgotten() -> None:
    @ray.remote
    class Actor:
        def stop(self) -> int:
            rpdb.set_trace()
            return 7

    actors = [Actor.options(num_cpus=0).remote() for _ in range(2)]
    refs = [actor.stop.remote() for actor in actors]
    pids = [entry["pid"] for entry in waiting(2)]
    ray.kill(actors[0])
    wait_until(lambda: sum(os.path.exists(f"/proc/{pid}") for pid in pids) == 1, 30, "one of them is dead")
    shown = debug("0\nc\n\n")
    assert shown.count("Actor.stop") == 1
    assert ray.get(refs[1], timeout=30) == 7


def test_errors_stop_where_they_were_raised() -> None:
    @ray.remote(runtime_env={"env_vars": {"RAY_DEBUG_POST_MORTEM": "1"}})
    def fails() -> None:
        here = "seen"
        raise ValueError(here)

    ref = fails.remote()
    [entry] = waiting()
    assert entry["reason"] == "post-mortem"
    assert "'seen'" in debug("0\np here\nq\n\n")
    with pytest.raises(ValueError, match="seen"):
        ray.get(ref, timeout=30)


def test_a_driver_stops_on_its_own_terminal() -> None:
    code = "import ray\nray.init('local', num_cpus=1, logging_level='ERROR')\nx = 5\nbreakpoint()\nprint('after', x)\n"
    done = subprocess.run([sys.executable, "-c", code], input="x = 6\nc\n", capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "after 6" in done.stdout, done.stderr
