"""ray.util.chaos kills what its rules say, and nothing else; programs get through."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from support.actors import Counting
from support.processes import alive, wait_until

import ray
from ray.cluster_utils import Cluster
from ray.util import chaos

EXAMPLES = pathlib.Path(__file__).parents[2] / "docs" / "user" / "examples"


@pytest.fixture
def one_node() -> Iterator[None]:
    ray.init(num_cpus=2, logging_level="ERROR", log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    monkeypatch.setenv("RAY_gcs_storage", "sqlite")
    made = Cluster()
    made.add_node(num_cpus=1, node_name="head")
    made.add_node(num_cpus=1, resources={"far": 10}, node_name="far")
    ray.init(address=made.address, logging_level="ERROR", log_to_driver=False)
    yield made
    ray.shutdown()
    made.shutdown()


@ray.remote(max_retries=-1)
def hold(path: str) -> int:
    while not os.path.exists(path):
        time.sleep(0.01)
    return os.getpid()


@ray.remote(max_retries=-1)
def other(path: str) -> int:
    while not os.path.exists(path):
        time.sleep(0.01)
    return os.getpid()


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)
class Actor(Counting):
    pass


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)
class Bystander(Counting):
    pass


def test_the_worker_that_runs_a_task_of_that_name_is_killed(one_node: None, tmp_path: pathlib.Path) -> None:
    go = tmp_path / "go"
    held, left = hold.remote(str(go)), other.remote(str(go))
    killed = chaos.kill(chaos.KillWorker(name="ho*d"))
    assert killed.kind == "worker" and killed.name == "hold"
    wait_until(lambda: not alive(killed.pid), 10, "it is gone")
    go.touch()
    pids = ray.get([held, left], timeout=30)
    assert killed.pid not in pids, "it ran again elsewhere"


def test_what_is_not_there_is_told(one_node: None, tmp_path: pathlib.Path) -> None:
    go = tmp_path / "go"
    held = hold.remote(str(go))
    actor = Actor.remote()
    assert ray.get(actor.add.remote(), timeout=30) == 1
    with pytest.raises(chaos.NothingToKillError, match=r"running \['hold'\].*1 actors \(Actor\)"):
        chaos.kill(chaos.KillWorker(name="nobody"), timeout_s=0)
    with pytest.raises(chaos.NothingToKillError, match="0 of them neither the head"):
        chaos.kill(chaos.KillNode(), timeout_s=0)
    with pytest.raises(chaos.NothingToKillError):
        chaos.kill(chaos.KillActor(class_name="Nobody"), timeout_s=0)
    with pytest.raises(chaos.NothingToKillError):
        chaos.kill(chaos.KillActor(node="00000000"), timeout_s=0)
    go.touch()
    ray.get(held, timeout=30)
    assert ray.get(actor.add.remote(), timeout=30) == 2, "nothing was killed"


def test_actors_are_chosen_by_class_and_name(one_node: None) -> None:
    spared = [Bystander.remote(), Actor.options(name="b").remote()]
    victim = Actor.options(name="a").remote()
    pids = ray.get([actor.pid.remote() for actor in (*spared, victim)], timeout=30)
    killed = chaos.kill(chaos.KillActor(class_name="Act*", name="a"))
    assert (killed.kind, killed.name, killed.pid) == ("actor", "a", pids[2])
    assert killed.actor_id == victim._actor_id.hex()
    assert ray.get([actor.pid.remote() for actor in spared], timeout=30) == pids[:2]
    assert ray.get(victim.pid.remote(), timeout=30) != pids[2]


def test_a_kill_counts_as_a_crash(one_node: None) -> None:
    actor = Actor.options(max_restarts=0, max_task_retries=0).remote()
    ray.get(actor.add.remote(), timeout=30)
    chaos.kill(chaos.KillActor())
    with pytest.raises(ray.exceptions.ActorDiedError, match=r"ray\.util\.chaos"):
        ray.get(actor.add.remote(), timeout=30)


def test_calls_are_counted(one_node: None) -> None:
    actor = Actor.remote()
    with chaos.inject(chaos.KillActor(every_calls=10, calls="Actor.add"), seed=1) as injection:
        for kills in range(1, 4):
            for _ in range(10):
                ray.get(actor.add.remote(), timeout=30)
                ray.get(actor.pid.remote(), timeout=30)  # not counted
            assert injection.wait(kills, timeout_s=30).count("actor") == kills
    ray.get(actor.add.remote(), timeout=30)
    for _ in range(20):
        ray.get(actor.add.remote(), timeout=30)
    assert len(injection.report.kills) == 3, "after its end nothing is killed"


def test_rules_by_the_clock_end_after_so_many_kills(one_node: None, tmp_path: pathlib.Path) -> None:
    go = tmp_path / "go"
    rule = chaos.KillWorker(name="hold", every_s=0.1, jitter_s=0.05, max_kills=3)
    with chaos.inject(rule, seed=2) as injection:
        held = hold.remote(str(go))
        report = injection.wait(3, timeout_s=60)
        go.touch()
        ray.get(held, timeout=30)
        with pytest.raises(chaos.NothingToKillError, match="3 of 4"):
            injection.wait(4, timeout_s=0.3)
    assert len({kill.pid for kill in report.kills}) == 3
    at = [kill.at_s for kill in report.kills]
    assert at == sorted(at) and at[0] >= 0.05


def test_one_injection_at_a_time(one_node: None) -> None:
    rule = chaos.KillWorker(every_s=100)
    with chaos.inject(rule) as injection:
        with pytest.raises(RuntimeError, match="Another injection"):
            with chaos.inject(rule):
                pass
    with pytest.raises(RuntimeError, match="once only"):
        with injection:
            pass
    with chaos.inject(rule):
        pass
    assert "ray-chaos" not in {thread.name for thread in threading.enumerate()}


def test_the_end_of_the_session_is_the_end_of_its_rules() -> None:
    ray.init(num_cpus=1, logging_level="ERROR")
    with chaos.inject(chaos.KillWorker(every_s=0.05), seed=3) as injection:
        ray.shutdown()
        with pytest.raises(chaos.NothingToKillError, match="ended"):
            injection.wait(1, timeout_s=0.3)
    assert injection.report.kills == ()


def test_nodes_die_and_others_take_their_place(cluster: Cluster) -> None:
    actor = Actor.options(resources={"far": 1}).remote()
    first = ray.get(actor.node.remote(), timeout=30)
    came: list[Any] = []

    def another(kill: chaos.Kill) -> None:
        came.append((kill, cluster.add_node(num_cpus=1, resources={"far": 10})))

    killed = chaos.kill(chaos.KillNode(node_name="far", then=another))
    assert (killed.kind, killed.node_id, killed.name) == ("node", first, "far")
    assert came[0][0] == killed
    assert not next(n for n in ray.nodes() if n["NodeID"] == first)["Alive"]
    assert ray.get(actor.node.remote(), timeout=30) == came[0][1].node_id
    with pytest.raises(chaos.NothingToKillError, match="1 of them neither"):
        chaos.kill(chaos.KillNode(node_name="head"), timeout_s=0)


def test_what_then_raises_is_told_at_the_end(cluster: Cluster) -> None:
    def fail(kill: chaos.Kill) -> None:
        raise LookupError("no more nodes")

    with pytest.raises(LookupError, match="no more nodes"):
        with chaos.inject(chaos.KillNode(every_s=0.05, then=fail)) as injection:
            injection.wait(1, timeout_s=30)


def test_workers_of_other_nodes_and_the_gcs(cluster: Cluster, tmp_path: pathlib.Path) -> None:
    go = tmp_path / "go"
    far = hold.options(resources={"far": 1}, num_cpus=0).remote(str(go))
    rules = (
        chaos.KillWorker(name="hold", every_s=0.2, max_kills=2),
        chaos.KillGcs(cluster=cluster, every_s=0.3, down_s=0.2, max_kills=2),
    )
    with chaos.inject(*rules, seed=4) as injection:
        report = injection.wait(4, timeout_s=60)
    assert report.count("worker") == report.count("gcs") == 2
    assert {kill.node_id for kill in report.kills if kill.kind == "worker"} == {cluster.list_all_nodes()[1].node_id}
    go.touch()
    ray.get(far, timeout=30)
    assert ray.get(Actor.remote().add.remote(), timeout=30) == 1, "the GCS is there again"
    assert chaos.kill(chaos.KillGcs(cluster=cluster)).kind == "gcs"
    assert ray.get(Actor.remote().add.remote(), timeout=30) == 1


def test_the_example_runs() -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "chaos.py"), "--seed", "11"],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert re.search(r"all 200 results are right", done.stdout)
    assert re.search(r"\d+ kills in", done.stdout)
