"""Who gets how much, when there is less than everybody wants: tasks that are spread, jobs, priorities."""

from __future__ import annotations

import collections
import pathlib
import time
from collections.abc import Callable

import pytest
from support.nodes import HandCluster
from support.processes import start_driver, wait_until

import ray


@ray.remote
def work(journal: str, entry: str, seconds: float) -> str:
    time.sleep(seconds)
    with open(journal, "a") as file:
        file.write(entry + "\n")
    return ray.get_runtime_context().get_node_id()


def entries(journal: pathlib.Path) -> list[str]:
    return journal.read_text().split() if journal.exists() else []


@pytest.mark.parametrize("seconds", [0.0, 0.02])
def test_spread_is_even(cluster_of: Callable[..., HandCluster], tmp_path: pathlib.Path, seconds: float) -> None:
    # That a node which stands still for a second loses its turns is not what is looked at here.
    cluster = cluster_of(0)
    for _ in range(4):
        cluster.add_raylet("--spread-patience", "60s")
    cluster.connect()
    spread = work.options(scheduling_strategy="SPREAD")
    count = collections.Counter(
        ray.get([spread.remote(str(tmp_path / "journal"), "x", seconds) for _ in range(200)], timeout=60)
    )
    assert len(count) == 4
    assert max(count.values()) <= 1.2 * min(count.values()), count


def test_jobs_take_turns(cluster_of: Callable[..., HandCluster], tmp_path: pathlib.Path) -> None:
    cluster = cluster_of(1)
    journal = tmp_path / "journal"
    cluster.connect()
    first = [work.options(priority=5).remote(str(journal), "first", 0.02) for _ in range(400)]
    ray.wait(first, num_returns=10, timeout=30)
    second = start_driver(f"""
        import time, ray
        ray.init(address={cluster.driver_address()!r}, logging_level="ERROR")

        @ray.remote
        def work(seconds):
            time.sleep(seconds)
            with open({str(journal)!r}, "a") as file:
                file.write("second\\n")

        ray.get([work.remote(0.02) for _ in range(60)], timeout=60)
    """)
    assert second.wait(60) == 0, second.communicate()
    order = entries(journal)
    begin = order.index("second")
    between = order[begin : len(order) - order[::-1].index("second")].count("first")
    assert between <= 2 * 60, "a job with a long queue, and a higher priority, had more than its turns"
    assert between > 0, "it had none"
    ray.get(first, timeout=60)


def test_of_one_job_the_highest_priority_goes_first_on_every_node(
    cluster_of: Callable[..., HandCluster], tmp_path: pathlib.Path
) -> None:
    cluster_of(2).connect()
    journal = tmp_path / "journal"
    low = [work.options(priority=-1).remote(str(journal), "low", 0.02) for _ in range(200)]
    wait_until(lambda: len(entries(journal)) >= 10, 30, "some of them have run")
    high = [work.options(priority=1).remote(str(journal), "high", 0.02) for _ in range(20)]
    ray.get(high, timeout=60)
    assert entries(journal).count("low") < 100, "those with the lower priority went on as before"
    ray.get(low, timeout=60)
