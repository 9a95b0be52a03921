"""`memory_summary`: which refs the processes of a node hold, and why."""

from __future__ import annotations

import os
import pathlib
import time
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner
from support.processes import wait_until

import ray
from ray._private.internal_api import memory_summary
from ray.cli.main import cli


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("RAY_record_ref_creation_sites", "1")
    ray.init(address="local", num_cpus=2, logging_level="ERROR", log_to_driver=False)
    yield
    ray.shutdown()


def rows() -> list[list[str]]:
    """The fields of each ref."""
    lines = [line.split(" | ") for line in memory_summary(line_wrap=False).splitlines()]
    return [fields for fields in lines if len(fields) == 9 and fields[0] != "IP Address"]


def held(ref: Any, pid: int | None = None) -> list[list[str]]:
    """The rows of `ref`, of all processes or of one."""
    return [row for row in rows() if row[8] == ref.hex() and (pid is None or row[1] == str(pid))]


@pytest.mark.usefixtures("cluster")
def test_every_kind_of_reference_is_told_with_its_size_and_place(tmp_path: pathlib.Path) -> None:
    gate = tmp_path / "gate"

    @ray.remote
    def wait_with(value: Any) -> int:
        while not gate.exists():
            time.sleep(0.01)
        return 0

    @ray.remote(num_cpus=0)
    class Keeper:
        def keep(self, refs: list[Any]) -> int:
            self.refs = refs
            return os.getpid()

    large = ray.put(b"x" * 1_000_000)
    inner = ray.put(b"y" * 100)
    outer = ray.put([inner])
    captured = inner.hex()
    del inner
    keeper = Keeper.remote()
    pid = ray.get(keeper.keep.remote([large]), timeout=20)
    task = wait_with.remote(large)

    me = str(os.getpid())
    (mine,) = held(large, os.getpid())
    assert mine[2] == "Driver" and mine[7] == "USED_BY_PENDING_TASK"
    assert 1_000_000 <= int(mine[6].split()[0]) < 1_001_000
    assert mine[3].startswith(f"{__file__}:") and mine[3].endswith(
        "in " + test_every_kind_of_reference_is_told_with_its_size_and_place.__name__
    )
    (theirs,) = held(large, pid)
    assert theirs[2] == "Worker" and theirs[7] == "LOCAL_REFERENCE"
    assert [row[7] for row in held(outer)] == ["LOCAL_REFERENCE"]
    assert [row[7] for row in rows() if row[8] == captured] == ["CAPTURED_IN_OBJECT"]
    assert [row[7] for row in rows() if row[8].startswith("ff" * 8 + keeper._actor_id.hex()) and row[1] == me] == [
        "ACTOR_HANDLE"
    ]
    (waiting,) = held(task)
    assert waiting[4] == "PENDING" and waiting[7] == "LOCAL_REFERENCE"
    assert f"in {test_every_kind_of_reference_is_told_with_its_size_and_place.__name__}" in memory_summary(
        group_by="STACK_TRACE"
    )
    gate.touch()
    assert ray.get(task, timeout=20) == 0
    wait_until(
        lambda: held(task)[0][4] == "FINISHED" and held(large, os.getpid())[0][7] == "LOCAL_REFERENCE", 10, "end"
    )
    assert "Plasma memory usage 0 MiB, 1 objects" in memory_summary(stats_only=True)


@pytest.mark.usefixtures("cluster")
def test_what_is_dropped_is_gone() -> None:
    ref = ray.put(1)
    assert held(ref)
    gone = ref.hex()
    del ref
    assert not [row for row in rows() if row[8] == gone]


@pytest.mark.usefixtures("cluster")
def test_a_process_with_very_many_refs_tells_of_some_and_how_many_more() -> None:
    refs = [ray.put(i) for i in range(10_050)]
    text = memory_summary(num_entries=5)
    assert "has 50 more references" in text
    assert len(refs) == 10_050


def test_without_a_cluster_that_is_said() -> None:
    with pytest.raises(ConnectionError, match="Could not find any running Ray instance"):
        memory_summary()


@pytest.mark.usefixtures("cluster")
def test_the_command_prints_it() -> None:
    ref = ray.put(b"x" * 1_000_000)

    def memory(*options: str) -> str:
        done = CliRunner().invoke(cli, ["memory", *options])
        assert done.exit_code == 0, done.output
        return done.output

    text = memory("--units", "KB", "--sort-by", "PID", "--group-by", "STACK_TRACE")
    assert ref.hex() in text and "976.5" in text and "--- Aggregate object store stats across all nodes ---" in text
    assert f"| {ref.hex()}" in memory("--no-format")
    only = memory("--stats-only")
    assert ref.hex() not in only and "Plasma memory usage" in only
    more = [ray.put(i) for i in range(5)]
    assert "... and 4 more" in memory("--num-entries", "2") and len(more) == 5
    assert CliRunner().invoke(cli, ["memory", "--units", "TB"]).exit_code == 2


def test_how_large_values_may_be_in_memory_is_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_max_direct_call_object_size", "1000")
    ray.init(address="local", num_cpus=1, logging_level="ERROR")
    try:

        @ray.remote
        def make(size: int) -> bytes:
            return bytes(size)

        refs = [ray.put(bytes(500)), ray.put(bytes(2000)), make.remote(500), make.remote(2000)]
        ray.wait(refs, num_returns=4, timeout=30)
        places = ray.experimental.get_object_locations(refs)
        assert [bool(places[ref]["node_ids"]) for ref in refs] == [False, True, False, True]
        assert [len(value) for value in ray.get(refs)] == [500, 2000, 500, 2000]
    finally:
        ray.shutdown()
