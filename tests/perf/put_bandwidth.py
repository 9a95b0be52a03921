"""Puts of large values, beside what memcpy does on the same machine in the same run.

    python tests/perf/put_bandwidth.py [MiB]

Prints GB/s (10^9 bytes): memcpy into warm shared memory by one and by two threads, the first put into fresh pages,
repeated puts of one client, of two at the same time, and the ratios.
"""

from __future__ import annotations

import mmap
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

import ray

ROUNDS = 8


def best(size: int, fn: Callable[[], Any]) -> float:
    """GB/s of the best of some rounds, as long as each moves `size` bytes."""
    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        fn()
        seconds.append(time.perf_counter() - start)
    return size / min(seconds) / 1e9


def memcpy_rates(source: np.ndarray) -> tuple[float, float]:
    fd = os.memfd_create("bench")
    os.ftruncate(fd, source.nbytes)
    target = np.frombuffer(mmap.mmap(fd, source.nbytes), np.uint8)  # unmapped with the last array over it
    os.close(fd)
    np.copyto(target, source)
    half = source.nbytes // 2
    with ThreadPoolExecutor(2) as pool:

        def two() -> None:
            parts = [slice(0, half), slice(half, None)]
            list(pool.map(lambda part: np.copyto(target[part], source[part]), parts))

        return best(source.nbytes, lambda: np.copyto(target, source)), best(source.nbytes, two)


@ray.remote
class Putter:
    def __init__(self, size: int) -> None:
        self.value = np.ones(size, np.uint8)

    def put(self, times: int) -> None:
        for _ in range(times):
            ray.put(self.value)


def main() -> None:
    size = int(sys.argv[1] if len(sys.argv) > 1 else 256) << 20
    source = np.ones(size, np.uint8)
    one, two = memcpy_rates(source)
    ray.init(num_cpus=2, object_store_memory=max(8 * size, 1 << 30))
    start = time.perf_counter()
    ref = ray.put(source)
    first = size / (time.perf_counter() - start) / 1e9
    del ref
    single = best(size, lambda: ray.put(source))
    putters = [Putter.remote(size // 2) for _ in range(2)]
    ray.get([putter.put.remote(4) for putter in putters])
    multi = best(4 * size, lambda: ray.get([putter.put.remote(4) for putter in putters]))
    ray.shutdown()
    for name, rate in (
        ("memcpy, 1 thread", one),
        ("memcpy, 2 threads", two),
        ("first put, fresh pages", first),
        ("put, 1 client", single),
        ("put, 2 clients", multi),
    ):
        print(f"{name:24} {rate:6.1f} GB/s")
    print(f"put / memcpy by 2 threads: 1 client {single / two:.0%}, 2 clients {multi / two:.0%}")


if __name__ == "__main__":
    main()
