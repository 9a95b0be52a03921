"""Workers killed at random under a graph of tasks that checks its own results."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from typing import Any

from support.processes import descendants, is_worker, wait_until

import ray


def worker_pids() -> list[int]:
    """The processes that run user code here."""
    return list(filter(is_worker, descendants(os.getpid())))


def test_a_graph_of_tasks_is_right_whoever_dies() -> None:
    seed = int(os.environ.get("RAY_CHAOS_SEED", random.randrange(1 << 30)))
    print("seed", seed)
    rng = random.Random(seed)
    ray.init(num_cpus=4, logging_level="ERROR", log_to_driver=False)
    try:

        @ray.remote(max_retries=-1)
        def leaf(n: int) -> bytes:
            time.sleep(0.005)
            return bytes([n % 256]) * (200_000 if n % 5 == 0 else 100)

        @ray.remote(max_retries=-1)
        def add(*parts: bytes) -> bytes:
            return bytes([sum(p[0] for p in parts) % 256]) * 100

        @ray.remote(max_retries=-1)
        def nested(n: int) -> Any:
            return ray.get(add.remote(*[leaf.remote(n + i) for i in range(3)]), timeout=60)

        stop = threading.Event()
        killed = 0

        def kill() -> None:
            nonlocal killed
            while not stop.wait(rng.uniform(0.1, 0.4)):
                pids = worker_pids()
                if pids:
                    try:
                        os.kill(rng.choice(pids), signal.SIGKILL)
                        killed += 1
                    except ProcessLookupError:
                        pass

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            end = time.monotonic() + float(os.environ.get("RAY_CHAOS_SECONDS", "8"))
            while time.monotonic() < end:
                refs = [add.remote(*[leaf.remote(n + i) for i in range(4)]) for n in range(20)]
                deep = [nested.remote(n) for n in range(6)]
                for n, ref in enumerate(refs):
                    assert ray.get(ref, timeout=60)[0] == (4 * n + 6) % 256
                for n, ref in enumerate(deep):
                    assert ray.get(ref, timeout=60)[0] == (3 * n + 3) % 256
        finally:
            stop.set()
            killer.join()
        print("killed", killed)
        assert killed > 0
        wait_until(lambda: ray.available_resources().get("CPU") == 4, 20, "the CPUs to come back")
    finally:
        ray.shutdown()
