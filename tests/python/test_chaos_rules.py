"""Rules of ray.util.chaos as values: what is refused, and when they want a kill. No cluster."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import pytest

import ray
from ray.util import chaos
from ray.util.chaos._injection import _Clockwork


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"every_s": 0}, "every_s"),
        ({"every_s": float("nan")}, "every_s"),
        ({"every_s": True}, "every_s"),
        ({"every_s": 1, "every_calls": 1}, "both"),
        ({"every_s": 1, "jitter_s": 2}, "jitter_s"),
        ({"every_calls": 1, "jitter_s": 1}, "jitter_s"),
        ({"every_calls": 0}, "every_calls"),
        ({"every_calls": 1.5}, "every_calls"),
        ({"every_s": 1, "after_s": -1}, "after_s"),
        ({"every_s": 1, "max_kills": 0}, "max_kills"),
        ({"every_s": 1, "node": "node 1"}, "node"),
        ({"every_s": 1, "calls": 3}, "calls"),
    ],
)
@pytest.mark.parametrize("rule", [chaos.KillWorker, chaos.KillActor, chaos.KillNode])
def test_rules_that_make_no_sense_are_refused(rule: Any, fields: dict[str, Any], named: str) -> None:
    with pytest.raises(chaos.ChaosRuleError, match=rf"{rule.__name__}: .*{named}"):
        rule(**fields)


def test_filters_are_checked() -> None:
    with pytest.raises(chaos.ChaosRuleError, match="KillWorker: name"):
        chaos.KillWorker(name="")
    with pytest.raises(chaos.ChaosRuleError, match="KillActor: class_name"):
        chaos.KillActor(class_name=int)  # type: ignore[arg-type]
    with pytest.raises(chaos.ChaosRuleError, match="KillNode: then"):
        chaos.KillNode(then=3)  # type: ignore[arg-type]


def test_a_gcs_whose_end_would_be_the_clusters_is_not_killed() -> None:
    memory: Any = SimpleNamespace(head_node=SimpleNamespace(gcs_is_durable=False))
    with pytest.raises(chaos.ChaosRuleError, match="RAY_gcs_storage"):
        chaos.KillGcs(cluster=memory)
    with pytest.raises(chaos.ChaosRuleError, match="head node"):
        chaos.KillGcs(cluster=SimpleNamespace(head_node=None))  # type: ignore[arg-type]
    durable: Any = SimpleNamespace(head_node=SimpleNamespace(gcs_is_durable=True))
    with pytest.raises(chaos.ChaosRuleError, match="down_s"):
        chaos.KillGcs(cluster=durable, down_s=-1)


def test_injections_must_know_when_and_what() -> None:
    with pytest.raises(chaos.ChaosRuleError, match="at least one"):
        chaos.inject()
    with pytest.raises(chaos.ChaosRuleError, match="every_s or every_calls"):
        chaos.inject(chaos.KillWorker())
    with pytest.raises(chaos.ChaosRuleError, match="KillWorker"):
        chaos.inject(chaos.KillWorker)  # type: ignore[arg-type]
    with pytest.raises(chaos.ChaosRuleError, match="seed"):
        chaos.inject(chaos.KillWorker(every_s=1), seed=1.5)  # type: ignore[arg-type]
    with pytest.raises(chaos.ChaosRuleError, match="kill"):
        chaos.kill("worker")  # type: ignore[arg-type]
    assert issubclass(chaos.ChaosRuleError, (ValueError, ray.exceptions.RayError))
    assert issubclass(chaos.NothingToKillError, (TimeoutError, ray.exceptions.RayError))


def moments(seed: int, count: int = 50) -> list[float]:
    clockwork = _Clockwork(chaos.KillWorker(every_s=2, jitter_s=0.5, after_s=10), 0, seed)
    found = []
    for _ in range(count):
        due = clockwork.due()
        assert due is not None
        found.append(due)
        clockwork.on_kill(due)
    return found


def test_the_moments_are_the_seeds() -> None:
    assert moments(1) == moments(1) != moments(2)
    found = moments(3)
    assert 11.5 <= found[0] <= 12.5
    steps = [later - earlier for earlier, later in itertools.pairwise(found)]
    assert all(1.5 <= step <= 2.5 for step in steps)
    assert max(steps) - min(steps) > 0.5


def test_a_late_kill_is_not_made_up_for() -> None:
    clockwork = _Clockwork(chaos.KillWorker(every_s=1), 0, 0)
    assert clockwork.due() == 1
    clockwork.on_kill(10.5)
    assert clockwork.due() == 11.5


def test_kills_come_after_so_many_calls_that_fit() -> None:
    clockwork = _Clockwork(chaos.KillActor(every_calls=3, calls="A.*", after_s=1, max_kills=2), 0, 0)
    assert not any(clockwork.on_call("A.f", 0.5) for _ in range(3)), "too early to count"
    assert not any(clockwork.on_call("B.f", 2) for _ in range(3))
    assert [clockwork.on_call("A.f", 2) for _ in range(6)] == [False, False, True] * 2
    for _ in range(2):
        assert clockwork.due() == 0
        clockwork.on_kill(3)
    assert clockwork.due() is None and clockwork.finished
    assert not any(clockwork.on_call("A.f", 4) for _ in range(3))


def test_reports_can_be_read() -> None:
    kills = (chaos.Kill("worker", 0, 1.25, "ab" * 28, 7, "f"), chaos.Kill("gcs", 1, 2.0, "", 0, "gcs_server"))
    report = chaos.Report(5, kills, 3.0)
    assert report.count() == 2 and report.count("gcs") == 1 and report.count("node") == 0
    assert str(report).splitlines()[0] == "2 kills in 3.0 s, seed 5"
    assert "f (pid 7) on node abababab" in str(report)
