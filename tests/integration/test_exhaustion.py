"""Processes that run out of what the machine gives: clear words, the rest goes on, and so do they with room."""

from __future__ import annotations

import os
import pathlib
import re
import resource
from collections.abc import Iterator
from typing import Any

import pytest
from support.limits import out_of_descriptors, processor_seconds
from support.processes import command_line, descendants, run_driver, wait_until

import ray
from ray.util.state import explain

DESCRIPTORS = "Too many open files .*ulimit -n"
PROCESSES = "the limit of processes is reached .*ulimit -u"


@pytest.fixture
def cluster() -> Iterator[None]:
    ray.init(num_cpus=4, object_store_memory=100 << 20, logging_level="ERROR", log_to_driver=False)
    yield
    ray.shutdown()


def raylet_pid() -> int:
    return next(pid for pid in descendants(os.getpid()) if b"/raylet\0" in command_line(pid))


@ray.remote(num_cpus=0)
class Plain:
    def pid(self) -> int:
        return os.getpid()

    def big(self) -> bytes:
        return b"x" * 300_000

    def make(self) -> list[Any]:
        self.ref = ray.put("small")
        return [self.ref]

    def make_by_another(self) -> list[Any]:
        self.other = Plain.remote()
        return ray.get(self.other.make.remote())


@ray.remote
def length(text: str) -> int:
    return len(text)


def explained(thing: Any, pattern: str) -> bool:
    return re.search(pattern, str(explain(thing)), re.DOTALL) is not None


def test_a_driver_without_descriptors() -> None:
    code = """
        import os, re, resource
        import pytest, ray
        from ray.util.state import explain
        from integration.test_exhaustion import DESCRIPTORS, Plain, explained, length
        from support.limits import out_of_descriptors

        ray.init(num_cpus=2, object_store_memory=100 << 20, logging_level="ERROR", log_to_driver=False)
        known = Plain.remote()
        ray.get(known.pid.remote(), timeout=30)
        with out_of_descriptors(os.getpid()):
            assert ray.get(known.pid.remote(), timeout=30)
            new = Plain.remote()  # which nobody here is connected to
            call = new.pid.remote()
            task = length.remote("abc")
            # Of an owner that cannot be reached for now it is not said that it died.
            (ref,) = ray.get(known.make_by_another.remote(), timeout=30)
            for waiting in (call, task, ref):
                with pytest.raises(ray.exceptions.GetTimeoutError):
                    ray.get(waiting, timeout=0.5)
            assert explained(call, DESCRIPTORS), explain(call)
            assert explained(task, DESCRIPTORS), explain(task)
            value = known.big.remote()
            with pytest.raises(ray.exceptions.RaySystemError, match=DESCRIPTORS):
                ray.get(value, timeout=30)
            with pytest.raises(ray.exceptions.RaySystemError, match=DESCRIPTORS):
                ray.put(b"x" * 300_000)
        assert ray.get([call, task, ref], timeout=30)[1:] == [3, "small"]
        assert len(ray.get(value, timeout=30)) == 300_000
        assert ray.get(ray.put(b"x" * 300_000), timeout=30) == b"x" * 300_000
        print("fine")
    """
    done = run_driver(code, PYTHONPATH=str(pathlib.Path(__file__).parent.parent))
    assert done.stdout == "fine\n", done.stdout + done.stderr


@ray.remote(num_cpus=0)
class Exhausted:
    """A worker that has no descriptor left from `lower` to `restore`."""

    def lower(self) -> None:
        self.limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, self.limits[1]))

    def restore(self) -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, self.limits)

    def big(self) -> bytes:
        return b"x" * 300_000

    def call(self, other: Any) -> int:
        self.called = other.pid.remote()
        return ray.get(self.called, timeout=0.5)

    def finish_call(self) -> int:
        return ray.get(self.called, timeout=30)


def test_a_worker_without_descriptors(cluster: None) -> None:
    actor, other = Exhausted.remote(), Plain.remote()
    pid = ray.get(other.pid.remote(), timeout=30)
    ray.get(actor.lower.remote(), timeout=30)
    with pytest.raises(ray.exceptions.RayTaskError, match="GetTimeoutError"):  # of the get within the call
        ray.get(actor.call.remote(other), timeout=30)
    with pytest.raises(ray.exceptions.RayError, match=DESCRIPTORS):
        ray.get(actor.big.remote(), timeout=30)
    ray.get(actor.restore.remote(), timeout=30)
    assert ray.get(actor.finish_call.remote(), timeout=30) == pid
    assert len(ray.get(actor.big.remote(), timeout=30)) == 300_000


def test_a_raylet_without_descriptors(cluster: None) -> None:
    known = Plain.remote()
    pid = ray.get(known.pid.remote(), timeout=30)
    raylet = raylet_pid()
    log = pathlib.Path(ray.get_runtime_context()._session().session_dir, "logs", "raylet.out")
    with out_of_descriptors(raylet):
        news = [Plain.remote() for _ in range(8)]  # more than workers wait for
        calls = [new.pid.remote() for new in news]
        wait_until(lambda: any(explained(new, DESCRIPTORS) for new in news), 30, "it is said what they wait for")
        before = processor_seconds(raylet)
        with pytest.raises(ray.exceptions.GetTimeoutError):
            ray.get(calls, timeout=1)
        assert processor_seconds(raylet) - before < 0.5, "it does not try without a pause"
        assert ray.get(known.pid.remote(), timeout=30) == pid
    assert len(set(ray.get(calls, timeout=30))) == 8
    said = [line for line in log.read_text().splitlines() if "cannot accept" in line and "raylet.sock" in line]
    assert len(said) == 1, "not each time that it is tried"
    assert re.search(DESCRIPTORS, said[0])


def test_a_node_without_processes(tmp_path: pathlib.Path) -> None:
    """The limit of processes is that of a stand-in for fork: root, by whom tests may be run, has none."""
    module = tmp_path / "modules" / "few_processes.py"
    module.parent.mkdir()
    module.write_text(
        "import errno, os\n"
        "fork = os.fork\n"
        "def refused():\n"
        "    if os.path.exists(os.environ['TEST_NO_PROCESSES']):\n"
        "        raise BlockingIOError(errno.EAGAIN, 'Resource temporarily unavailable')\n"
        "    return fork()\n"
        "os.fork = refused\n"
    )
    code = """
        import os, pathlib
        import ray
        from integration.test_exhaustion import PROCESSES, Plain, explained
        from support.processes import wait_until

        ray.init(num_cpus=4, logging_level="ERROR")
        first = Plain.remote()
        ray.get(first.pid.remote(), timeout=30)
        full = pathlib.Path(os.environ["TEST_NO_PROCESSES"])
        full.touch()
        news = [Plain.remote() for _ in range(8)]
        calls = [new.pid.remote() for new in news]
        wait_until(lambda: any(explained(new, PROCESSES) for new in news), 30, "it is said what they wait for")
        assert ray.get(first.pid.remote(), timeout=30)
        full.unlink()
        print(len(set(ray.get(calls, timeout=30))))
    """
    paths = f"{pathlib.Path(__file__).parent.parent}:{module.parent}"
    done = run_driver(
        code,
        PYTHONPATH=paths,
        RAY_preload_python_modules="few_processes",
        TEST_NO_PROCESSES=str(tmp_path / "full"),
    )
    assert done.stdout == "8\n", done.stdout + done.stderr
    assert re.search("No worker process can be started now.*" + PROCESSES, done.stderr), done.stderr
