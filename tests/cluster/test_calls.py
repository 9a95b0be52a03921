"""Calls, small objects and references between processes of different nodes."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from support.nodes import HandCluster
from support.processes import run_driver, wait_until

import ray


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HandCluster]:
    """Three nodes; this process is a driver on the first."""
    made = HandCluster(tmp_path_factory.mktemp("calls"))
    for _ in range(3):
        made.add_raylet(cpus=2)
    made.connect()
    yield made
    made.close()


@ray.remote(num_cpus=0)
class Echo:
    def __init__(self, start: int = 0) -> None:
        self.calls = start
        self.kept: object = None

    def node(self) -> str:
        return ray.get_runtime_context().get_node_id()

    def add(self, n: int = 1) -> int:
        self.calls += n
        return self.calls

    def echo(self, value: object) -> object:
        return value

    def keep(self, box: list[ray.ObjectRef]) -> None:
        self.kept = box

    def read_kept(self) -> object:
        return ray.get(self.kept[0])  # type: ignore[index]

    def make(self, value: object) -> list[ray.ObjectRef]:
        return [ray.put(value)]

    def fail(self) -> None:
        raise ValueError("on another node")

    def call(self, other: object) -> str:
        return ray.get(other.node.remote())  # type: ignore[attr-defined]

    def count(self, n: int) -> Iterator[int]:
        yield from range(n)

    async def sleep(self) -> None:
        import asyncio

        await asyncio.sleep(1000)


def on(node: int, **options: object) -> object:
    return Echo.options(resources={f"n{node}": 0.01}, **options).remote()


def test_actor_on_another_node_answers(cluster: HandCluster) -> None:
    actor = on(1)
    assert ray.get(actor.node.remote(), timeout=30) == cluster.node_id(1)
    assert ray.get([actor.add.remote() for _ in range(1000)], timeout=30) == list(range(1, 1001)), "in order"
    with pytest.raises(ValueError, match="on another node"):
        ray.get(actor.fail.remote(), timeout=30)


def test_values_up_to_the_inline_limit_travel(cluster: HandCluster) -> None:
    actor = on(1)
    for size in (0, 1, 10_000, 90_000):
        assert ray.get(actor.echo.remote(b"x" * size), timeout=30) == b"x" * size
    refs = [ray.put(b"y" * 50_000) for _ in range(50)]
    assert ray.get([actor.echo.remote(r) for r in refs], timeout=30) == [b"y" * 50_000] * 50


def test_actors_of_three_nodes_call_each_other(cluster: HandCluster) -> None:
    actors = [on(n) for n in range(3)]
    # One after the other: each runs one call at a time, and waits in it.
    got = [ray.get(a.call.remote(b), timeout=30) for a in actors for b in actors if a is not b]
    assert got == [cluster.node_id(j) for i in range(3) for j in range(3) if i != j]


def test_borrowed_refs_cross_nodes_and_are_freed(cluster: HandCluster) -> None:
    first, second = on(1), on(2)
    ref = ray.put("borrowed")
    ray.get(first.keep.remote([ref]), timeout=30)
    del ref
    assert ray.get(first.read_kept.remote(), timeout=30) == "borrowed", "its borrower holds it"
    # Owned by the first, passed by us to the second, and read there after we let go of it.
    box = ray.get(first.make.remote("made elsewhere"), timeout=30)
    ray.get(second.keep.remote(box), timeout=30)
    assert ray.get(box[0], timeout=30) == "made elsewhere"
    del box
    assert ray.get(second.read_kept.remote(), timeout=30) == "made elsewhere"


def test_generator_streams_over_nodes(cluster: HandCluster) -> None:
    actor = on(1)
    stream = actor.count.options(num_returns="streaming").remote(100)
    assert [ray.get(ref, timeout=30) for ref in stream] == list(range(100))


def test_cancel_reaches_another_node(cluster: HandCluster) -> None:
    actor = on(1)
    ref = actor.sleep.remote()
    assert ray.wait([ref], timeout=0.2)[0] == []
    ray.cancel(ref)
    with pytest.raises(ray.exceptions.TaskCancelledError):
        ray.get(ref, timeout=30)


def test_named_actor_is_found_from_another_node(cluster: HandCluster) -> None:
    actor = on(1, name="far")
    ray.get(actor.add.remote(41), timeout=30)

    @ray.remote(num_cpus=0)
    class Asker:
        def ask(self) -> int:
            return ray.get(ray.get_actor("far").add.remote())

    assert ray.get(Asker.options(resources={"n2": 0.01}).remote().ask.remote(), timeout=30) == 42


def test_end_of_a_remote_actor_is_noticed_fast(cluster: HandCluster) -> None:
    @ray.remote(num_cpus=0)
    class Suicide:
        def die(self) -> None:
            import os

            os._exit(1)

        def ping(self) -> None:
            pass

    victim = Suicide.options(resources={"n1": 0.01}).remote()
    ray.get(victim.ping.remote(), timeout=30)
    start = time.monotonic()
    with pytest.raises(ray.exceptions.ActorDiedError):
        ray.get(victim.die.remote(), timeout=30)
    assert time.monotonic() - start < 2


def test_restarted_actor_is_reached_again(cluster: HandCluster) -> None:
    @ray.remote(num_cpus=0, max_restarts=1, max_task_retries=1)
    class Phoenix:
        def pid(self) -> int:
            import os

            return os.getpid()

        def die(self) -> None:
            import os

            os._exit(1)

    actor = Phoenix.options(resources={"n1": 0.01}).remote()
    before = ray.get(actor.pid.remote(), timeout=30)
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(actor.die.options(max_task_retries=0).remote(), timeout=30)
    assert wait_until(lambda: ray.get(actor.pid.remote(), timeout=30) != before, 30, "it runs in another process")


def test_lines_printed_on_another_node_reach_the_driver(cluster: HandCluster) -> None:
    done = run_driver(
        f"""
        import sys, time, ray
        ray.init(address={cluster.driver_address(0)!r}, logging_level="ERROR")

        @ray.remote(num_cpus=0, resources={{"n1": 0.01}})
        class A:
            def shout(self):
                print("printed far away", flush=True)

        a = A.remote()
        ray.get(a.shout.remote())
        time.sleep(0.5)
        ray.shutdown()
        """
    )
    assert "printed far away" in done.stdout, done.stderr
