"""What a program and its user learn of errors that do not travel well, and of retries."""

from __future__ import annotations

import asyncio
import os
import pathlib
import pickle
import textwrap
import time
from collections.abc import Iterator

import pytest
from support.processes import run_driver, wait_until

import ray


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", str(tmp_path_factory.mktemp("ray")))
        ray.init(address="local", num_cpus=2, logging_level="ERROR", log_to_driver=False)
        yield
        ray.shutdown()


pytestmark = pytest.mark.usefixtures("cluster")


class TwoArguments(Exception):
    """Pickles, but does not load: the arguments that it was made with are not those that it keeps."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__(f"{a} and {b}")


def test_an_error_that_does_not_load_keeps_its_trace() -> None:
    @ray.remote
    def fail() -> None:
        raise TwoArguments(1, 2)

    with pytest.raises(ray.exceptions.UnserializableException, match="1 and 2") as caught:
        ray.get(fail.remote(), timeout=20)
    assert isinstance(caught.value, ray.exceptions.RayTaskError)
    assert "raise TwoArguments(1, 2)" in str(caught.value)


@pytest.fixture
def only_there(tmp_path: pathlib.Path) -> str:
    """A folder with a module that workers can import and this process cannot."""
    (tmp_path / "only_there.py").write_text("class There(Exception): pass\n")
    return str(tmp_path)


def test_an_error_of_a_class_that_only_the_worker_has_keeps_its_trace(only_there: str) -> None:
    @ray.remote
    def fail() -> None:
        import sys

        sys.path.insert(0, only_there)
        import only_there as module

        raise module.There("far away")

    @ray.remote
    def use(value: object) -> object:
        return value

    for ref in (fail.remote(), use.remote(fail.remote())):
        with pytest.raises(ray.exceptions.UnserializableException, match=r"only_there\.There: far away") as caught:
            ray.get(ref, timeout=20)
        assert isinstance(caught.value, ray.exceptions.RayTaskError)
        assert caught.value.cause.__cause__ is None or isinstance(caught.value.cause.__cause__, ImportError)


def test_the_error_of_a_constructor_that_does_not_load_keeps_its_trace(only_there: str) -> None:
    @ray.remote
    class Broken:
        def __init__(self) -> None:
            import sys

            sys.path.insert(0, only_there)
            import only_there as module

            raise module.There("in the constructor")

        def ready(self) -> None: ...

    broken = Broken.remote()
    with pytest.raises(ray.exceptions.ActorDiedError, match=r"only_there\.There: in the constructor") as caught:
        ray.get(broken.ready.remote(), timeout=20)
    assert caught.value.actor_init_failed


def test_an_error_larger_than_what_travels_inline_arrives_whole() -> None:
    text = "x" * 300_000

    @ray.remote
    def fail() -> None:
        raise ValueError(text)

    @ray.remote(num_returns="streaming")
    def stream() -> Iterator[int]:
        yield 1
        raise ValueError(text)

    @ray.remote
    class Broken:
        def __init__(self) -> None:
            raise ValueError(text)

        def ready(self) -> None: ...

    with pytest.raises(ValueError, match=text[:100]) as caught:
        ray.get(fail.remote(), timeout=20)
    assert text in str(caught.value)
    first, last = stream.remote()
    assert ray.get(first, timeout=20) == 1
    with pytest.raises(ValueError, match=text[:100]) as caught:
        ray.get(last, timeout=20)
    assert text in str(caught.value)
    broken = Broken.remote()
    with pytest.raises(ray.exceptions.ActorDiedError, match=text[:100]):
        ray.get(broken.ready.remote(), timeout=20)


def test_a_generator_has_completed_though_its_last_item_is_an_error() -> None:
    @ray.remote(num_returns="streaming")
    def stream() -> Iterator[int]:
        yield 1
        raise ValueError("late")

    generator = stream.remote()
    assert ray.get(generator.completed(), timeout=20) is None
    first, last = generator
    assert ray.get(first, timeout=20) == 1
    with pytest.raises(ValueError, match="late"):
        ray.get(last, timeout=20)
    assert ray.get(generator.completed(), timeout=20) is None


def test_a_generator_whose_worker_dies_has_not_completed() -> None:
    @ray.remote(num_returns="streaming", max_retries=0)
    def stream() -> Iterator[int]:
        import os

        yield 1
        os._exit(1)

    generator = stream.remote()
    with pytest.raises(ray.exceptions.WorkerCrashedError):
        ray.get(generator.completed(), timeout=20)


def test_a_generator_whose_argument_failed_has_one_item_that_raises() -> None:
    @ray.remote
    def fail() -> None:
        raise KeyError("argument")

    @ray.remote(num_returns="streaming")
    def stream(value: object) -> Iterator[object]:
        yield value

    (only,) = stream.remote(fail.remote())
    with pytest.raises(KeyError, match="argument"):
        ray.get(only, timeout=20)


def test_a_dead_actor_is_named_with_its_process_and_node(tmp_path: pathlib.Path) -> None:
    told = tmp_path / "pid"

    @ray.remote
    class Frail:
        def pid(self) -> int:
            return os.getpid()

        def end(self) -> None:
            os._exit(3)

    @ray.remote
    class Unborn:
        def __init__(self) -> None:
            told.write_text(str(os.getpid()))
            os._exit(4)

        def ready(self) -> None:
            pass

    context = ray.get_runtime_context()
    [ip] = {node["NodeManagerAddress"] for node in ray.nodes()}
    actor = Frail.options(name="frail").remote()
    pid = ray.get(actor.pid.remote(), timeout=20)
    with pytest.raises(ray.exceptions.ActorDiedError) as caught:
        ray.get(actor.end.remote(), timeout=20)
    lines = str(caught.value).splitlines()
    assert lines[:7] == [
        "The actor died unexpectedly before finishing this task.",
        "\tclass_name: Frail",
        f"\tactor_id: {actor._actor_id.hex()}",
        f"\tpid: {pid}",
        "\tname: frail",
        f"\tnamespace: {context.namespace}",
        f"\tip: {ip}",
    ]
    assert "exit code 3" in lines[7]

    # One that ended in its constructor had a process, too.
    with pytest.raises(ray.exceptions.ActorDiedError) as caught:
        ray.get(Unborn.remote().ready.remote(), timeout=20)
    lines = str(caught.value).splitlines()
    assert f"\tpid: {told.read_text()}" in lines
    assert f"\tip: {ip}" in lines


LINES = """
import os, signal, time
import ray
ray.init(address="local", num_cpus=2, logging_level="ERROR", log_to_driver={shown})

@ray.remote(max_retries=1)
def crash(): os._exit(3)

@ray.remote(max_retries=1, retry_exceptions=True)
def refuse(): raise ValueError("not today")

@ray.remote
class Actor:
    def crash(self): os._exit(4)
    def ready(self): return os.getpid()

@ray.remote
def nap(): time.sleep(60)

for ref in (crash.remote(), refuse.remote(), Actor.remote().crash.remote()):
    try: ray.get(ref)
    except ray.exceptions.RayError: pass
# Ends that were asked for are no news.
killed = Actor.remote()
ray.get(killed.ready.remote())
ray.kill(killed)
dropped = Actor.remote()
ray.get(dropped.ready.remote())
del dropped
cancelled = nap.remote()
time.sleep(0.2)
ray.cancel(cancelled, force=True)
try: ray.get(cancelled)
except ray.exceptions.RayError: pass
time.sleep(0.3)
"""


def test_a_driver_is_told_of_retries() -> None:
    done = run_driver(textwrap.dedent(LINES.format(shown=True)), RAY_DEDUP_LOGS="0")
    lines = [line for line in done.stderr.splitlines() if line.startswith("(raylet)")]
    retried = [line for line in lines if "retries remaining, so the task will be retried" in line]
    assert sum("Task crash failed. There are 1 retries" in line and "exit code 3" in line for line in retried) == 1
    assert sum("Task refuse failed. There are 1 retries" in line for line in retried) == 1
    assert "ValueError: not today" in done.stderr


def test_a_driver_without_logs_is_not() -> None:
    done = run_driver(textwrap.dedent(LINES.format(shown=False)))
    assert "(raylet)" not in done.stderr


@ray.remote
def sleeps(started: str) -> None:
    pathlib.Path(started).touch()
    time.sleep(60)


@ray.remote(num_cpus=0)
class Sleeper:
    async def sleeps(self, started: str) -> None:
        pathlib.Path(started).touch()
        await asyncio.sleep(60)


@pytest.mark.parametrize("of_actor", [False, True])
def test_the_error_of_what_is_cancelled_while_it_runs_tells_where(tmp_path: pathlib.Path, of_actor: bool) -> None:
    started = tmp_path / "started"
    actor = Sleeper.remote()
    ref = (actor.sleeps if of_actor else sleeps).remote(str(started))

    @ray.remote
    def after(value: None) -> None: ...

    later = after.remote(ref)
    wait_until(started.exists, 20, "it runs")
    ray.cancel(ref)
    with pytest.raises(ray.exceptions.TaskCancelledError) as caught:
        ray.get(ref, timeout=30)
    error = caught.value
    assert isinstance(error, ray.exceptions.RayTaskError)
    assert isinstance(error.cause, ray.exceptions.TaskCancelledError)
    assert error.task_id == ref.task_id() and error.pid and error.ip
    text = str(error)
    assert "in sleeps" in text and "sleep(60)" in text and "was cancelled" in text
    assert "_runtime" not in text and "KeyboardInterrupt" not in text
    assert str(pickle.loads(pickle.dumps(error))) == text
    with pytest.raises(ray.exceptions.TaskCancelledError, match="input arguments") as caught:
        ray.get(later, timeout=30)
    assert isinstance(caught.value, ray.exceptions.RayTaskError)
    assert isinstance(caught.value.cause, ray.exceptions.TaskCancelledError)


def test_the_error_of_what_was_cancelled_before_it_ran_is_plain() -> None:
    @ray.remote(num_cpus=100)
    def never() -> None: ...

    ref = never.remote()
    ray.cancel(ref)
    with pytest.raises(ray.exceptions.TaskCancelledError) as caught:
        ray.get(ref, timeout=30)
    assert not isinstance(caught.value, ray.exceptions.RayTaskError)
