"""Values that get lost on one node, as their spill files are gone: made again, or a typed error with its reason."""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import ray
from ray.exceptions import ErrorType, ObjectLostError, ObjectReconstructionFailedError

MB = 1 << 20


def start(folder: Path) -> None:
    """A node whose store holds little and spills to `folder`."""
    ray.init(
        num_cpus=2,
        object_store_memory=80 * MB,
        object_spilling_directory=str(folder),
        logging_level="ERROR",
        log_to_driver=False,
    )


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """The folder that the node spills to."""
    folder = tmp_path / "spilled"
    start(folder)
    yield folder
    ray.shutdown()


def lose(disk: Path) -> None:
    """Pushes everything out of memory, then removes the files."""
    filler = [ray.put(np.zeros(30 * MB, np.uint8)) for _ in range(6)]
    for file in disk.rglob("*"):
        if file.is_file():
            file.unlink()
    del filler


def runs_of(log: Path) -> str:
    return log.read_text() if log.exists() else ""


def make_noted(log: Path, value: int, mb: int = 20) -> np.ndarray:
    with open(log, "a") as f:
        f.write("x")
    return np.full(mb * MB, value, np.uint8)


def test_a_lost_result_is_made_again_by_running_its_task(disk: Path, tmp_path: Path) -> None:
    log = tmp_path / "runs"
    ref = ray.remote(make_noted).remote(log, 7)
    ray.wait([ref])
    lose(disk)
    assert ray.get(ref, timeout=60)[-1] == 7
    assert runs_of(log) == "xx"
    assert ray.get(ref, timeout=60)[0] == 7
    assert runs_of(log) == "xx"


def test_a_chain_of_lost_results_is_made_again_from_its_start(disk: Path, tmp_path: Path) -> None:
    log = tmp_path / "runs"

    @ray.remote
    def add_one(array: np.ndarray) -> np.ndarray:
        return array + 1

    first = ray.remote(make_noted).remote(log, 1)
    last = add_one.remote(add_one.remote(first))
    ray.wait([last])
    del first
    lose(disk)
    assert ray.get(last, timeout=60)[-1] == 3
    assert runs_of(log) == "xx"


def test_a_lost_argument_is_made_again_for_a_task_that_needs_it(disk: Path, tmp_path: Path) -> None:
    log = tmp_path / "runs"
    ref = ray.remote(make_noted).remote(log, 5)
    ray.wait([ref])
    lose(disk)
    assert ray.get([ray.remote(lambda a: int(a[-1])).remote(ref) for _ in range(3)], timeout=60) == [5, 5, 5]
    assert runs_of(log) == "xx"


def test_a_borrower_waits_until_the_owner_has_it_again(disk: Path, tmp_path: Path) -> None:
    log = tmp_path / "runs"

    @ray.remote
    class Reader:
        def read(self, refs: list[ray.ObjectRef]) -> int:
            return int(ray.get(refs[0])[-1])

    reader = Reader.remote()
    ref = ray.remote(make_noted).remote(log, 9)
    assert ray.get(reader.read.remote([ref]), timeout=60) == 9
    lose(disk)
    assert ray.get(reader.read.remote([ref]), timeout=60) == 9
    assert runs_of(log) == "xx"


def test_items_of_a_stream_are_made_again(disk: Path, tmp_path: Path) -> None:
    log = tmp_path / "runs"

    @ray.remote(num_returns="streaming")
    def stream(log: Path):  # type: ignore[no-untyped-def]
        for i in range(3):
            yield make_noted(log, i)

    refs = list(stream.remote(log))
    ray.wait(refs, num_returns=3)
    lose(disk)
    assert [int(ray.get(ref, timeout=60)[-1]) for ref in refs] == [0, 1, 2]
    assert runs_of(log) == "x" * 6


def test_an_endless_stream_that_nobody_reads_ends_with_the_item_that_was_lost(disk: Path, tmp_path: Path) -> None:
    log = tmp_path / "runs"

    @ray.remote(num_returns="streaming", _generator_backpressure_num_objects=1)
    def stream(log: Path):  # type: ignore[no-untyped-def]
        with open(log, "a") as f:
            f.write("\n")
        for i in itertools.count():
            yield make_noted(log, i, 5)

    @ray.remote(num_cpus=2)
    def take_the_node() -> str:
        return "all of it is free"

    items = stream.remote(log)
    kept = [next(items) for _ in range(4)][2]
    del items
    assert ray.get(take_the_node.remote(), timeout=60)
    lose(disk)
    assert ray.get(kept, timeout=60)[-1] == 2
    assert ray.get(take_the_node.remote(), timeout=60), "the second run has ended"
    assert runs_of(log).split("\n")[2] == "xxx"


def test_a_shorter_stream_is_inconsistent(disk: Path, tmp_path: Path) -> None:
    log = tmp_path / "runs"

    @ray.remote(num_returns="streaming")
    def stream(log: Path):  # type: ignore[no-untyped-def]
        n = 1 if log.exists() else 3
        for i in range(n):
            yield make_noted(log, i)

    refs = list(stream.remote(log))
    lose(disk)
    with pytest.raises(ray.exceptions.StreamingGeneratorReplayInconsistentError):
        ray.get(refs[2], timeout=60)


@pytest.mark.parametrize(
    ("options", "reason"),
    [({"max_retries": 0}, "RETRIES_DISABLED"), ({"max_retries": 1}, "MAX_ATTEMPTS_EXCEEDED")],
)
def test_the_error_says_why_a_result_cannot_be_made_again(
    disk: Path, tmp_path: Path, options: dict[str, int], reason: str
) -> None:
    log = tmp_path / "runs"
    ref = ray.remote(make_noted).options(**options).remote(log, 1)  # type: ignore[call-overload]
    ray.wait([ref])
    lose(disk)
    if options["max_retries"] == 1:
        assert ray.get(ref, timeout=60)[-1] == 1
        lose(disk)
    with pytest.raises(ObjectReconstructionFailedError) as failed:
        ray.get(ref, timeout=60)
    assert failed.value.reason == ErrorType[f"OBJECT_UNRECONSTRUCTABLE_{reason}"]
    assert f"[OBJECT_UNRECONSTRUCTABLE_{reason}] " in str(failed.value)
    assert pickle.loads(pickle.dumps(failed.value)).reason == failed.value.reason


def test_what_was_put_cannot_be_made_again(disk: Path) -> None:
    ref = ray.put(np.ones(20 * MB, np.uint8))
    lose(disk)
    with pytest.raises(ObjectLostError) as failed:
        ray.get(ref, timeout=60)
    assert isinstance(failed.value, ObjectReconstructionFailedError)
    assert failed.value.reason == ErrorType.OBJECT_UNRECONSTRUCTABLE_PUT


def test_results_of_actors_are_made_again_where_calls_may_be_retried(disk: Path, tmp_path: Path) -> None:
    @ray.remote
    class Maker:
        make = staticmethod(make_noted)

        @ray.method(max_task_retries=2)
        def retried(self, log: Path) -> np.ndarray:
            return make_noted(log, 3)

        def once(self, log: Path) -> np.ndarray:
            return make_noted(log, 4)

    log = tmp_path / "runs"
    maker = Maker.remote()
    retried, once = maker.retried.remote(log), maker.once.remote(log)
    ray.wait([retried, once], num_returns=2)
    lose(disk)
    assert ray.get(retried, timeout=60)[-1] == 3
    assert runs_of(log) == "xxx"
    with pytest.raises(ObjectReconstructionFailedError) as failed:
        ray.get(once, timeout=60)
    assert failed.value.reason == ErrorType.OBJECT_UNRECONSTRUCTABLE_RETRIES_DISABLED


def test_lineage_above_the_cap_is_evicted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_max_lineage_bytes", "100000")
    folder = tmp_path / "spilled"
    start(folder)
    try:
        make = ray.remote(lambda value, _: np.full(MB, value, np.uint8))
        refs = []
        for i in range(2):
            refs.append(make.remote(i, b"x" * 60_000))
            ray.wait(refs, num_returns=len(refs))
        lose(folder)
        assert ray.get(refs[1], timeout=60)[-1] == 1
        with pytest.raises(ObjectReconstructionFailedError) as failed:
            ray.get(refs[0], timeout=60)
        assert failed.value.reason == ErrorType.OBJECT_UNRECONSTRUCTABLE_LINEAGE_EVICTED
    finally:
        ray.shutdown()
