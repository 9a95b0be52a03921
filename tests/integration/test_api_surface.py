"""Names and behaviours of the module that programs rely on, and that no other test looks at."""

from __future__ import annotations

import asyncio
import builtins
import json
import logging
import os
import pathlib
import pickle
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from collections.abc import Iterator
from typing import Any

import pyarrow
import pytest
from support.processes import wait_until

import ray
from ray import _proxies
from ray._private.test_utils import SignalActor, wait_for_condition
from ray._runtime import function_table


@pytest.fixture(autouse=True, scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    ray.init(num_cpus=4, namespace="surface", logging_level="ERROR", log_to_driver=False)
    yield
    ray.shutdown()


@ray.remote
def echo(value: Any = 1) -> Any:
    return value


def test_what_the_module_lists_is_there() -> None:
    assert not ray.AUTO_INIT_APIS & ray.NON_AUTO_INIT_APIS
    assert [name for name in ray.__all__ if not hasattr(ray, name)] == []
    assert ray.Language.JAVA.value() == 1
    with pytest.raises(RuntimeError, match="Java"):
        ray.java_function("a.B", "c")
    with pytest.raises(RuntimeError, match=r"2\.47"):
        ray.workflow  # noqa: B018
    with pytest.raises(AttributeError):
        ray.nothing  # noqa: B018
    assert ray._config.task_oom_retries() == (1 << 64) - 1


def test_old_names_are_views_of_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(_proxies.logger, "warning", lambda text, *args: said.append(text % args))
    for _ in range(2):
        assert ray.worker.global_worker.mode == ray.SCRIPT_MODE
    assert len([text for text in said if "ray.worker.global_worker" in text]) == 1
    from ray._private import state, worker

    assert worker.global_worker.worker_id.hex() == ray.get_runtime_context().get_worker_id()
    assert worker._global_node is not None
    assert pathlib.Path(worker._global_node.get_logs_dir_path()).is_dir()
    assert state.total_resources_per_node()[ray.get_runtime_context().get_node_id()]["CPU"] == 4


def test_deprecated_members_of_the_context_warn() -> None:
    context = ray.get_runtime_context()
    for name in ("job_id", "node_id", "task_id", "actor_id", "current_placement_group_id"):
        with pytest.warns(DeprecationWarning, match=name):
            getattr(context, name)
    with pytest.warns(DeprecationWarning, match="get_resource_ids"):
        assert context.get_resource_ids()["GPU"] == []


def test_an_argument_that_is_an_error_is_told_as_such() -> None:
    @ray.remote
    def fails() -> None:
        raise ZeroDivisionError("first")

    @ray.remote
    class Actor:
        def echo(self, value: Any) -> Any:
            return value

    for ref in (
        echo.remote(fails.remote()),
        echo.remote(echo.remote(fails.remote())),
        Actor.remote().echo.remote(fails.remote()),
    ):
        with pytest.raises(ZeroDivisionError) as caught:
            ray.get(ref, timeout=30)
        text = str(caught.value)
        assert "input arguments for this task could not be computed" in text
        assert "ray::fails()" in text and "first" in text


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python has groups of exceptions since 3.11")
def test_groups_of_errors_keep_their_kind() -> None:
    ExceptionGroup = builtins.ExceptionGroup  # type: ignore[attr-defined,unused-ignore]

    @ray.remote
    def fails() -> None:
        raise ExceptionGroup("several", [ValueError(1), TypeError(2)])

    with pytest.raises(ExceptionGroup) as caught:
        ray.get(fails.remote(), timeout=30)
    assert [type(error) for error in caught.value.exceptions] == [ValueError, TypeError]


def test_parts_of_what_is_yielded() -> None:
    @ray.remote(_num_objects_per_yield=2)
    def pairs(n: int) -> Iterator[Any]:
        for i in range(n):
            yield i, -i
        yield 1

    got: list[int] = []
    with pytest.raises(ValueError, match="_num_objects_per_yield=2"):
        for ref in pairs.remote(2):
            got.append(ray.get(ref))
    assert got == [0, 0, 1, -1]
    with pytest.raises(ValueError, match="_num_objects_per_yield"):
        pairs.options(_num_objects_per_yield=3)


def test_a_limit_over_all_streams_of_an_actor() -> None:
    @ray.remote(max_concurrency=4, _actor_generator_backpressure_num_objects=3)
    class Producer:
        def __init__(self) -> None:
            self.made = 0

        def items(self, n: int) -> Iterator[int]:
            for i in range(n):
                self.made += 1
                yield i

        def count(self) -> int:
            return self.made

    producer = Producer.remote()
    streams = [producer.items.remote(10) for _ in range(2)]
    # Three are stored, or four if one stream had none; and each stream has one more in hand.
    wait_until(lambda: ray.get(producer.count.remote()) >= 4, 20, "the streams are full")
    time.sleep(0.3)  # for more to come, if it would
    assert ray.get(producer.count.remote()) <= 6
    got = [0, 0]
    for i, stream in enumerate(streams):
        for ref in stream:
            assert ray.get(ref) == got[i]
            got[i] += 1
    assert got == [10, 10]


def test_streams_that_are_dropped_give_the_room_of_their_actor_back() -> None:
    @ray.remote(max_concurrency=8, _actor_generator_backpressure_num_objects=3)
    class Producer:
        def __init__(self) -> None:
            self.made = self.running = 0

        def items(self, n: int) -> Iterator[int]:
            self.running += 1
            try:
                for i in range(n):
                    self.made += 1
                    yield i
            finally:
                self.running -= 1

        def state(self) -> tuple[int, int]:
            return self.made, self.running

    producer = Producer.remote()
    for _ in range(4):
        before = ray.get(producer.state.remote())[0]
        stream = producer.items.remote(100)
        # Three are stored, and it waits with another one in hand.
        wait_until(lambda before=before: ray.get(producer.state.remote())[0] >= before + 4, 20, "the stream is full")
        del stream
        wait_until(lambda: ray.get(producer.state.remote())[1] == 0, 20, "its producer has ended")


def test_blocking_get_on_a_loop_is_warned_of_once(tmp_path: pathlib.Path) -> None:
    @ray.remote
    class Async:
        async def block(self, path: str) -> int:
            handler = logging.FileHandler(path)
            logging.getLogger("ray").addHandler(handler)
            return ray.get(echo.remote(1)) + ray.get(echo.remote(2))

    path = tmp_path / "log"
    assert ray.get(Async.remote().block.remote(str(path)), timeout=30) == 3
    assert path.read_text().count("blocking ray.get inside async actor") == 1


def test_retries_by_default_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    @ray.remote
    def dies(path: str) -> None:
        with open(path, "a") as file:
            file.write("x")
        os._exit(1)

    monkeypatch.setenv("RAY_TASK_MAX_RETRIES", "1")
    with pytest.raises(ray.exceptions.WorkerCrashedError, match="exit code 1"):
        ray.get(dies.remote(str(tmp_path / "runs")), timeout=30)
    assert (tmp_path / "runs").read_text() == "xx"


def test_submission_can_be_wrapped() -> None:
    def wrap(submit: Any) -> Any:
        return lambda args, kwargs: ("wrapped", submit(args, kwargs))

    def plain(x: int) -> int:
        return x

    plain.__ray_invocation_decorator__ = wrap  # type: ignore[attr-defined]
    word, ref = ray.remote(plain).remote(7)
    assert (word, ray.get(ref)) == ("wrapped", 7)


def test_sending_to_an_actor_can_be_wrapped() -> None:
    def wrap(submit: Any) -> Any:
        return lambda args, kwargs: ("wrapped", submit(args, {**kwargs, "y": 1}))

    class Plain:
        def add(self, x: int, y: int = 0) -> int:
            return x + y

        def other(self) -> int:
            return 2

    Plain.add.__ray_invocation_decorator__ = wrap  # type: ignore[attr-defined]
    actor = ray.remote(Plain).options(name="wrapped sending").remote()
    for handle in (actor, ray.get_actor("wrapped sending"), pickle.loads(ray.cloudpickle.dumps(actor))):
        for _ in range(2):  # the second time the handle remembers the method
            word, ref = handle.add.remote(7)
            assert (word, ray.get(ref)) == ("wrapped", 8)
        word, ref = handle.add.options(name="n").remote(8)
        assert (word, ray.get(ref)) == ("wrapped", 9)
        assert ray.get(handle.other.remote()) == 2


def test_launches_are_told_to_hooks(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, dict[str, float], Any]] = []

    def hook(described: Any, resources: dict[str, float], strategy: Any) -> None:
        told.append((described.repr.rpartition(".")[2], resources, strategy))
        assert len(described.function_id) == 28

    @ray.remote(num_cpus=0)
    class Actor:
        pass

    monkeypatch.setattr(ray.remote_function, "_task_launch_hook", hook)
    monkeypatch.setattr(ray.actor, "_actor_launch_hook", hook)
    ray.get([echo.remote(), echo.options(num_cpus=2, scheduling_strategy="SPREAD").remote()])
    Actor.options(resources={}, num_cpus=1).remote()
    assert told == [
        ("echo", {"CPU": 1.0}, "DEFAULT"),
        ("echo", {"CPU": 2.0}, "SPREAD"),
        ("__init__", {"CPU": 1.0}, "DEFAULT"),
    ]
    assert ray.remote_function._task_launch_hook is hook
    monkeypatch.undo()
    ray.get(echo.remote())
    assert len(told) == 3 and ray.remote_function._task_launch_hook is None

    def refuses(*_: Any) -> None:
        raise PermissionError("not today")

    monkeypatch.setattr(ray.remote_function, "_task_launch_hook", refuses)
    with pytest.raises(PermissionError):
        echo.remote()


def test_tensors_have_no_way_of_their_own() -> None:
    @ray.remote(num_cpus=0)
    class Actor:
        @ray.method(tensor_transport="object_store")
        def plain(self) -> int:
            return 1

    actor = Actor.remote()
    assert ray.get(actor.plain.remote()) == 1
    for bad in (
        lambda: ray.method(tensor_transport="nccl"),
        lambda: actor.plain.options(tensor_transport="gloo"),
        lambda: Actor.options(enable_tensor_transport=True),
    ):
        with pytest.raises(ValueError, match="transport"):
            bad()


def test_a_weak_handle_of_an_actor_that_is_gone() -> None:
    actor = ray.remote(num_cpus=0)(SignalActor.__ray_actor_class__).options(name="gone").remote()
    weak = ray.get_actor("gone")
    pid = ray.get(weak.__ray_call__.remote(lambda _: os.getpid()))
    del actor
    wait_until(lambda: not os.path.exists(f"/proc/{pid}"), 20, "the actor ends with its last handle")
    for _ in range(2):
        with pytest.raises(ray.exceptions.ActorDiedError):
            ray.get(weak.send.remote(), timeout=30)


def test_names_of_what_is_called() -> None:
    assert echo._function_name.endswith("test_api_surface.echo") and echo._function_descriptor.class_name == ""

    @ray.remote(num_cpus=0)
    class Actor:
        pass

    assert Actor.remote()._ray_actor_creation_function_descriptor.class_name == "Actor"
    code = "import ray; print(ray._private.worker.global_worker.connected, ray._private.state.state is not None)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).split() == ["False", "True"]


def test_several_refs_of_a_stream_at_once() -> None:
    @ray.remote
    def count(n: int) -> Iterator[int]:
        yield from range(n)

    stream = count.remote(3)
    ray.get(stream.completed(), timeout=30)
    assert ray.get(stream._get_next_ref_n(2)) == [0, 1]
    stream._consume_next_ref_n(2)
    assert ray.get(ray.ObjectRef(stream._get_next_object_id_binary())) == 2
    assert ray.get(list(stream)) == [2]


def test_timeline(tmp_path: pathlib.Path) -> None:
    ray.get([echo.options(name="seen").remote() for _ in range(3)])
    found = [event for event in ray.timeline() or [] if event["name"] == "seen"]
    assert len(found) == 3
    assert set(found[0]) == {"cat", "name", "pid", "tid", "ts", "dur", "ph", "cname", "args"}
    assert all(event["ts"] <= time.time() * 1e6 and event["dur"] >= 0 for event in found)
    ray.timeline(str(tmp_path / "trace.json"))
    assert json.loads((tmp_path / "trace.json").read_text())


def test_timeline_of_actors_and_without_those_left_out() -> None:
    class Async:
        async def slow(self) -> None:
            await asyncio.sleep(0.3)

        @ray.method(enable_task_events=False)
        async def hidden(self) -> None:
            pass

    @ray.remote(enable_task_events=False, num_cpus=0)
    class Quiet:
        def call(self) -> None:
            pass

    actors = (ray.remote(Async).remote(), ray.remote(concurrency_groups={"io": 1})(Async).remote())
    quiet = Quiet.remote()
    refs = [actor.slow.remote() for actor in actors for _ in range(2)]
    refs += [actors[0].slow.options(name="left out", enable_task_events=False).remote(), actors[0].hidden.remote()]
    refs += [quiet.call.remote(), quiet.call.options(name="told of", enable_task_events=True).remote()]
    refs += [echo.options(name="left out", enable_task_events=False).remote()]
    ray.get(refs, timeout=30)
    found = ray.timeline() or []
    slow = [event for event in found if event["name"] == "Async.slow"]
    assert len(slow) == 4 and all(event["dur"] >= 0.3e6 for event in slow)
    assert not {event["name"] for event in found} & {"left out", "Async.hidden", "Quiet.call", "Quiet.__init__"}
    assert [event["name"] for event in found].count("told of") == 1


def test_the_shutdown_hook_runs_and_has_a_budget(tmp_path: pathlib.Path) -> None:
    @ray.remote
    class Hooked:
        def __init__(self, path: str, hang: bool) -> None:
            self.path, self.hang = path, hang

        def pid(self) -> int:
            return os.getpid()

        def __ray_shutdown__(self) -> None:
            pathlib.Path(self.path).write_text("called")
            if self.hang:
                threading.Event().wait()

    env = {"env_vars": {"RAY_actor_graceful_shutdown_timeout_ms": "200"}}
    for hang in (False, True):
        path = tmp_path / str(hang)
        actor = Hooked.options(runtime_env=env).remote(str(path), hang)
        pid = ray.get(actor.pid.remote())
        del actor
        wait_until(lambda pid=pid: not os.path.exists(f"/proc/{pid}"), 20, "the actor ends")  # type: ignore[misc]
        assert path.read_text() == "called"


def test_helpers_of_other_projects_tests() -> None:
    signal = SignalActor.remote()
    ref = signal.wait.remote()
    wait_for_condition(lambda: ray.get(signal.cur_num_waiters.remote()) == 1)
    ray.get(signal.send.remote())
    assert ray.get(ref, timeout=30) is None
    with pytest.raises(RuntimeError, match="wasn't met"):
        wait_for_condition(lambda: False, timeout=0.05, retry_interval_ms=10)


def test_marks_of_deprecation() -> None:
    from ray.util.annotations import Deprecated, RayDeprecationWarning

    @Deprecated(message="use the other", warning=True)
    def old() -> int:
        return 1

    @Deprecated
    def quiet() -> int:
        return 2

    with pytest.warns(RayDeprecationWarning, match="use the other"):
        assert old() == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert quiet() == 2


def test_awaiting_in_a_driver() -> None:
    async def main() -> list[int]:
        return await asyncio.gather(*[echo.remote(i) for i in range(3)])

    assert asyncio.run(main()) == [0, 1, 2]


def test_arrow_tables_are_read_where_they_lie() -> None:
    table = pyarrow.table({"a": range(500_000)})
    ref = ray.put(table)

    def data_of(read: Any) -> Any:
        return read["a"].chunk(0).buffers()[1]

    first, second = ray.get(ref), ray.get(ref)
    assert first.equals(table)
    assert data_of(first).address == data_of(second).address, "both windows into the store"
    assert data_of(first).address != data_of(table).address
    assert not data_of(first).is_mutable
    kept = data_of(first)
    del first, second, ref
    assert memoryview(kept).cast("q")[499_999] == 499_999, "what is read stays as long as it is used"


def test_a_function_that_captures_ten_megabytes_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    warned: list[str] = []
    monkeypatch.setattr(function_table.logger, "warning", lambda text, *args: warned.append(text % args))
    small, large = bytes(1000), bytes(10_000_001)
    assert ray.get(ray.remote(lambda: len(small)).remote(), timeout=30) == 1000
    assert not warned
    assert ray.get(ray.remote(lambda: len(large)).remote(), timeout=30) == 10_000_001
    assert len(warned) == 1
    assert "very large (9 MiB)" in warned[0]


def test_job_config() -> None:
    code = """
        import ray
        from ray.job_config import JobConfig

        config = JobConfig(ray_namespace="mine", default_actor_lifetime="detached")
        ray.init(num_cpus=1, logging_level="ERROR", job_config=config)

        @ray.remote
        class A:
            pass

        actor = A.options(name="a").remote()
        ray.get(actor.__ray_ready__.remote())
        print(ray.get_runtime_context().namespace, ray.util.list_named_actors(all_namespaces=True))
        del actor
        assert ray.get(ray.get_actor("a").__ray_ready__.remote())
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["mine", "[{'name':", "'a',", "'namespace':", "'mine'}]"]
