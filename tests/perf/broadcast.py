"""One object for many nodes of this host: how long it takes, and who gives it to whom.

    python tests/perf/broadcast.py [--mib 256] [--nodes 2 4 8]

Each node gets the object for one process of its own, all at once. A copy on each of N nodes moves N times the bytes
through the same processors here, so time cannot fall below that of all copies; what shows the tree is how much the
first node has to give. Public API, but for the nodes' own counts of bytes.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import numpy as np

import ray
from ray.cluster_utils import Cluster


def counts() -> dict[str, int]:
    from ray._core.gcs import node_stats
    from ray._runtime.session import require_session

    return dict(json.loads(node_stats(require_session().core))["store"])


@ray.remote(num_cpus=0)
class Reader:
    def read(self, refs: list[ray.ObjectRef]) -> int:
        return int(ray.get(refs[0])[-1])

    def counts(self) -> dict[str, int]:
        return counts()


def measure(nodes: int, mib: int) -> None:
    store = (mib * 2 + 100) << 20
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": store})
    for i in range(nodes):
        cluster.add_node(num_cpus=1, resources={f"n{i}": 1}, object_store_memory=store)
    ray.init(address=cluster.address, logging_level="ERROR")
    readers: list[Any] = [Reader.options(resources={f"n{i}": 0.01}).remote() for i in range(nodes)]
    ray.get([reader.counts.remote() for reader in readers])
    best, given = float("inf"), []
    for value in range(3):
        ref = ray.put(np.full(mib << 20, value, np.uint8))
        before = [counts()["given_bytes"], *(c["given_bytes"] for c in ray.get([r.counts.remote() for r in readers]))]
        start = time.perf_counter()
        assert ray.get([reader.read.remote([ref]) for reader in readers]) == [value] * nodes
        took = time.perf_counter() - start
        after = [counts()["given_bytes"], *(c["given_bytes"] for c in ray.get([r.counts.remote() for r in readers]))]
        if took < best:
            best, given = took, [(b - a) / (mib << 20) for a, b in zip(before, after, strict=True)]
        del ref
    rate = nodes * (mib << 20) / best / 1e9
    print(f"{nodes} nodes  {best * 1e3:7.0f} ms  {rate:5.2f} GB/s in all", end="  ")
    print(f"copies given: first node {given[0]:.2f}, others", end=" ")
    print(" ".join(f"{g:.2f}" for g in given[1:]))
    ray.shutdown()
    cluster.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=256)
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 2, 4, 8])
    options = parser.parse_args()
    for nodes in options.nodes:
        measure(nodes, options.mib)


if __name__ == "__main__":
    main()
