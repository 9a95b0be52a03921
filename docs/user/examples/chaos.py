"""A program that gets through while its workers, an actor and a node are killed; and how to try that with one's own.

python chaos.py [--seed 7]
"""

from __future__ import annotations

import argparse
import os
import sys
import time

import ray
from ray.cluster_utils import Cluster
from ray.util import chaos


@ray.remote(max_retries=-1)  # run again as often as its worker dies
def square(n: int) -> int:
    time.sleep(0.02)
    return n * n


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)
class Total:
    """Each call counts once, whatever dies: what has been counted is kept outside of the process."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.counted: dict[int, int] = {}
        if os.path.exists(path):
            with open(path) as lines:
                self.counted = {int(key): int(value) for key, value in map(str.split, lines)}

    def add(self, key: int, value: int) -> int:
        if key not in self.counted:  # else this call is a repetition: the answer to the first one was lost
            with open(self.path, "a") as lines:
                lines.write(f"{key} {value}\n")
            self.counted[key] = value
        return sum(self.counted.values())


def program(path: str) -> int:
    """What is tested: 200 squares, added up by an actor."""
    total = Total.remote(path)
    added = [total.add.remote(n, square.remote(n)) for n in range(200)]
    return max(ray.get(added, timeout=120))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=None)
    seed = parser.parse_args().seed

    os.environ["RAY_gcs_storage"] = "sqlite"  # noqa: SIM112  # so that the GCS can be started again
    cluster = Cluster()
    cluster.add_node(num_cpus=2)
    cluster.add_node(num_cpus=2)
    ray.init(address=cluster.address, log_to_driver=False)
    rules = [
        chaos.KillWorker(name="square", every_s=0.4, jitter_s=0.2),
        chaos.KillActor(class_name="Total", every_calls=60),
        chaos.KillNode(every_s=1.5, max_kills=1, then=lambda kill: cluster.add_node(num_cpus=2)),
        chaos.KillGcs(cluster=cluster, every_s=1.0, max_kills=1, down_s=0.2),
    ]
    path = os.path.join(cluster.head_node.get_session_dir_path(), "total")
    with chaos.inject(*rules, seed=seed) as injection:
        got = program(path)
    print(injection.report)
    ray.shutdown()
    cluster.shutdown()
    if got != sum(n * n for n in range(200)):
        sys.exit(f"wrong: {got}")
    print("all 200 results are right")


if __name__ == "__main__":
    main()
