"""ray.options: what an option may be and what it becomes."""

from __future__ import annotations

from typing import Any

import pytest

from ray import options as opts


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"no_such": 1}, ValueError),
        ({"num_cpus": "1"}, TypeError),
        ({"num_cpus": True}, TypeError),
        ({"num_cpus": -1}, ValueError),
        ({"num_cpus": 1e-5}, ValueError),
        ({"num_cpus": float("nan")}, ValueError),
        ({"num_gpus": 1.5}, ValueError),
        ({"resources": {"CPU": 1}}, ValueError),
        ({"resources": {"memory": 1}}, ValueError),
        ({"resources": {"x": "1"}}, TypeError),
        ({"num_returns": -1}, ValueError),
        ({"num_returns": "many"}, ValueError),
        ({"max_retries": -2}, ValueError),
        ({"retry_exceptions": [int]}, ValueError),
        ({"retry_exceptions": 1}, TypeError),
        ({"object_store_memory": 1}, ValueError),
        ({"scheduling_strategy": 5}, TypeError),
        ({"scheduling_strategy": "FAST"}, ValueError),
        ({"label_selector": {"a": "in("}}, ValueError),
        ({"placement_group": "group"}, ValueError),
        ({"placement_group": 5}, TypeError),
        ({"_generator_backpressure_num_objects": 0}, ValueError),
        ({"timeout_s": 0}, ValueError),
    ],
    ids=lambda v: repr(v) if isinstance(v, dict) else "",
)
def test_bad_task_options_name_the_option_and_the_value(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(options))):
        opts.validate(options, opts.TASK, what="remote functions")


@pytest.mark.parametrize(
    "options",
    [
        {"name": ""},
        {"namespace": ""},
        {"lifetime": "forever"},
        {"max_restarts": -2},
        {"get_if_exists": True},
        {"max_concurrency": 0},
        {"object_store_memory": -1},
    ],
    ids=repr,
)
def test_bad_actor_options_are_value_errors(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        opts.validate_actor(options)


@pytest.mark.parametrize("name", ["max_calls", "concurrency_groups"])
def test_some_options_are_for_the_decorator_only(name: str) -> None:
    table = opts.TASK if name == "max_calls" else opts.ACTOR
    value: Any = 1 if name == "max_calls" else {"io": 2}
    opts.validate({name: value}, table, what="x")
    with pytest.raises(ValueError, match="decorator"):
        opts.validate({name: value}, table, what="x", in_options=True)


def test_a_task_holds_one_cpu_unless_told_otherwise() -> None:
    assert opts.task_resources({}) == {"CPU": 1.0}
    assert opts.task_resources({"num_cpus": 0}) == {}
    assert opts.task_resources({"num_cpus": 0.5, "num_gpus": 1, "resources": {"x": 2}, "memory": 10.7}) == {
        "CPU": 0.5,
        "GPU": 1.0,
        "x": 2.0,
        "memory": 10.0,
    }


def test_fractions_are_rounded_down_so_that_n_nths_fit() -> None:
    for parts in range(1, 200):
        share = opts.task_resources({"num_cpus": 1 / parts, "num_gpus": 1 / parts, "resources": {"x": 1 / parts}})
        assert share["CPU"] == share["GPU"] == share["x"] == (opts.RESOURCE_UNIT // parts) / opts.RESOURCE_UNIT
    for hundredths in range(101):
        assert opts.whole_units(hundredths / 100) == hundredths / 100
    assert opts.actor_resources({"num_cpus": 2 / 3})[1] == {"CPU": 0.6666}
    assert opts.whole_units(1e14) == 1e14


def test_an_actor_needs_a_cpu_to_be_placed_and_keeps_what_it_asked_for() -> None:
    assert opts.actor_resources({}) == ({"CPU": 1.0}, {})
    assert opts.actor_resources({"num_cpus": 0}) == ({}, {})
    assert opts.actor_resources({"num_cpus": 2}) == ({"CPU": 2.0}, {"CPU": 2.0})
    assert opts.actor_resources({"resources": {"x": 1}}) == ({"x": 1.0, "CPU": 1.0}, {"x": 1.0, "CPU": 1.0})
    assert opts.actor_resources({"memory": 5}) == ({"memory": 5.0, "CPU": 1.0}, {"memory": 5.0})


def test_num_returns_becomes_a_code() -> None:
    assert opts.num_returns_code(None, False) == 1
    assert opts.num_returns_code(None, True) == -2
    assert opts.num_returns_code("dynamic", True) == -1
    assert opts.num_returns_code(3, True) == 3
    with pytest.raises(ValueError, match="generator"):
        opts.num_returns_code("streaming", False)


@pytest.mark.parametrize(
    "selector", [{"zone": "a"}, {"x.io/zone": "!a"}, {"zone": "in(a, b)"}, {"zone": "!in(a)"}, {"zone": ""}], ids=repr
)
def test_label_selectors_that_are_fine(selector: dict[str, str]) -> None:
    opts.validate({"label_selector": selector}, opts.TASK, what="remote functions")


@pytest.mark.parametrize("selector", [{"zone": 1}, {1: "a"}], ids=repr)
def test_label_selectors_are_of_strings(selector: dict[Any, Any]) -> None:
    with pytest.raises(TypeError, match="dict of strings"):
        opts.validate({"label_selector": selector}, opts.TASK, what="remote functions")


def test_a_selector_that_excludes_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="'!'"):
        opts.validate({"label_selector": {"zone": "!"}}, opts.TASK, what="remote functions")


def test_a_fallback_may_have_no_selector() -> None:
    fallback = [{"label_selector": {"zone": "a"}}, {"label_selector": None}]
    opts.validate({"fallback_strategy": fallback}, opts.TASK, what="remote functions")
    with pytest.raises(ValueError, match="5"):
        opts.validate({"fallback_strategy": [{"label_selector": 5}]}, opts.TASK, what="remote functions")


@pytest.mark.parametrize("labels", [{}, {"zone": "a"}, {"ray.io/zone": "us-west.2_b", "empty": ""}])
def test_labels_of_nodes(labels: dict[str, str]) -> None:
    opts.check_node_labels(labels)


@pytest.mark.parametrize(
    ("labels", "error"),
    [
        (5, TypeError),
        ({"a": 1}, TypeError),
        ({1: "a"}, TypeError),
        ({"$": "a"}, ValueError),
        ({"a": "b c"}, ValueError),
        ({"a": "!b"}, ValueError),
        ({"ray.io/node-id": "mine"}, ValueError),
    ],
)
def test_bad_labels_of_nodes(labels: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="labels"):
        opts.check_node_labels(labels)


@pytest.mark.parametrize(
    ("resources", "error"),
    [
        (5, TypeError),
        ({"x": "1"}, TypeError),
        ({"x": True}, TypeError),
        ({"x": 1.5}, ValueError),
        ({"x": -1}, ValueError),
        ({"x": float("nan")}, ValueError),
        ({"CPU": 1}, AssertionError),
    ],
    ids=repr,
)
def test_bad_resources_of_nodes(resources: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        opts.check_node_resources(resources)
