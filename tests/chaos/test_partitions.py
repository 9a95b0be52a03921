"""Cables are pulled for some seconds, again and again, while programs run that check themselves: all go on."""

from __future__ import annotations

import os
import pathlib
import random
from collections.abc import Iterator

import pytest
from chaos.harness import dump, run_chaos
from chaos.killers import Killer
from chaos.workloads import ActorStates, Borrowers, Shuffle, TaskGraph
from support.networks import Network, NotPermitted
from support.nodes import HandCluster

import ray

# A long run: RAY_CHAOS_SECONDS=1800 RAY_CHAOS_CUT=5 RAY_CHAOS_CUT_EVERY=60
SECONDS = float(os.environ.get("RAY_CHAOS_SECONDS", "14"))
CUT_S = float(os.environ.get("RAY_CHAOS_CUT", "2.5"))
EVERY_S = float(os.environ.get("RAY_CHAOS_CUT_EVERY", "5"))

pytestmark = pytest.mark.timeout(SECONDS + 240)


class Cuts(Killer):
    """Pulls the cable of one node, not the head, and plugs it in again: shorter than what a node is given up for."""

    least_s = most_s = EVERY_S - CUT_S

    def kill(self) -> bool:
        network = self.cluster.network
        node = 1 + self.rng.randrange(len(network.hosts) - 1)
        network.unplug(node)
        self._stopped.wait(CUT_S)
        network.plug(node)
        return True


@pytest.fixture
def cluster(tmp_path: pathlib.Path) -> Iterator[HandCluster]:
    try:
        network = Network(3)
    except NotPermitted as error:
        pytest.skip(str(error))
    (tmp_path / "c").mkdir()
    made = HandCluster(tmp_path / "c", network=network)
    for _ in range(3):
        made.add_raylet(cpus=2)
    made.connect()
    yield made
    made.close()
    network.close()
    assert network.left_over() == []


def test_programs_get_through_cuts(cluster: HandCluster, tmp_path: pathlib.Path) -> None:
    seed = os.environ.get("RAY_CHAOS_SEED") or str(random.randrange(1 << 30))
    print("RAY_CHAOS_SEED =", seed)
    nodes = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
    programs = (TaskGraph, ActorStates, Shuffle, Borrowers)
    outcome = run_chaos(cluster, programs, [Cuts], seed=seed, seconds=SECONDS, folder=tmp_path)
    print(outcome)
    if outcome.failures:
        dump(tmp_path, tmp_path / "chaos.dump")
    assert not outcome.failures, outcome
    assert all(outcome.rounds.values()) and outcome.kills["Cuts"] > 0
    assert {node["NodeID"] for node in ray.nodes() if node["Alive"]} == nodes, "none was given up"
