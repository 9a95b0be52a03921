"""Processes of all kinds are killed at random while programs run that check themselves: nothing is wrong or hangs."""

from __future__ import annotations

import os
import pathlib
import random
from collections.abc import Iterator

import pytest
from chaos.harness import dump, open_descriptors, run_chaos, wait_idle
from chaos.killers import ALL as ALL_KILLERS
from chaos.killers import ChaosCluster, sockets_below
from chaos.workloads import ALL as ALL_WORKLOADS
from support.processes import descendants, session_processes, wait_until

import ray

SECONDS = float(os.environ.get("RAY_CHAOS_SECONDS", "20"))

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def cluster(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ChaosCluster]:
    monkeypatch.setenv("RAY_gcs_storage", "sqlite")
    shared = set(os.listdir("/dev/shm"))
    made = ChaosCluster(2)
    ray.init(address=made.cluster.address, namespace="chaos", logging_level="ERROR", log_to_driver=False)
    yield made
    ray.shutdown()
    made.cluster.shutdown()
    wait_until(lambda: not descendants(os.getpid()), 20, "no process is left")
    assert session_processes(str(tmp_path)) == []
    assert sockets_below(tmp_path) == []
    assert set(os.listdir("/dev/shm")) <= shared


def test_programs_are_right_whoever_dies(cluster: ChaosCluster, tmp_path: pathlib.Path) -> None:
    seed = os.environ.get("RAY_CHAOS_SEED") or str(random.randrange(1 << 30))
    print("RAY_CHAOS_SEED =", seed)
    before = open_descriptors()
    outcome = run_chaos(cluster, ALL_WORKLOADS, ALL_KILLERS, seed=seed, seconds=SECONDS, folder=tmp_path)
    print(outcome)
    if outcome.failures:
        dump(tmp_path, tmp_path / "chaos.dump")
    assert not outcome.failures, outcome
    assert all(outcome.rounds.values()) and all(outcome.kills.values())
    wait_idle(cluster, 30)
    assert open_descriptors() < before + 40
