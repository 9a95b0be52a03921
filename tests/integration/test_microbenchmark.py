"""`ray microbenchmark`: its rows run, and are told as Ray's are."""

from __future__ import annotations

import re

import pytest

import ray
from ray.cli import benchmark

SHORT = benchmark.Timing(settle=0.0, warm_up=0.0, round=0.01)


def test_rows(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("TESTS_TO_RUN", "calls sync")
    monkeypatch.setenv("TESTS_TO_SKIP", "async-actor")
    results = benchmark.main([("earlier", 1.0, 0.0)], timing=SHORT)
    assert len(results) == 32
    found = [result for result in results if result is not None]
    assert [name for name, _, _ in found] == ["earlier", "1:1 actor calls sync", "client: 1:1 actor calls sync"]
    assert all(mean > 0 for _, mean, _ in found)
    lines = [line for line in capfd.readouterr().out.splitlines() if " per second " in line]
    assert len(lines) == 2
    assert all(re.fullmatch(r".*calls sync per second \d+\.\d\d \+- \d+\.\d\d", line) for line in lines)
    assert not ray.is_initialized()


def test_it_starts_clusters_of_its_own() -> None:
    ray.init(address="local", num_cpus=1, logging_level="ERROR")
    try:
        with pytest.raises(RuntimeError, match="shutdown"):
            benchmark.main(timing=SHORT)
    finally:
        ray.shutdown()
