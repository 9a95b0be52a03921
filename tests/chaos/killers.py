"""What kills: each a thread with a random number generator of its own, by which it chooses when and whom."""

from __future__ import annotations

import contextlib
import os
import pathlib
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from typing import Any

from support.processes import command_line, descendants, is_worker, wait_until

from ray.cluster_utils import Cluster, ClusterNode


class ChaosCluster:
    """A head, where the driver is, and further nodes that may die; those that do are replaced."""

    def __init__(self, nodes: int, *, head_cpus: int = 2, node_cpus: int = 2, store_bytes: int = 150 << 20) -> None:
        assert os.environ.get("RAY_gcs_storage") == "sqlite", "the GCS could not be killed"  # noqa: SIM112 - a public name
        self.cluster = Cluster()
        self._store_bytes = store_bytes
        self._node_cpus = node_cpus
        self.cluster.add_node(num_cpus=head_cpus, object_store_memory=store_bytes)
        for _ in range(nodes):
            self.add_node()
        self.changing = threading.Lock()  # one kind of loss of nodes and of the GCS at a time

    def add_node(self) -> ClusterNode:
        return self.cluster.add_node(num_cpus=self._node_cpus, object_store_memory=self._store_bytes)

    @property
    def head(self) -> ClusterNode:
        assert self.cluster.head_node is not None
        return self.cluster.head_node

    def replace(self, node: ClusterNode) -> None:
        """Forgets a node that has died, and starts another."""
        self.cluster.remove_node(node, allow_graceful=False)
        self.add_node()

    def raylet_pid(self, node: ClusterNode) -> int:
        assert node._node.raylet is not None
        return node._node.raylet.pid

    def zygote_pid(self, node: ClusterNode) -> int | None:
        """The process that the node's workers are forked from; None while it has none yet."""
        return next((pid for pid in children(self.raylet_pid(node)) if b"zygote" in command_line(pid)), None)


class Killer(threading.Thread):
    """Kills one thing every so often. `kills` counts; `error` is what went wrong with the killing itself.

    Attributes:
        least_s, most_s: bounds of the pauses in between.
    """

    least_s, most_s = 0.5, 2.0

    def __init__(self, cluster: Any, seed: str, pace: float = 1.0) -> None:
        super().__init__(name=type(self).__name__, daemon=True)
        self.cluster = cluster
        self.rng = random.Random(f"{seed}/{type(self).__name__}")
        self.pace = pace
        self.kills = 0
        self.error: BaseException | None = None
        self._stopped = threading.Event()

    def run(self) -> None:
        try:
            while not self._stopped.wait(self.rng.uniform(self.least_s, self.most_s) / self.pace):
                if self.kill():
                    self.kills += 1
        except BaseException as error:
            self.error = error
        finally:
            self.clean_up()

    def stop(self) -> None:
        self._stopped.set()

    def kill(self) -> bool:
        """Whether there was something to kill."""
        raise NotImplementedError

    def clean_up(self) -> None:
        """After the last kill."""


def children(pid: int) -> list[int]:
    """Of the main thread of a process, which is the one that starts others."""
    with contextlib.suppress(OSError):
        return list(map(int, pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
    return []


def kill_pid(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
        return True
    return False


class Workers(Killer):
    """Processes that run tasks or actors, or are about to, on any node."""

    least_s, most_s = 0.1, 0.6

    def kill(self) -> bool:
        pids = sorted(filter(is_worker, descendants(os.getpid())))
        return bool(pids) and kill_pid(self.rng.choice(pids))


class Raylets(Killer):
    """Raylets of nodes other than the head, and with them all that runs there."""

    least_s, most_s = 3.0, 6.0

    def kill(self) -> bool:
        with self.cluster.changing:
            node = self.rng.choice(self.cluster.cluster.list_all_nodes()[1:])
            node.kill_raylet()
            self.cluster.replace(node)
        return True


class Zygotes(Killer):
    """Processes that workers are forked from, on any node. Their workers go with them; the node gets another."""

    least_s, most_s = 2.0, 5.0

    def kill(self) -> bool:
        with self.cluster.changing:
            node = self.rng.choice(self.cluster.cluster.list_all_nodes())
            zygote = self.cluster.zygote_pid(node)
            if zygote is None or not kill_pid(zygote):
                return False
            wait_until(lambda: self.cluster.zygote_pid(node) not in (None, zygote), 20, "another zygote")
        return True


class Gcs(Killer):
    """The GCS, which is started again after up to a second."""

    least_s, most_s = 3.0, 6.0

    def kill(self) -> bool:
        with self.cluster.changing:
            self.cluster.head.kill_gcs_server()
            time.sleep(self.rng.choice((0.0, self.rng.uniform(0, 1))))
            self.cluster.head.start_gcs_server()
        return True


# A driver that does nothing but write and read objects, large ones too, at any moment of which it may be killed.
_CLIENT = """
    import os, random, sys
    import ray
    ray.init(address=sys.argv[1], logging_level="ERROR", log_to_driver=False)
    rng = random.Random(int(sys.argv[2]))
    print("up", flush=True)
    kept = []
    while True:
        size = rng.choice((10, 150_000, 3_000_000))
        ref = ray.put(bytes([size % 256]) * size)
        kept.append((ref, size))
        if len(kept) > 5:
            kept.pop(rng.randrange(len(kept)))
        ref, size = rng.choice(kept)
        value = ray.get(ref, timeout=60)
        assert len(value) == size and value[-1] == size % 256
"""


class StoreClients(Killer):
    """Drivers that write and read objects on the head's store."""

    least_s, most_s = 0.3, 1.5

    def __init__(self, cluster: ChaosCluster, seed: str, pace: float = 1.0) -> None:
        super().__init__(cluster, seed, pace)
        self._client: subprocess.Popen[str] | None = None

    def _start(self) -> subprocess.Popen[str]:
        arguments = [self.cluster.cluster.address, str(self.rng.randrange(1 << 30))]
        return subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(_CLIENT), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def kill(self) -> bool:
        if self._client is None:
            self._client = self._start()
            return False
        ended = self._client.poll()
        assert ended is None, f"a driver failed with {ended}: {self._client.communicate()[1][-2000:]}"
        self._client.kill()
        self._client.communicate(timeout=20)
        self._client = self._start()
        return True

    def clean_up(self) -> None:
        if self._client is not None:
            self._client.kill()
            self._client.communicate(timeout=20)


ALL: tuple[type[Killer], ...] = (Workers, Raylets, Zygotes, Gcs, StoreClients)


def sockets_below(folder: pathlib.Path) -> list[str]:
    """Unix sockets that lie in a folder, however deep."""
    found: list[str] = []
    for path, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                full = pathlib.Path(path, name)
                if full.is_socket():
                    found.append(str(full))
    return found


def describe_session(root: pathlib.Path, tail: int = 3000) -> dict[str, Any]:
    """Ends of all logs below a folder, for the report of a failure."""
    logs = {}
    for path in sorted(root.rglob("logs/*")):
        if path.is_file() and path.suffix in (".out", ".err", ".log"):
            with contextlib.suppress(OSError):
                text = path.read_bytes()[-tail:].decode(errors="replace")
                if text.strip():
                    logs[str(path.relative_to(root))] = text
    return logs
