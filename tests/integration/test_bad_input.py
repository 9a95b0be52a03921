"""Bad input gets the error that the API names, where it is given, with the value and what is allowed in its text."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

import ray
from ray.actor import ActorClassInheritanceException
from ray.util.scheduling_strategies import (
    Exists,
    In,
    NodeAffinitySchedulingStrategy,
    NodeLabelSchedulingStrategy,
    NotIn,
)

Case = tuple[Callable[[], Any], type[BaseException], list[str]]


@ray.remote
def f(x: int = 0) -> int:
    return x


@ray.remote
def one(x: int) -> int:
    return x


@ray.remote
def generator() -> Iterator[int]:
    yield 1


@ray.remote
class A:
    def __init__(self, x: int = 0) -> None:
        self.x = x

    def m(self, x: int = 0) -> int:
        return x


class Holder:
    """Cannot be pickled, because of one member."""

    def __init__(self) -> None:
        self.the_lock = threading.Lock()


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    ray.init(num_cpus=2, logging_level="ERROR")
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def actor(cluster: None) -> Any:
    return A.remote()


def check(case: Case) -> None:
    call, error, words = case
    with pytest.raises(error) as caught:
        call()
    missing = [word for word in words if word not in str(caught.value)]
    assert not missing, f"{missing} not in: {caught.value}"


def subclass_of_actor() -> Any:
    class Derived(A):  # type: ignore[misc,valid-type]
        pass

    return Derived


def closure_over_a_lock() -> Any:
    the_lock = threading.Lock()
    return ray.remote(lambda: the_lock).remote()


def too_large() -> Any:
    blob = bytes(100_000_001)
    return ray.remote(lambda: len(blob)).remote()


async def items() -> AsyncIterator[int]:
    yield 1


CALLS: dict[str, Case] = {
    "call a task": (lambda: f(), TypeError, ["f.remote()"]),
    "instantiate an actor": (lambda: A(), TypeError, ["A.remote()"]),
    "derive from an actor": (subclass_of_actor, ActorClassInheritanceException, ["actor class A", "plain class"]),
    "argument missing": (lambda: one.remote(), TypeError, ["one()", "'x'"]),
    "argument too many": (lambda: one.remote(1, 2), TypeError, ["one()", "2"]),
    "argument unknown": (lambda: one.remote(1, y=2), TypeError, ["one()", "'y'"]),
    "constructor arguments": (lambda: A.remote(1, 2), TypeError, ["A.__init__()", "2"]),
    "remote of nothing": (lambda: ray.remote(), AssertionError, ["@ray.remote"]),
    "remote of both": (lambda: ray.remote(len, num_cpus=1), AssertionError, ["@ray.remote"]),
    "remote of a remote": (lambda: ray.remote(f), TypeError, ["remote already"]),
    "remote of an async generator": (lambda: ray.remote(items), ValueError, ["async", "actor"]),
    "remote of a number": (lambda: ray.remote(num_cpus=1)(3), TypeError, ["function or a class"]),
    "argument not serialisable": (lambda: f.remote(Holder()), TypeError, ["the_lock", "cannot pickle"]),
    "closure not serialisable": (closure_over_a_lock, TypeError, ["the_lock", "cannot pickle"]),
    "function too large": (too_large, ValueError, ["too large", "95 MiB", "ray.put"]),
    "get of a number": (lambda: ray.get(1), ValueError, ["int", "ObjectRef"]),
    "get of None": (lambda: ray.get(None), ValueError, ["NoneType", "ObjectRef"]),
    "get of a tuple": (lambda: ray.get((f.remote(),)), ValueError, ["tuple", "list of ObjectRefs"]),
    "get of a mixed list": (lambda: ray.get([f.remote(), 17]), TypeError, ["17", "ObjectRef"]),
    "get for a word": (lambda: ray.get(f.remote(), timeout="soon"), TypeError, ["timeout", "'soon'"]),
    "get for -2 s": (lambda: ray.get(f.remote(), timeout=-2), ValueError, ["timeout", "-2", "-1"]),
    "put of a ref": (lambda: ray.put(f.remote()), TypeError, ["ObjectRef", "list"]),
    "put not serialisable": (lambda: ray.put(Holder()), TypeError, ["the_lock", "cannot pickle"]),
    "put with an owner": (lambda: ray.put(1, _owner=1), ValueError, ["_owner"]),
    "wait for a ref": (lambda: ray.wait(f.remote()), TypeError, ["list", "ObjectRef"]),
    "wait for a number": (lambda: ray.wait([1]), TypeError, ["int", "ObjectRef"]),
    "wait for twice the same": (lambda: ray.wait([f.remote()] * 2), ValueError, ["unique"]),
    "wait for none": (lambda: ray.wait([f.remote()], num_returns=0), ValueError, ["0", "positive"]),
    "wait for too many": (lambda: ray.wait([f.remote()], num_returns=2), ValueError, ["2", "1"]),
    "wait for a word": (lambda: ray.wait([f.remote()], num_returns="all"), TypeError, ["num_returns", "'all'"]),
    "wait for -1 s": (lambda: ray.wait([f.remote()], timeout=-1), ValueError, ["timeout", "-1"]),
    "wait as long as a word": (lambda: ray.wait([f.remote()], timeout="x"), TypeError, ["timeout", "'x'"]),
    "kill a ref": (lambda: ray.kill(f.remote()), ValueError, ["actors", "ObjectRef"]),
    "kill a class": (lambda: ray.kill(A), ValueError, ["actors", "ActorClass"]),
    "cancel a number": (lambda: ray.cancel(5), TypeError, ["refs", "int"]),
    "get_actor of an unknown name": (lambda: ray.get_actor("nobody"), ValueError, ["'nobody'"]),
    "get_actor of no name": (lambda: ray.get_actor(""), ValueError, ["non-empty"]),
    "get_actor of a number": (lambda: ray.get_actor(1), TypeError, ["1", "string"]),
    "get_actor in no namespace": (lambda: ray.get_actor("x", namespace=""), ValueError, ["namespace"]),
    "exit_actor in a driver": (lambda: ray.actor.exit_actor(), TypeError, ["exit_actor"]),
    "iterate over a ref": (lambda: list(f.remote()), TypeError, ["ObjectRef", "ray.get"]),
    "init again": (lambda: ray.init(), RuntimeError, ["ignore_reinit_error"]),
    "an id of the wrong length": (lambda: ray.ObjectRef(b"x"), ValueError, ["28", "1"]),
    "a group with a number as name": (
        lambda: ray.util.placement_group([{"CPU": 1}], name=3),
        TypeError,
        ["name", "3"],
    ),
    "a method that is no generator": (
        lambda: ray.method(num_returns="streaming")(lambda self: 1),
        ValueError,
        ["'streaming'", "generator"],
    ),
    "too few values": (
        lambda: ray.get(ray.remote(num_returns=3)(lambda: (1, 2)).remote()),
        ValueError,
        ["Task returned 2 objects", "num_returns=3"],
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_calls(name: str) -> None:
    check(CALLS[name])


TASK_OPTIONS: dict[str, tuple[dict[str, Any], type[Exception], list[str]]] = {
    "unknown": ({"cpus": 1}, ValueError, ["'cpus'", "num_cpus"]),
    "of actors": ({"max_restarts": 1}, ValueError, ["'max_restarts'", "max_retries"]),
    "of the decorator": ({"max_calls": 1}, ValueError, ["'max_calls'", "decorator"]),
    "cpus negative": ({"num_cpus": -1}, ValueError, ["num_cpus", "-1"]),
    "cpus a word": ({"num_cpus": "1"}, TypeError, ["num_cpus", "'1'", "float"]),
    "cpus a bool": ({"num_cpus": True}, TypeError, ["num_cpus", "True"]),
    "cpus infinite": ({"num_cpus": float("inf")}, ValueError, ["num_cpus", "inf"]),
    "cpus too fine": ({"num_cpus": 0.00001}, ValueError, ["num_cpus", "0.0001"]),
    "gpus not whole": ({"num_gpus": 1.5}, ValueError, ["num_gpus", "1.5", "whole"]),
    "memory negative": ({"memory": -5}, ValueError, ["memory", "-5"]),
    "CPU as a resource": ({"resources": {"CPU": 1}}, ValueError, ["num_cpus"]),
    "memory as a resource": ({"resources": {"memory": 1}}, ValueError, ["memory"]),
    "bundle as a resource": ({"resources": {"bundle": 1}}, ValueError, ["bundle"]),
    "resource negative": ({"resources": {"x": -1}}, ValueError, ["'x'", "-1"]),
    "resource a word": ({"resources": {"x": "y"}}, TypeError, ["'x'", "'y'"]),
    "resources a list": ({"resources": ["x"]}, TypeError, ["resources", "dict", "['x']"]),
    "object_store_memory": ({"object_store_memory": 1}, ValueError, ["object_store_memory"]),
    "name a number": ({"name": 3}, TypeError, ["name", "3", "str"]),
    "num_returns negative": ({"num_returns": -1}, ValueError, ["num_returns", "-1"]),
    "num_returns a word": ({"num_returns": "many"}, ValueError, ["'many'", "'streaming'"]),
    "num_returns streaming": ({"num_returns": "streaming"}, ValueError, ["generator"]),
    "max_retries": ({"max_retries": -2}, ValueError, ["max_retries", "-2", "-1"]),
    "max_retries a word": ({"max_retries": "3"}, TypeError, ["max_retries", "'3'", "int"]),
    "retry_exceptions": ({"retry_exceptions": [1]}, ValueError, ["[1]", "exception classes"]),
    "retry_exceptions a number": ({"retry_exceptions": 2}, TypeError, ["retry_exceptions", "2"]),
    "strategy unknown": ({"scheduling_strategy": "PACK"}, ValueError, ["'PACK'", "'SPREAD'"]),
    "strategy a number": ({"scheduling_strategy": 3}, TypeError, ["3", "'SPREAD'"]),
    "label key": ({"label_selector": {"-a": "b"}}, ValueError, ["'-a'"]),
    "label condition": ({"label_selector": {"a": "in("}}, ValueError, ["'in('", "in(a,b)"]),
    "fallback": ({"fallback_strategy": [{}]}, ValueError, ["label_selector"]),
    "accelerator": ({"accelerator_type": 1}, TypeError, ["accelerator_type", "1"]),
    "runtime_env": ({"runtime_env": {"pip": []}}, ValueError, ["'pip'", "'env_vars'"]),
}


@pytest.mark.parametrize("name", TASK_OPTIONS)
def test_options_of_tasks_in_both_places(name: str) -> None:
    options, error, words = TASK_OPTIONS[name]
    check((lambda: f.options(**options), error, words))
    if name != "of the decorator":
        check((lambda: ray.remote(**options)(lambda: None), error, words))


ACTOR_OPTIONS: dict[str, tuple[dict[str, Any], type[Exception], list[str]]] = {
    "of tasks": ({"max_retries": 1}, ValueError, ["'max_retries'", "max_restarts"]),
    "groups": ({"concurrency_groups": {"a": 1}}, ValueError, ["'concurrency_groups'", "decorator"]),
    "no name": ({"name": ""}, ValueError, ["name", "''"]),
    "no namespace": ({"name": "x", "namespace": ""}, ValueError, ["namespace", "''"]),
    "lifetime": ({"lifetime": "forever"}, ValueError, ["'forever'", "'detached'"]),
    "get_if_exists": ({"get_if_exists": True}, ValueError, ["name", "get_if_exists"]),
    "max_restarts": ({"max_restarts": -2}, ValueError, ["max_restarts", "-2"]),
    "max_concurrency": ({"max_concurrency": -1}, ValueError, ["max_concurrency", "-1"]),
    "max_pending_calls": ({"max_pending_calls": -2}, ValueError, ["max_pending_calls", "-2"]),
    "order": ({"allow_out_of_order_execution": False, "max_concurrency": 2}, ValueError, ["max_concurrency"]),
}


@pytest.mark.parametrize("name", ACTOR_OPTIONS)
def test_options_of_actors(name: str) -> None:
    options, error, words = ACTOR_OPTIONS[name]
    check((lambda: A.options(**options).remote(), error, words))


def test_methods(actor: Any) -> None:
    cases: list[Case] = [
        (lambda: actor.m(), TypeError, ["m.remote()"]),
        (lambda: actor.nothing, AttributeError, ["'A'", "'nothing'"]),
        (lambda: actor.m.remote(1, 2), TypeError, ["m()", "2"]),
        (lambda: actor.m.options(cpus=1).remote(), TypeError, ["cpus", "num_returns"]),
        (lambda: actor.m.options(_num_objects_per_yield=1), ValueError, ["_num_objects_per_yield"]),
        (lambda: actor.m.options(num_returns="streaming").remote(), ValueError, ["generator"]),
        (lambda: actor.m.options(concurrency_group="x").remote(), ValueError, ["'x'"]),
        (lambda: actor.m.remote(Holder()), TypeError, ["the_lock"]),
        (lambda: ray.method(cpus=1), AssertionError, ["cpus", "num_returns"]),
        (lambda: ray.method(num_returns=-1), ValueError, ["num_returns", "-1"]),
        (lambda: ray.cancel(actor.m.remote(), force=True), ValueError, ["force"]),
    ]
    for case in cases:
        check(case)


def test_options_of_generators() -> None:
    check((lambda: generator.options(_generator_backpressure_num_objects=0), ValueError, ["0"]))


@pytest.mark.parametrize("conditions", [3, {"zone": "a"}, {1: Exists()}], ids=repr)
@pytest.mark.parametrize("parameter", ["hard", "soft"])
def test_label_strategies_take_names_and_operators_only(parameter: str, conditions: Any) -> None:
    arguments: dict[str, Any] = {"hard": None, parameter: conditions}
    check((lambda: NodeLabelSchedulingStrategy(**arguments), ValueError, [parameter]))


@pytest.mark.parametrize(
    ("node_id", "error"), [(None, TypeError), (3, TypeError), ("ab", ValueError), ("zz" * 28, ValueError)], ids=repr
)
def test_affinity_takes_the_hex_id_of_a_node_only(node_id: Any, error: type[Exception]) -> None:
    check((lambda: NodeAffinitySchedulingStrategy(node_id, soft=False), error, [repr(node_id)]))


def test_affinity_takes_an_id_in_capital_letters() -> None:
    node = ray.get_runtime_context().get_node_id().upper()
    strategy = NodeAffinitySchedulingStrategy(node, soft=False)
    assert ray.get(ray.remote(lambda: 1).options(scheduling_strategy=strategy).remote(), timeout=20) == 1


@pytest.mark.parametrize("operator", [In, NotIn])
@pytest.mark.parametrize("values", [(), (3,), ("a", None)], ids=repr)
def test_label_operators_take_strings_only(operator: Any, values: tuple[Any, ...]) -> None:
    check((lambda: operator(*values), ValueError, [operator.__name__, repr(values)]))


def test_a_name_is_taken_once() -> None:
    first = A.options(name="the one").remote()
    ray.get(first.m.remote())
    with pytest.raises(ray.exceptions.ActorAlreadyExistsError, match="the one") as caught:
        A.options(name="the one").remote()
    assert isinstance(caught.value, ValueError)
    same = A.options(name="the one", get_if_exists=True).remote()
    assert same == first


def test_too_many_calls_are_refused() -> None:
    class Slow:
        def wait(self, refs: list[Any]) -> None:
            ray.get(refs[0], timeout=20)

    gate = ray.remote(num_cpus=0, resources={"nowhere": 1})(lambda: None).remote()
    slow = ray.remote(Slow).options(max_pending_calls=2).remote()
    calls = [slow.wait.remote([gate]), slow.wait.remote([gate])]
    with pytest.raises(ray.exceptions.PendingCallsLimitExceeded, match="2"):
        slow.wait.remote([gate])
    without_limit = ray.remote(Slow).options(max_pending_calls=0, num_cpus=0).remote()
    calls += [without_limit.wait.remote([gate]) for _ in range(3)]
    ray.cancel(gate)
    del calls


def test_calls_with_more_arguments_or_results_than_a_message_has_room_for() -> None:
    @ray.remote
    class Counter:
        def count(self, *args: int) -> int:
            return len(args)

    @ray.remote
    def count(*args: int) -> int:
        return len(args)

    ref, actor = ray.put(1), Counter.remote()
    assert ray.get([actor.count.remote(*[ref] * 70_000), actor.count.remote(ref)], timeout=60) == [70_000, 1]
    assert ray.get([count.remote(*[ref] * 70_000), count.remote(ref)], timeout=60) == [70_000, 1]
    many = ray.remote(num_returns=70_000)(lambda: range(70_000)).remote()
    assert ray.get([many[0], many[-1]], timeout=60) == [0, 69_999]
    for call in (actor.count, count):
        with pytest.raises(ValueError, match=r"600000 object refs .*500000.* list"):
            call.remote(*[ref] * 600_000)
    assert ray.get([actor.count.remote(), count.remote()], timeout=30) == [0, 0]


def test_unknown_nodes_and_sessions() -> None:
    """Last in this file: the session is another afterwards."""
    old = A.remote()
    ray.get(old.m.remote())
    ray.shutdown()
    for call in (ray.nodes, ray.cluster_resources, ray.available_resources):
        with pytest.raises(ray.exceptions.RaySystemError, match=r"ray\.init"):
            call()
    ray.init(num_cpus=1, logging_level="ERROR")
    with pytest.raises(ray.exceptions.ActorHandleNotFoundError, match="another session"):
        ray.kill(old)
