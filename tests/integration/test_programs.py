"""Programs written for Ray run here as they do there: corners that programs lean on without knowing."""

from __future__ import annotations

import abc
import asyncio
import os
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.processes import wait_until

import ray
from ray._private import client_mode_hook
from ray._private.worker import global_worker
from ray.experimental import internal_kv
from ray.util.metrics import Counter
from ray.util.queue import Empty, Full, Queue


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    ray.init(num_cpus=2, logging_level="ERROR")
    yield
    ray.shutdown()


@ray.remote
def yields(values: int, error: str = "") -> Iterator[int]:
    yield from range(values)
    if error:
        raise KeyError(error)


def test_a_generator_gives_each_return_its_value_and_the_rest_is_not_asked_for() -> None:
    assert ray.get(yields.options(num_returns=2).remote(5)) == [0, 1]
    assert ray.get(yields.options(num_returns=1).remote(5)) == 0


def test_what_a_generator_gave_before_it_failed_is_there() -> None:
    first, second, third = yields.options(num_returns=3).remote(2, "no more")
    assert ray.get([first, second]) == [0, 1]
    with pytest.raises(KeyError, match="no more"):
        ray.get(third)


def test_a_generator_that_ends_early_fails_the_returns_that_it_left_out() -> None:
    first, second = yields.options(num_returns=2).remote(1)
    assert ray.get(first) == 0
    with pytest.raises(ValueError, match="Task returned 1 objects, but num_returns=2"):
        ray.get(second)
    with pytest.raises(ValueError, match="Task returned 0 objects, but num_returns=1"):
        ray.get(yields.options(num_returns=1).remote(0))


def test_a_generator_whose_values_came_in_part_is_retried_as_a_whole(tmp_path: Any) -> None:
    mark = tmp_path / "failed once"

    @ray.remote(num_returns=2, max_retries=1, retry_exceptions=True)
    def fails_once() -> Iterator[str]:
        again = mark.exists()
        yield "second" if again else "first"
        if not again:
            mark.touch()
            raise RuntimeError
        yield "run"

    assert ray.get(fails_once.remote()) == ["second", "run"]


def test_something_without_items_is_not_several_values() -> None:
    with pytest.raises(TypeError, match="num_returns=2"):
        ray.get(ray.remote(num_returns=2)(lambda: 5).remote())


def test_an_error_passed_on_by_tasks_keeps_its_own_cause_and_shows_the_programs_frames() -> None:
    @ray.remote
    def inner() -> None:
        raise ValueError("at the bottom")

    @ray.remote
    def outer() -> Any:
        return ray.get(inner.remote())

    @ray.remote
    def over(_: Any) -> None: ...

    for ref in (outer.remote(), over.remote(outer.remote())):
        with pytest.raises(ValueError, match="at the bottom") as caught:
            ray.get(ref)
        assert isinstance(caught.value, ray.exceptions.RayTaskError)
        assert type(caught.value.cause) is ValueError
        assert "in inner" in str(caught.value) and "in outer" in str(caught.value)
        assert "in get\n" not in str(caught.value) and "_core" not in str(caught.value)


def test_a_chained_error_shows_the_programs_frames_of_both() -> None:
    @ray.remote
    def fails() -> None:
        raise ValueError("first")

    @ray.remote
    def translates() -> None:
        try:
            ray.get(fails.remote())
        except ValueError as error:
            raise RuntimeError("second") from error

    with pytest.raises(RuntimeError, match="second") as caught:
        ray.get(translates.remote())
    text = str(caught.value)
    assert "first" in text and "direct cause" in text and "in translates" in text and "_core" not in text


def test_a_task_that_raises_keyboard_interrupt_counts_as_cancelled() -> None:
    @ray.remote
    def stops() -> None:
        raise KeyboardInterrupt

    with pytest.raises(ray.exceptions.TaskCancelledError):
        ray.get(stops.remote())


def test_counts_may_be_none_for_their_defaults() -> None:
    @ray.remote(max_retries=None, max_calls=None)
    def f() -> int:
        return 1

    @ray.remote(max_restarts=None, max_task_retries=None, max_pending_calls=None, max_concurrency=None)
    class A:
        def m(self) -> int:
            return 2

    assert ray.get([f.remote(), f.options(max_retries=None).remote(), A.remote().m.remote()]) == [1, 1, 2]


def test_an_actor_class_shows_the_attributes_of_its_class() -> None:
    @ray.remote
    class Circle:
        """Round."""

        SIDES = 0

        @staticmethod
        def area(radius: float) -> float:
            return 3.0 * radius

        @classmethod
        def sides(cls) -> int:
            return cls.SIDES

    assert (Circle.SIDES, Circle.area(2), Circle.sides()) == (0, 6.0, 0)
    assert "ActorClass(Circle)" in repr(Circle)
    assert Circle.__ray_metadata__.class_name == "Circle"
    assert Circle.__ray_metadata__.modified_class.SIDES == 0
    with pytest.raises(AttributeError, match="nothing"):
        _ = Circle.nothing


def test_wait_takes_a_whole_number_that_is_a_float() -> None:
    refs = [ray.put(i) for i in range(4)]
    half: Any = len(refs) / 2
    assert ray.wait(refs, num_returns=half) == (refs[:2], refs[2:])
    broken: Any = 1.5
    with pytest.raises(TypeError, match="num_returns"):
        ray.wait(refs, num_returns=broken)


def test_what_init_returns_is_a_mapping_too() -> None:
    context: Any = ray.init(ignore_reinit_error=True)
    assert set(context) == set(context.address_info)
    with pytest.warns(DeprecationWarning, match="address_info"):
        assert context["node_id"] == context.address_info["node_id"]


def test_a_record_may_have_tags_that_its_metric_was_not_declared_with() -> None:
    counter = Counter("requests_of_a_test", tag_keys=("route",))
    counter.inc(1, tags={"route": "a", "host": "b"})
    with pytest.raises(ValueError, match="route"):
        counter.inc(1, tags={"host": "b"})


def test_function_names_have_their_module_and_task_names_have_not() -> None:
    def names() -> tuple[str | None, str | None]:
        context = ray.get_runtime_context()
        return context.get_task_name(), context.get_task_function_name()

    @ray.remote
    class Actor:
        def __init__(self) -> None:
            self.first = names()

        def told(self) -> list[tuple[str | None, str | None]]:
            return [self.first, names()]

    assert ray.get(Actor.remote().told.remote()) == [
        ("Actor.__init__", f"{__name__}.Actor.__init__"),
        ("Actor.told", f"{__name__}.Actor.told"),
    ]


def test_options_of_generators_say_nothing_about_other_functions() -> None:
    @ray.remote(_generator_backpressure_num_objects=1, _num_objects_per_yield=2)
    def f() -> int:
        return 3

    @ray.remote(_num_objects_per_yield=2)
    def pairs() -> Iterator[Any]:
        yield 1, 2

    assert ray.get([f.remote(), f.options(_num_objects_per_yield=1).remote()]) == [3, 3]
    assert [ray.get(ref) for ref in pairs.options(_num_objects_per_yield=1).remote()] == [1, 2]


def test_items_of_a_dynamic_generator_before_its_error_are_usable() -> None:
    @ray.remote
    def total(refs: Any) -> int:
        return sum(ray.get(ref) for ref in list(refs)[:-1])

    with pytest.warns(DeprecationWarning, match="dynamic"):
        dynamic = yields.options(num_returns="dynamic")
    items = list(ray.get(dynamic.remote(3, "too many")))
    assert ray.get(items[:-1]) == [0, 1, 2]
    with pytest.raises(KeyError, match="too many"):
        ray.get(items[-1])
    assert ray.get(total.remote(dynamic.remote(4, "too many"))) == 6
    only = list(ray.get(dynamic.remote(0, "at once")))
    with pytest.raises(KeyError, match="at once"):
        ray.get(only)


def test_errors_that_are_no_exceptions_keep_their_class() -> None:
    @ray.remote
    def fails() -> None:
        raise GeneratorExit("gone")

    with pytest.raises(GeneratorExit):
        ray.get(fails.remote())


def test_a_task_is_known_by_the_name_of_its_function_and_module() -> None:
    @ray.remote
    def who() -> Any:
        return ray.get_runtime_context().get_task_function_name()

    assert ray.get(who.remote()) == f"{__name__}.who"


def test_the_context_of_a_driver_shows_ids_that_are_nil_and_the_worker() -> None:
    context = ray.get_runtime_context()
    with pytest.warns(DeprecationWarning):
        assert context.current_placement_group_id.is_nil()
    assert context.worker.mode == ray.SCRIPT_MODE


def test_a_cancelled_task_that_fails_on_its_own_shows_that_error(tmp_path: pathlib.Path) -> None:
    started = tmp_path / "started"

    @ray.remote(retry_exceptions=True)
    def cleans_up_badly() -> None:
        started.touch()
        try:
            time.sleep(60)
        except KeyboardInterrupt:
            raise ValueError("in the handler") from None

    ref = cleans_up_badly.remote()
    wait_until(started.exists, 20, "it runs")
    ray.cancel(ref)
    with pytest.raises(ValueError, match="in the handler"):
        ray.get(ref, timeout=20)


def test_an_actor_that_leaves_with_an_error_code_is_restarted() -> None:
    @ray.remote(max_restarts=1)
    class Leaver:
        def leave(self, code: Any) -> None:
            raise SystemExit(code)

        def pid(self) -> int:
            return os.getpid()

    def pid(actor: Any) -> int:
        try:
            return int(ray.get(actor.pid.remote(), timeout=20))
        except ray.exceptions.ActorUnavailableError:
            return 0

    failed, done = Leaver.remote(), Leaver.remote()
    former = pid(failed)
    with pytest.raises(ray.exceptions.ActorUnavailableError):
        ray.get(failed.leave.remote(3), timeout=20)
    wait_until(lambda: pid(failed) not in (0, former), 20, "it is restarted")
    with pytest.raises(ray.exceptions.ActorDiedError, match=r"sys.exit\(4\)"):
        ray.get(failed.leave.remote(4), timeout=20)
    with pytest.raises(ray.exceptions.ActorDiedError, match="by itself"):
        ray.get(done.leave.remote(0), timeout=20)


def test_no_actor_is_made_of_an_abstract_class() -> None:
    class Shape(abc.ABC):
        @abc.abstractmethod
        def area(self) -> int: ...

    with pytest.raises(TypeError, match=r"Shape is abstract.*area"):
        ray.remote(Shape)


def test_methods_are_in_groups_that_the_class_defines() -> None:
    @ray.remote
    class Lost:
        @ray.method(concurrency_group="nowhere")
        def m(self) -> None: ...

    with pytest.raises(AssertionError, match="nowhere"):
        Lost.remote()


def test_an_argument_of_a_constructor_that_failed_is_told_apart_from_the_constructor() -> None:
    @ray.remote
    class A:
        def __init__(self, x: int) -> None: ...

        def m(self) -> None: ...

    @ray.remote
    def fails() -> int:
        raise KeyError("upstream")

    with pytest.raises(ray.exceptions.ActorDiedError, match=r"(?s)A\.__init__.*input arguments.*ray::fails.*upstream"):
        ray.get(A.remote(fails.remote()).m.remote(), timeout=20)


def test_a_cancelled_method_of_a_plain_actor_keeps_its_error_and_loses_its_value(tmp_path: pathlib.Path) -> None:
    started = tmp_path / "started"

    @ray.remote(num_cpus=0)
    class Polls:
        def run(self, error: bool) -> str:
            started.touch()
            while not ray.get_runtime_context().is_canceled():
                time.sleep(0.01)
            if error:
                raise ValueError("its own")
            return "unwanted"

        def items(self) -> Iterator[int]:
            n = 0
            while not ray.get_runtime_context().is_canceled():
                yield n
                n += 1

    for concurrency in (1, 2):
        polls = Polls.options(max_concurrency=concurrency).remote()
        for error, kind in ((False, ray.exceptions.TaskCancelledError), (True, ValueError)):
            started.unlink(missing_ok=True)
            ref = polls.run.remote(error)
            wait_until(started.exists, 20, "it runs")
            ray.cancel(ref)
            with pytest.raises(kind):
                ray.get(ref, timeout=20)
        items = polls.items.remote()
        assert ray.get(next(items)) == 0
        ray.cancel(items)
        *_, last = items
        with pytest.raises(ray.exceptions.TaskCancelledError):
            ray.get(last)


def test_a_cancelled_coroutine_counts_as_cancelled_whatever_it_makes_of_that(tmp_path: pathlib.Path) -> None:
    @ray.remote(num_cpus=0)
    class Stubborn:
        async def run(self, started: pathlib.Path, error: bool) -> str:
            started.touch()
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                if error:
                    raise ValueError("its own") from None
            return "unwanted"

    stubborn = Stubborn.remote()
    for error in (False, True):
        started = tmp_path / f"started {error}"
        ref = stubborn.run.remote(started, error)
        wait_until(started.exists, 20, "it runs")
        ray.cancel(ref)
        with pytest.raises(ray.exceptions.TaskCancelledError):
            ray.get(ref, timeout=20)


def test_libraries_reach_the_table_of_keys_by_its_client() -> None:
    client = internal_kv.internal_kv_get_gcs_client()
    assert client is not None and client.address == ray.get_runtime_context().gcs_address
    assert client.internal_kv_put(b"key", b"1", namespace=b"ns") == 1
    assert client.internal_kv_put(b"key", b"2", namespace=b"ns") == 0
    assert global_worker.gcs_client.internal_kv_get(b"key", namespace=b"ns") == b"1"
    assert client.internal_kv_exists(b"key", b"ns") and client.internal_kv_keys(b"k", b"ns") == [b"key"]
    assert client.internal_kv_del(b"key", namespace=b"ns") == 1
    assert internal_kv._internal_kv_get("key", namespace="ns") is None


def test_hooks_of_a_client_that_is_not_there_change_nothing() -> None:
    @client_mode_hook.client_mode_hook
    def plain() -> int:
        return 1

    @client_mode_hook.client_mode_hook(local_only_kwargs=("x",))
    def with_options() -> int:
        return 2

    with client_mode_hook.disable_client_hook(), client_mode_hook.enable_client_mode():
        assert (plain(), with_options()) == (1, 2)
    assert not client_mode_hook.client_mode_should_convert()


def test_a_queue_that_is_full_or_empty_says_that_and_nothing_else() -> None:
    queue = Queue(maxsize=1)
    calls: list[tuple[Callable[[], Any], type[Exception]]] = [
        (lambda: queue.put_nowait(1), Full),
        (lambda: queue.put(1, timeout=0.01), Full),
        (lambda: queue.put_nowait_batch([1]), Full),
        (lambda: queue.get_nowait(), Empty),
        (lambda: queue.get(timeout=0.01), Empty),
        (lambda: queue.get_nowait_batch(1), Empty),
    ]
    for call, error in calls:
        if error is Full and queue.empty():
            queue.put("item")
        elif error is Empty and not queue.empty():
            assert queue.get_nowait() == "item"
        with pytest.raises(error) as caught:
            call()
        assert type(caught.value) is error


def test_calls_of_an_actor_that_restarts_tell_so_once() -> None:
    @ray.remote(max_restarts=1)
    class Fragile:
        def die(self) -> None:
            os._exit(1)

    with pytest.raises(ray.exceptions.ActorUnavailableError) as caught:
        ray.get(Fragile.remote().die.remote(), timeout=20)
    assert str(caught.value).count("is unavailable") == str(caught.value).count("may or may not") == 1
