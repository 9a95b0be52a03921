"""`ray.util.state.explain` on one node: each thing that can be waited for, and what is said of it."""

from __future__ import annotations

import os
import pathlib
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from support.processes import wait_until

import ray
from ray.util import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy
from ray.util.state import Explanation, UnknownIdError, WaitState, explain


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    ray.init(num_cpus=2, resources={"slot": 1}, object_store_memory=100 << 20, logging_level="ERROR")
    yield
    ray.shutdown()


@pytest.fixture
def gate(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A file that tasks wait for; it is there after the test."""
    path = tmp_path / "gate"
    yield path
    path.touch()


@ray.remote(num_cpus=0)
def waits(gate: pathlib.Path, value: Any = None) -> Any:
    while not gate.exists():
        time.sleep(0.01)
    return value


@ray.remote(num_cpus=0)
def passes(value: Any) -> Any:
    return value


@ray.remote(num_cpus=0)
class Caller:
    def wait(self, gate: pathlib.Path) -> int:
        while not gate.exists():
            time.sleep(0.01)
        return os.getpid()

    def get(self, refs: list[Any], begun: pathlib.Path) -> Any:
        begun.touch()
        return ray.get(refs[0])

    def pid(self) -> int:
        return os.getpid()


def until(subject: Any, holds: Callable[[Explanation], bool]) -> Explanation:
    """Its explanation, once `holds` of it."""
    deadline = time.monotonic() + 20
    while True:
        found = explain(subject)
        if holds(found):
            return found
        assert time.monotonic() < deadline, f"not as expected within 20 s:\n{found}"
        time.sleep(0.01)


def in_state(state: WaitState) -> Callable[[Explanation], bool]:
    return lambda found: found.state is state


def task_in_state(state: WaitState) -> Callable[[Explanation], bool]:
    return lambda found: bool(found.waits_for) and found.waits_for[0].state is state


def test_values_that_are_there() -> None:
    small = explain(ray.put(1))
    assert (small.kind, small.state) == ("object", WaitState.READY)
    assert "in its owner's memory" in small.detail and small.unblock.startswith("nothing")
    large = explain(ray.put(np.zeros(1 << 20, np.uint8)))
    assert large.state is WaitState.READY and large.detail == "in shared memory"
    assert large.node_id == ray.get_runtime_context().get_node_id()
    assert large.owner_id == ray.get_runtime_context().get_worker_id()


def test_an_error_is_told() -> None:
    actor = Caller.remote()
    ray.get(actor.pid.remote())
    ray.kill(actor)
    with pytest.raises(ray.exceptions.ActorDiedError):
        while True:  # a call that was faster than the kill is answered
            ref = actor.pid.remote()
            ray.get(ref, timeout=20)
    found = explain(ref)
    assert found.state is WaitState.FAILED and "ray.kill" in found.detail


def test_a_running_task_says_where_it_runs(gate: pathlib.Path) -> None:
    began = time.time()
    ref = waits.remote(gate)
    found = until(ref, task_in_state(WaitState.RUNNING))
    assert found.state is WaitState.PENDING
    (task,) = found.waits_for
    assert task.kind == "task" and task.name.endswith("waits") and task.id == ref.task_id().hex()
    assert task.node_id == ray.get_runtime_context().get_node_id() and task.pid and task.pid != os.getpid()
    assert task.since is not None and began - 1 < task.since < time.time() + 1
    assert explain(ref.task_id()).state is WaitState.RUNNING
    assert explain(ref.task_id().hex()).pid == task.pid
    gate.touch()
    ray.get(ref, timeout=20)
    assert explain(ref.task_id()).state is WaitState.FINISHED


def test_a_chain_of_arguments_is_followed(gate: pathlib.Path) -> None:
    first = waits.remote(gate)
    last = passes.remote(passes.remote(first))
    found = until(last, lambda e: len(e.chain()) == 6 and e.chain()[-1].state is WaitState.RUNNING)
    assert [(e.kind, e.state) for e in found.chain()] == [
        ("object", WaitState.PENDING),
        ("task", WaitState.WAITING_FOR_ARGUMENTS),
        ("object", WaitState.PENDING),
        ("task", WaitState.WAITING_FOR_ARGUMENTS),
        ("object", WaitState.PENDING),
        ("task", WaitState.RUNNING),
    ]
    text = str(found)
    assert text.count("waits for:") == 5 and first.hex() in text


def test_a_task_that_finds_the_node_full(gate: pathlib.Path) -> None:
    holders = [waits.options(num_cpus=1).remote(gate) for _ in range(2)]
    for holder in holders:
        until(holder, task_in_state(WaitState.RUNNING))
    waiting = [waits.options(num_cpus=2).remote(gate) for _ in range(2)]
    task = until(
        waiting[1], lambda e: task_in_state(WaitState.WAITING_FOR_LEASE)(e) and bool(e.waits_for[0].available)
    ).waits_for[0]
    assert task.need == {"CPU": 2.0} and task.available["slot"] == 1.0 and "CPU" not in task.available
    assert task.total["CPU"] == 2.0
    assert "not enough CPU is free" in task.detail and "{CPU: 2} becoming free" in task.unblock
    assert task.node_id == ray.get_runtime_context().get_node_id()


def test_a_task_that_no_node_can_run() -> None:
    ref = passes.options(resources={"unobtainium": 3}).remote(1)
    task = until(ref, task_in_state(WaitState.INFEASIBLE)).waits_for[0]
    assert task.need == {"unobtainium": 3.0} and "unobtainium: 3" in task.unblock and "joining" in task.unblock
    ray.cancel(ref)


def test_a_task_that_is_blocked_in_get(gate: pathlib.Path) -> None:
    inner = waits.remote(gate)

    @ray.remote(num_cpus=0)
    def outer(refs: list[Any]) -> Any:
        return ray.get(refs[0])

    ref = outer.remote([inner])
    found = until(
        ref,
        lambda e: (
            task_in_state(WaitState.BLOCKED)(e) and len(e.chain()) == 4 and e.chain()[3].state is WaitState.RUNNING
        ),
    )
    assert [(e.kind, e.state) for e in found.chain()[1:]] == [
        ("task", WaitState.BLOCKED),
        ("object", WaitState.PENDING),
        ("task", WaitState.RUNNING),
    ]
    assert found.chain()[2].id == inner.hex()


def test_a_call_behind_others_of_its_actor(gate: pathlib.Path) -> None:
    actor = Caller.remote()
    refs = [actor.wait.remote(gate) for _ in range(3)]
    found = until(refs[2], lambda e: task_in_state(WaitState.QUEUED_AT_WORKER)(e) and len(e.chain()) == 3)
    call = found.waits_for[0]
    assert call.ahead == 2 and "behind 2 other(s)" in str(found)
    # What the actor does instead is told, too.
    assert call.waits_for[0].id == refs[0].task_id().hex() and call.waits_for[0].state is WaitState.RUNNING
    pid = ray.get(Caller.options(max_concurrency=1).remote().pid.remote(), timeout=20)
    assert explain(actor).state is WaitState.ALIVE and explain(actor).pid not in (0, pid)


def test_calls_in_a_circle_are_called_a_deadlock(gate: pathlib.Path) -> None:
    actor = Caller.remote()

    @ray.remote(num_cpus=0)
    def calls_back(handle: Any, begun: pathlib.Path) -> Any:
        while not begun.exists():
            time.sleep(0.01)
        return ray.get(handle.pid.remote())

    begun = gate.with_name("begun")
    ref = actor.get.remote([calls_back.remote(actor, begun)], begun)
    found = until(ref, lambda e: "deadlock" in str(e))
    assert [e.kind for e in found.chain()] == ["object", "task", "object", "task", "object", "task", "task"]
    ray.kill(actor)


def test_an_actor_that_no_node_can_take() -> None:
    actor = Caller.options(resources={"unobtainium": 1}).remote()
    ref = actor.pid.remote()
    found = until(ref, lambda e: len(e.chain()) == 3 and bool(e.chain()[2].need))
    object_, task, waited = found.chain()
    assert task.state is WaitState.WAITING_FOR_ACTOR and object_.state is WaitState.PENDING
    assert waited.kind == "actor" and waited.state is WaitState.PENDING_CREATION
    assert waited.name == "Caller" and waited.need == {"unobtainium": 1.0} and waited.total["slot"] == 1.0
    assert explain(actor).id == waited.id == actor._actor_id.hex()
    ray.kill(actor)


def test_an_actor_whose_constructor_waits_for_an_argument(gate: pathlib.Path) -> None:
    @ray.remote(num_cpus=0)
    class Needs:
        def __init__(self, value: Any) -> None: ...

    actor = Needs.remote(waits.remote(gate))
    found = until(actor, lambda e: len(e.chain()) == 3 and e.chain()[2].state is WaitState.RUNNING)
    assert found.state is WaitState.DEPENDENCIES_UNREADY


def test_an_actor_whose_constructor_runs(gate: pathlib.Path) -> None:
    @ray.remote(num_cpus=0)
    class Slow:
        def __init__(self, gate: pathlib.Path) -> None:
            while not gate.exists():
                time.sleep(0.01)

    actor = Slow.remote(gate)
    found = until(actor, lambda e: bool(e.waits_for) and e.waits_for[0].state is WaitState.RUNNING)
    assert found.state is WaitState.PENDING_CREATION and found.pid == found.waits_for[0].pid


def test_a_dead_actor_says_of_what() -> None:
    actor = Caller.options(max_restarts=0).remote()
    os.kill(ray.get(actor.pid.remote(), timeout=20), signal.SIGKILL)
    found = until(actor, in_state(WaitState.DEAD))
    assert "signal 9" in found.detail and found.unblock == "nothing: it is dead for good"


def test_a_placement_group_names_the_bundle_that_does_not_fit() -> None:
    group = placement_group([{"CPU": 1}, {"slot": 2}])
    found = until(group, lambda e: bool(e.need))
    assert (found.kind, found.state) == ("placement group", WaitState.PENDING)
    assert found.detail.startswith("bundle 1: ") and found.need == {"slot": 2.0}
    assert explain(group.id.hex()).need == {"slot": 2.0}
    strategy = PlacementGroupSchedulingStrategy(group)
    ref = passes.options(num_cpus=1, scheduling_strategy=strategy).remote(1)
    chain = until(ref, lambda e: len(e.chain()) == 3).chain()
    assert chain[1].state is WaitState.WAITING_FOR_PLACEMENT_GROUP and chain[2].id == group.id.hex()
    remove_placement_group(group)
    assert until(group, in_state(WaitState.REMOVED)).unblock == "nothing: it was removed"


def test_a_placed_group() -> None:
    group = placement_group([{"CPU": 1}])
    ray.get(group.ready(), timeout=20)
    assert explain(group).state is WaitState.CREATED
    remove_placement_group(group)


def test_an_object_that_was_spilled() -> None:
    refs = [ray.put(np.zeros(20 << 20, np.uint8)) for _ in range(6)]
    wait_until(lambda: any(explain(ref).state is WaitState.SPILLED for ref in refs), 30, "one was spilled")
    spilled = next(found for found in map(explain, refs) if found.state is WaitState.SPILLED)
    assert spilled.detail == "spilled to disk" and spilled.unblock.startswith("nothing")


def test_a_ref_that_a_task_holds_is_found_through_the_cluster(gate: pathlib.Path) -> None:
    @ray.remote(num_cpus=0)
    def owns(gate: pathlib.Path, note: pathlib.Path) -> None:
        inner = waits.remote(gate)
        note.with_suffix(".new").write_text(inner.hex())
        note.with_suffix(".new").rename(note)
        ray.get(inner)

    note = gate.parent / "note"
    ref = owns.remote(gate, note)
    wait_until(note.exists, 20, "the inner task was submitted")
    found = until(note.read_text(), task_in_state(WaitState.RUNNING))
    assert found.owner_id == explain(ref).waits_for[0].worker_id
    gate.touch()
    ray.get(ref, timeout=20)


@pytest.mark.parametrize("bad", ["", "xyz", "abcd", "0" * 40])
def test_text_that_is_no_id(bad: str) -> None:
    with pytest.raises(ValueError, match="is not an id"):
        explain(bad)


@pytest.mark.parametrize("bad", [None, 7, object(), [1]])
def test_things_that_name_nothing(bad: Any) -> None:
    with pytest.raises(TypeError, match="Expected an ObjectRef"):
        explain(bad)


@pytest.mark.parametrize("digits", [56, 48, 36, 32])
def test_ids_that_nobody_knows(digits: int) -> None:
    with pytest.raises(UnknownIdError, match="No process of the cluster knows"):
        explain("ab" * (digits // 2))


def test_the_id_of_a_node_is_called_so() -> None:
    with pytest.raises(ValueError, match="the id of a node"):
        explain(ray.get_runtime_context().get_node_id())


@pytest.mark.parametrize("bad", [0, -1, "1", None, True])
def test_bad_timeouts(bad: Any) -> None:
    with pytest.raises(ValueError, match="timeout"):
        explain(ray.put(1), timeout=bad)
