"""Values that go with their nodes, made again: chains, arguments of any size, death after death; and why not."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.nodes import HandCluster, Program
from support.processes import wait_until

import ray
from ray.exceptions import ErrorType, ObjectReconstructionFailedError, RayTaskError

MB = 1 << 20
ClusterOf = Callable[..., HandCluster]
REASON = "OBJECT_UNRECONSTRUCTABLE_"


def fragile(cluster: HandCluster) -> Program:
    return cluster.add_raylet("--resources", "fragile=8")


def replace(cluster: HandCluster, node: Program) -> Program:
    """Another node in the place of one that is killed."""
    successor = fragile(cluster)
    node.end()
    return successor


def there(function: Callable[..., Any], **options: Any) -> Any:
    """A task that runs on the fragile node."""
    return ray.remote(function).options(num_cpus=0, resources={"fragile": 1}, **options)


def noted(log: Path, array: Any, mb: int = 2) -> np.ndarray:
    with open(log, "a") as f:
        f.write("x")
    return np.full(mb * MB, int(np.asarray(array).flat[-1]) + 1, np.uint8)


def made(*refs: ray.ObjectRef) -> None:
    assert len(ray.wait(list(refs), num_returns=len(refs), timeout=60, fetch_local=False)[0]) == len(refs)


def runs_of(log: Path) -> int:
    return len(log.read_text()) if log.exists() else 0


def stored() -> dict[str, int]:
    """What the store of the driver's node says of itself."""
    from ray._core.gcs import node_stats
    from ray._runtime.session import require_session

    return dict(json.loads(node_stats(require_session().core))["store"])


@pytest.mark.parametrize("argument_bytes", [8, 150_000, 3_000_000])
def test_a_task_runs_again_with_its_arguments_of_any_size(
    cluster_of: ClusterOf, tmp_path: Path, argument_bytes: int
) -> None:
    log = tmp_path / "runs"
    cluster = cluster_of(1)
    node = fragile(cluster)
    cluster.connect()
    ref = there(noted).remote(log, np.full(argument_bytes, 5, np.uint8))
    made(ref)
    replace(cluster, node)
    assert ray.get(ref, timeout=60)[-1] == 6
    assert runs_of(log) == 2


def test_large_arguments_go_with_the_result_that_needs_them(cluster_of: ClusterOf, tmp_path: Path) -> None:
    cluster = cluster_of(1)
    fragile(cluster)
    cluster.connect()
    ref = there(noted).remote(tmp_path / "runs", np.full(3 * MB, 5, np.uint8))
    made(ref)
    gc.collect()
    assert stored()["used"] >= 3 * MB  # kept for the lineage
    del ref
    gc.collect()
    wait_until(lambda: stored()["used"] < MB, 20, "the arguments are freed with the result")


def test_small_results_keep_no_arguments(cluster_of: ClusterOf) -> None:
    cluster = cluster_of(1)
    fragile(cluster)
    cluster.connect()
    ref = there(lambda a: int(a[-1])).remote(np.full(3 * MB, 5, np.uint8))
    assert ray.get(ref, timeout=60) == 5
    wait_until(lambda: stored()["used"] < MB, 20, "the arguments are freed with the end of the task")


def test_what_large_arguments_refer_to_is_let_go(cluster_of: ClusterOf, tmp_path: Path) -> None:
    cluster = cluster_of(1)
    node = fragile(cluster)
    cluster.connect()
    inner = ray.put(np.full(8 * MB, 1, np.uint8))

    def use(pair: Any, log: Path) -> np.ndarray:
        ref, array = pair
        return noted(log, ray.get(ref, timeout=60)[:1] + array[:1])

    log = tmp_path / "runs"
    ref = there(use).remote([inner, np.full(MB, 5, np.uint8)], log)
    made(ref)
    node = replace(cluster, node)
    assert ray.get(ref, timeout=60)[-1] == 7  # while the program holds it, a run has it
    kept = there(use).remote([inner, np.full(MB, 5, np.uint8)], log)
    made(kept)
    del inner
    gc.collect()
    wait_until(lambda: stored()["used"] < 8 * MB, 20, "the value inside the arguments is freed")
    node.end()
    fragile(cluster)
    with pytest.raises(RayTaskError):
        ray.get(kept, timeout=60)


def test_a_chain_comes_back_though_nodes_die_one_after_the_other(cluster_of: ClusterOf, tmp_path: Path) -> None:
    logs = [tmp_path / f"runs{i}" for i in range(4)]
    cluster = cluster_of(1)
    node = fragile(cluster)
    cluster.connect()
    ref = there(noted).remote(logs[0], np.zeros(200_000, np.uint8))
    for log in logs[1:]:
        ref = there(noted).remote(log, ref)
    made(ref)
    again = there(noted).remote(logs[3], ref)
    made(again)
    for deaths in range(1, 3):
        node = replace(cluster, node)
        # Made again there, and not fetched: the next death takes it along.
        assert ray.get(there(lambda a: int(a[-1])).remote(again), timeout=90) == 5
        assert [runs_of(log) for log in logs] == [1 + deaths] * 3 + [2 * (1 + deaths)]


def test_the_result_of_an_actor_with_one_retry_is_made_again(cluster_of: ClusterOf) -> None:
    class Maker:
        def make(self) -> np.ndarray:
            return np.full(2 * MB, 7, np.uint8)

    cluster = cluster_of(1)
    node = fragile(cluster)
    cluster.connect()
    actor = ray.remote(Maker).options(num_cpus=0, resources={"fragile": 1}, max_restarts=1, max_task_retries=1).remote()
    ref = actor.make.remote()
    made(ref)
    replace(cluster, node)
    assert ray.get(ref, timeout=60)[-1] == 7


def test_repeated_deaths_use_up_the_retries(cluster_of: ClusterOf, tmp_path: Path) -> None:
    log = tmp_path / "runs"
    cluster = cluster_of(1)
    node = fragile(cluster)
    cluster.connect()
    ref = there(noted, max_retries=2).remote(log, np.full(MB, 5, np.uint8))
    made(ref)
    for _ in range(2):
        node = replace(cluster, node)
        assert ray.get(there(lambda a: int(a[-1])).remote(ref), timeout=60) == 6
    replace(cluster, node)
    with pytest.raises(ObjectReconstructionFailedError) as failed:
        ray.get(ref, timeout=60)
    assert failed.value.reason == ErrorType[REASON + "MAX_ATTEMPTS_EXCEEDED"]
    assert runs_of(log) == 3
    wait_until(lambda: stored()["used"] < MB, 20, "the arguments went with the last retry")


def test_large_arguments_count_for_the_cap(
    cluster_of: ClusterOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_max_lineage_bytes", str(5 * MB))
    cluster = cluster_of(1)
    node = fragile(cluster)
    cluster.connect()
    refs = []
    for i in range(3):
        refs.append(there(noted).remote(tmp_path / "runs", np.full(2 * MB, i, np.uint8)))
        made(refs[-1])
    wait_until(lambda: stored()["used"] < 5 * MB, 20, "the oldest arguments are freed")
    replace(cluster, node)
    assert [ray.get(ref, timeout=60)[-1] for ref in refs[1:]] == [2, 3]
    with pytest.raises(ObjectReconstructionFailedError) as failed:
        ray.get(refs[0], timeout=60)
    assert failed.value.reason == ErrorType[REASON + "LINEAGE_EVICTED"]
