"""Programs that check their own results: whatever is killed while they run, nothing in them may fail."""

from __future__ import annotations

import os
import pathlib
import random
import time
import uuid
from typing import Any

import numpy as np

import ray
from ray.experimental.internal_kv import _internal_kv_del, _internal_kv_get, _internal_kv_put
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

FOR_EVER: Any = {"max_retries": -1}
LARGE = 200_000  # bytes: above what travels inline, so in a store, and lost with it


class Workload:
    """One program. `run_round` is called again and again, and raises when something is wrong.

    Attributes:
        deadline_s: what a single wait may take: longer is taken for a hang.
    """

    def __init__(self, rng: random.Random, folder: pathlib.Path, deadline_s: float) -> None:
        self.rng = rng
        self.folder = folder
        self.deadline_s = deadline_s
        self.rounds = 0

    def get(self, refs: Any) -> Any:
        return ray.get(refs, timeout=self.deadline_s)

    def run_round(self) -> None:
        raise NotImplementedError

    def end(self) -> None:
        """Lets go of what it has."""


@ray.remote(**FOR_EVER)
def leaf(n: int, size: int) -> bytes:
    time.sleep(0.002)
    return bytes([n % 256]) * size


@ray.remote(**FOR_EVER)
def add(*parts: bytes) -> bytes:
    return bytes([sum(part[0] for part in parts) % 256]) * 100


@ray.remote(**FOR_EVER)
def nested(n: int, deadline_s: float) -> bytes:
    return ray.get(add.remote(*[leaf.remote(n + i, 100) for i in range(3)]), timeout=deadline_s)


class TaskGraph(Workload):
    """Trees of tasks, small and large values, tasks that wait for tasks of their own."""

    def run_round(self) -> None:
        start = self.rng.randrange(1000)
        sums = [
            add.remote(*[leaf.remote(n + i, self.rng.choice((100, LARGE))) for i in range(4)])
            for n in range(start, start + 8)
        ]
        deep = [nested.remote(n, self.deadline_s) for n in range(start, start + 3)]
        for n, ref in enumerate(sums, start):
            assert self.get(ref)[0] == (4 * n + 6) % 256
        for n, ref in enumerate(deep, start):
            assert self.get(ref)[0] == (3 * n + 3) % 256


class Ledger:
    """Sums up what its callers tell it, and writes it down, so that the next incarnation goes on from there.

    A call that was carried out and whose answer was lost comes again; it gets the same answer, and counts once. What is
    checked here: calls of one caller come in their order, and no incarnation writes after a later one has begun.
    """

    def __init__(self, path: str) -> None:
        self.balances: dict[str, list[int]] = {}
        self.incarnation = uuid.uuid4().hex
        if os.path.exists(path):
            for line in pathlib.Path(path).read_text().splitlines():
                words = line.split()
                if words[0] != "began":
                    self._add(words[1], int(words[2]))
        self.fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(self.fd, f"began {self.incarnation}\n".encode())

    def _add(self, caller: str, amount: int) -> None:
        balances = self.balances.setdefault(caller, [0])
        balances.append(balances[-1] + amount)

    def apply(self, caller: str, number: int, amount: int) -> int:
        """The caller's balance after its call of that number (1, 2, ...)."""
        done = len(self.balances.setdefault(caller, [0])) - 1
        assert number <= done + 1, f"call {number} of {caller} came when {done} had been carried out"
        if number == done + 1:
            os.write(self.fd, f"{self.incarnation} {caller} {amount}\n".encode())
            self._add(caller, amount)
        return self.balances[caller][number]

    def pid(self) -> int:
        return os.getpid()


def check_ledger(path: pathlib.Path, balances: dict[str, int]) -> int:
    """That the file says so, and that incarnations follow each other; how many there were."""
    current, began, sums = "", [], dict.fromkeys(balances, 0)
    for line in path.read_text().splitlines():
        first, second, *rest = line.split()
        if first == "began":
            current = second
            began.append(second)
        else:
            assert first == current, "an incarnation wrote when a later one had begun"
            sums[second] += int(rest[0])
    assert len(set(began)) == len(began)
    assert sums == balances, (sums, balances)
    return len(began)


class ActorStates(Workload):
    """Actors with state that outlives their processes, called in pipelines."""

    def __init__(self, rng: random.Random, folder: pathlib.Path, deadline_s: float) -> None:
        super().__init__(rng, folder, deadline_s)
        self._begin()

    def _begin(self) -> None:
        options: Any = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1}
        actor = ray.remote(**options)(Ledger)
        self.paths = [self.folder / f"ledger-{self.rounds}-{n}" for n in range(2)]
        self.actors = [actor.remote(str(path)) for path in self.paths]
        self.balances = [0, 0]
        self.numbers = [0, 0]

    def run_round(self) -> None:
        # An incarnation reads the whole ledger first. After half an hour that takes longer than killers let it live.
        self.rounds += 1
        if self.rounds % 500 == 0:
            self.end()
            self._begin()
        sent = []
        for _ in range(30):
            n = self.rng.randrange(2)
            amount = self.rng.randrange(1000)
            self.numbers[n] += 1
            self.balances[n] += amount
            sent.append((self.actors[n].apply.remote("driver", self.numbers[n], amount), self.balances[n]))
        for ref, balance in sent:
            assert self.get(ref) == balance

    def end(self) -> None:
        for path, balance in zip(self.paths, self.balances, strict=True):
            check_ledger(path, {"driver": balance})
            path.unlink()
        for actor in self.actors:
            ray.kill(actor)
        self.actors = []


@ray.remote(**FOR_EVER)
def count_up(seed: int, items: int) -> Any:
    rng = random.Random(seed)
    for n in range(items):
        yield (n, bytes([n % 256]) * rng.choice((10, LARGE)))


class Streams(Workload):
    """Generators that are consumed while they produce; two at a time."""

    def run_round(self) -> None:
        seed = self.rng.randrange(1 << 20)
        streams = [count_up.remote(seed + i, 12) for i in range(2)]
        for stream in streams:
            got = []
            while True:
                ready, _ = ray.wait([stream], timeout=self.deadline_s, fetch_local=False)
                assert ready, "no item in time"
                try:
                    ref = next(stream)
                except StopIteration:
                    break
                n, filling = self.get(ref)
                assert filling[0] == n % 256 and filling[-1] == n % 256
                got.append(n)
            assert got == list(range(12)), got


@ray.remote(num_cpus=1, **FOR_EVER)
def where(n: int) -> tuple[int, str]:
    return n, ray.get_runtime_context().get_node_id()


class PlacementGroups(Workload):
    """Groups that are placed, used and removed, and one that stays, wherever its bundles have to go."""

    def __init__(self, rng: random.Random, folder: pathlib.Path, deadline_s: float) -> None:
        super().__init__(rng, folder, deadline_s)
        self.lasting = ray.util.placement_group([{"CPU": 1}], strategy="SPREAD")

    def _run_in(self, group: Any, bundle: int) -> str:
        n = self.rng.randrange(1000)
        in_bundle = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=bundle)
        answer, node = self.get(where.options(scheduling_strategy=in_bundle).remote(n))
        assert answer == n
        return str(node)

    def run_round(self) -> None:
        group = ray.util.placement_group([{"CPU": 1}, {"CPU": 1}], strategy=self.rng.choice(("PACK", "SPREAD")))
        try:
            assert group.wait(self.deadline_s), "not placed in time"
            for bundle in range(2):
                self._run_in(group, bundle)
        finally:
            ray.util.remove_placement_group(group)
        self._run_in(self.lasting, 0)

    def end(self) -> None:
        ray.util.remove_placement_group(self.lasting)


def rows(seed: int, part: int) -> np.ndarray:
    return np.random.default_rng([seed, part]).integers(0, 1 << 40, 60_000, dtype=np.uint64)


@ray.remote(**FOR_EVER)
def split(seed: int, part: int, ways: int) -> Any:
    values = rows(seed, part)
    return [values[values % ways == way] for way in range(ways)]


@ray.remote(**FOR_EVER)
def merge(way: int, ways: int, *parts: np.ndarray) -> tuple[int, int]:
    assert all((part % ways == way).all() for part in parts)
    return sum(len(part) for part in parts), int(sum(int(part.sum()) for part in parts))


class Shuffle(Workload):
    """Everything from everywhere to everywhere, through the stores."""

    PARTS, WAYS = 4, 3

    def run_round(self) -> None:
        seed = self.rng.randrange(1 << 20)
        parts = [split.options(num_returns=self.WAYS).remote(seed, part, self.WAYS) for part in range(self.PARTS)]
        merged = [merge.remote(way, self.WAYS, *[part[way] for part in parts]) for way in range(self.WAYS)]
        del parts
        got = self.get(merged)
        values = [rows(seed, part) for part in range(self.PARTS)]
        assert sum(count for count, _ in got) == sum(map(len, values))
        assert sum(total for _, total in got) == sum(int(v.sum()) for v in values)


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)
class Named:
    def __init__(self, value: int) -> None:
        self.value = value

    def get(self) -> int:
        return self.value


class Names(Workload):
    """Named actors that come and go, and keys: what the GCS has acknowledged stays so."""

    def run_round(self) -> None:
        name = f"chaos-{self.rng.randrange(1 << 40)}"
        value = self.rng.randrange(1000)
        _internal_kv_put(name, str(value), namespace="chaos")
        actor = Named.options(name=name, lifetime="detached").remote(value)
        assert self.get(actor.get.remote()) == value
        assert self.get(ray.get_actor(name).get.remote()) == value
        assert _internal_kv_get(name, namespace="chaos") == str(value).encode()
        ray.kill(actor)
        deadline = time.monotonic() + self.deadline_s
        while True:
            try:
                ray.get_actor(name)
            except ValueError:
                break
            assert time.monotonic() < deadline, "an actor that was killed keeps its name"
            time.sleep(0.01)
        _internal_kv_del(name, namespace="chaos")
        assert _internal_kv_get(name, namespace="chaos") is None


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)
class Forwarder:
    def pass_on(self, key: int, box: list[ray.ObjectRef]) -> Any:
        """A task of its own reads what it was lent."""
        return ray.get(measure.remote(key, box), timeout=60)


@ray.remote(num_cpus=0, **FOR_EVER)
def measure(key: int, box: list[ray.ObjectRef]) -> tuple[int, list[tuple[int, int]]]:
    return key, [(len(value), value[-1]) for value in ray.get(box, timeout=60)]


class Borrowers(Workload):
    """Refs inside of values, handed on from process to process, while their owner lets go of its own."""

    def __init__(self, rng: random.Random, folder: pathlib.Path, deadline_s: float) -> None:
        super().__init__(rng, folder, deadline_s)
        self.forwarder = Forwarder.remote()

    def run_round(self) -> None:
        sent = []
        for _ in range(2):
            key = self.rng.randrange(1 << 30)
            sizes = [self.rng.choice((10, LARGE)) for _ in range(3)]
            box = [leaf.remote(key + n, size) for n, size in enumerate(sizes)]
            sent.append((self.forwarder.pass_on.remote(key, box), key, sizes))
            del box
        for answer, key, sizes in sent:
            got = self.get(answer)
            assert got == (key, [(size, (key + n) % 256) for n, size in enumerate(sizes)]), (got, key, sizes)

    def end(self) -> None:
        ray.kill(self.forwarder)


ALL: tuple[type[Workload], ...] = (TaskGraph, ActorStates, Streams, PlacementGroups, Shuffle, Names, Borrowers)
