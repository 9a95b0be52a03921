"""The running example of the book chapter "Getting started with Ray Core", examples 2-1 to 2-11.

    python docs/user/examples/book_examples.py

Looking up item i of a small database takes i/10 seconds. One after the other that is 2.8 s; as tasks on eight
logical CPUs it takes about as long as the longest look-up, 0.7 s.
"""

from __future__ import annotations

import time
from typing import Any

import ray

database = ["Learning", "Ray", "Flexible", "Distributed", "Python", "for", "Data", "Science"]


def retrieve(item: int) -> tuple[int, str]:
    """Example 2-2: a look-up that takes its time."""
    time.sleep(item / 10.0)
    return item, database[item]


def print_runtime(input_data: Any, start_time: float, decimals: int = 1) -> float:
    """Prints how long it took and what came out; returns the seconds."""
    spent = time.time() - start_time
    print(f"Runtime: {spent:.{decimals}f} seconds, data:")
    print(*input_data, sep="\n")
    return spent


def main() -> dict[str, float]:
    """Runs the examples in the order of the chapter. Returns their runtimes in seconds."""
    runtimes: dict[str, float] = {}
    ray.init(num_cpus=8)  # 2-1; the look-ups only sleep, so that more logical CPUs than cores are fine

    print("# 2-3: one after the other")
    start = time.time()
    runtimes["serial"] = print_runtime([retrieve(item) for item in range(8)], start)

    @ray.remote  # 2-4
    def retrieve_task(item: int) -> tuple[int, str]:
        return retrieve(item)

    print("# 2-5: as tasks")
    start = time.time()
    references = [retrieve_task.remote(item) for item in range(8)]
    runtimes["parallel"] = print_runtime(ray.get(references), start, 2)

    database_ref = ray.put(database)  # 2-6

    @ray.remote
    def retrieve_stored(item: int) -> tuple[int, str]:
        stored = ray.get(database_ref)
        time.sleep(item / 10.0)
        return item, stored[item]

    print("# 2-6: with the database in the object store")
    start = time.time()
    runtimes["object store"] = print_runtime(ray.get([retrieve_stored.remote(item) for item in range(8)]), start, 2)

    print("# 2-7: two at a time, as they come")
    start = time.time()
    references = [retrieve_stored.remote(item) for item in range(8)]
    all_data: list[tuple[int, str]] = []
    while len(references) > 0:
        finished, references = ray.wait(references, num_returns=min(2, len(references)), timeout=7.0)
        data = ray.get(finished)
        runtimes["wait"] = print_runtime(data, start, 3)
        all_data.extend(data)
    assert sorted(all_data) == list(enumerate(database))

    @ray.remote
    def follow_up_task(retrieve_result: tuple[int, str]) -> tuple[tuple[int, str], tuple[int, str]]:
        original_item, _ = retrieve_result
        return retrieve_result, retrieve(original_item + 1)

    print("# 2-8: tasks that depend on tasks")
    start = time.time()
    retrieve_refs = [retrieve_stored.remote(item) for item in [0, 2, 4, 6]]
    follow_up_refs = [follow_up_task.remote(ref) for ref in retrieve_refs]
    runtimes["dependencies"] = print_runtime(ray.get(follow_up_refs), start, 2)

    @ray.remote
    class DataTracker:  # 2-9
        def __init__(self) -> None:
            self._counts = 0

        def increment(self) -> None:
            self._counts += 1

        def counts(self) -> int:
            return self._counts

    @ray.remote
    def retrieve_tracker_task(item: int, tracker: Any) -> tuple[int, str]:  # 2-10
        stored = ray.get(database_ref)
        time.sleep(item / 10.0)
        ray.get(tracker.increment.remote())
        return item, stored[item]

    print("# 2-10: an actor counts the look-ups")
    start = time.time()
    tracker = DataTracker.remote()
    runtimes["actor"] = print_runtime(
        ray.get([retrieve_tracker_task.remote(item, tracker) for item in range(8)]), start, 2
    )
    counts = ray.get(tracker.counts.remote())
    print("look-ups:", counts)
    assert counts == 8

    @ray.remote
    def task_owned() -> None:
        return

    @ray.remote
    def task(dependency: str) -> None:  # 2-11: the worker that runs this owns the result of task_owned
        task_owned.remote()

    print("# 2-11: ownership")
    val = ray.put("value")
    ray.get(task.remote(dependency=val))
    print("the driver still owns:", ray.get(val))

    ray.shutdown()
    return runtimes


if __name__ == "__main__":
    print({name: round(seconds, 2) for name, seconds in main().items()})
