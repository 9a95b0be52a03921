"""Programs written for Ray run here as they do there: corners that programs lean on without knowing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import ray
from ray.util.metrics import Counter


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
