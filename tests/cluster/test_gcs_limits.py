"""A GCS that runs out of descriptors or of disk.

What runs goes on, nothing is acknowledged that is not kept, and all is well when there is room.
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Callable, Iterator

import pytest
from support.actors import Counting
from support.limits import fill, out_of_descriptors, processor_seconds, small_disk
from support.nodes import HandCluster
from support.processes import wait_until

import ray
from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_put


@ray.remote(num_cpus=0)
class Counter(Counting):
    pass


def test_a_gcs_without_descriptors_goes_on_and_takes_nodes_later(
    cluster_of: Callable[..., HandCluster], tmp_path: pathlib.Path
) -> None:
    cluster = cluster_of(1, "--storage", f"sqlite:{tmp_path}/gcs.sqlite")
    cluster.connect()
    counter = Counter.remote()
    gcs = cluster.gcs.popen.pid
    with out_of_descriptors(gcs):
        late = cluster.start_raylet()
        wait_until(lambda: "cannot accept connections" in cluster.gcs.tail(), 30, "it is said")
        before = processor_seconds(gcs)
        with pytest.raises(AssertionError, match="is not ready"):
            late.wait_ready(timeout=1)
        assert processor_seconds(gcs) - before < 0.5, "it does not try without a pause"
        assert re.search("Too many open files .*ulimit -n", cluster.gcs.tail())
        assert cluster.gcs.tail().count("cannot accept connections") == 1
        assert ray.get(counter.add.remote(), timeout=30) == 1
        assert ray.get(Counter.remote().add.remote(), timeout=30) == 1
        _internal_kv_put("key", "value", namespace="test")
    late.wait_ready()
    there = Counter.options(resources={"n1": 0.1}).remote()
    assert ray.get(there.node.remote(), timeout=30) == cluster.node_id(1)


@pytest.fixture
def disk(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    with small_disk(tmp_path / "disk", "4m") as mounted:
        yield mounted


def put_late() -> bool:
    try:
        _internal_kv_put("late", "value", namespace="test")
    except ray.exceptions.GetTimeoutError:
        return False
    return True


def test_nothing_is_acknowledged_while_the_disk_of_the_gcs_is_full(
    tmp_path: pathlib.Path, disk: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_gcs_server_request_timeout_seconds", "3")
    (tmp_path / "c").mkdir()
    cluster = HandCluster(tmp_path / "c", "--storage", f"sqlite:{disk}/gcs.sqlite")
    try:
        cluster.add_raylet()
        cluster.connect()
        counter = Counter.remote()
        assert ray.get(counter.add.remote(), timeout=30) == 1
        _internal_kv_put("before", "value", namespace="test")
        filler = fill(disk)
        with pytest.raises(ray.exceptions.RayError):  # whether it will be kept is not known
            for n in range(1000):  # what the log of the database has left takes some
                _internal_kv_put(f"full-{n}", "x" * 100_000, namespace="test")
        assert re.search("no room on the disk of the GCS database", cluster.gcs.tail())
        assert ray.get(counter.add.remote(), timeout=30) == 2, "what runs goes on"
        filler.unlink()
        wait_until(put_late, 60, "it goes on when there is room")
        assert _internal_kv_get("before", namespace="test") == b"value"
        cluster.kill_gcs()
        cluster.restart_gcs()
        for kept in range(n):
            assert _internal_kv_get(f"full-{kept}", namespace="test") == b"x" * 100_000
        assert _internal_kv_get("late", namespace="test") == b"value"
        assert ray.get(counter.add.remote(), timeout=30) == 3
    finally:
        cluster.close()
