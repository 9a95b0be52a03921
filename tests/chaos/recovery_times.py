"""How long a program waits after something was killed: workers, actors, nodes, the GCS.

    python tests/chaos/recovery_times.py [--kills 50] [--kinds worker,actor,node,gcs] [--peer PYTHON] [--peer-kills N]

Each kill is SIGKILL. What is timed, from there:

* worker: until the task that it ran has been run again, elsewhere, and its result is there;
* actor: until a call made right after the kill is answered by the next incarnation;
* node, node-task: a raylet; until an actor that lived there answers from another node, or a task that ran there has
  been run again;
* gcs: from the kill, through the start of the next one (by `start_gcs_server`, which takes part of the time and is
  given as well), until an actor that is created right after the kill has answered.

Public API only, so that it runs unchanged on any package that can be imported as `ray`: `--peer` runs it on another
interpreter as well, kind by kind in between ours. For the GCS of one that needs a Redis to survive, a redis-server is
started if there is one.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

DEADLINE_S = 120
KINDS = ("worker", "actor", "node", "node-task", "gcs")


def quantile(values: list[float], q: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


# --- one package


def run_child(kind: str, kills: int, budget_s: float) -> dict[str, list[float]]:
    import ray

    folder = pathlib.Path(tempfile.mkdtemp(prefix="recovery-"))
    try:
        return _MEASURES[kind](ray, folder, kills, time.monotonic() + budget_s)
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def rounds(kills: int, ends: float) -> Iterator[int]:
    for n in range(kills):
        if time.monotonic() > ends:
            return
        yield n


def wait_for_file(path: pathlib.Path) -> str:
    deadline = time.monotonic() + DEADLINE_S
    while not (path.exists() and path.read_text().endswith("\n")):
        assert time.monotonic() < deadline, f"{path} does not appear"
        time.sleep(0.002)
    return path.read_text().strip()


def make_task(ray: Any, **options: Any) -> Any:
    @ray.remote(max_retries=-1, **options)
    def first_hangs(path: str) -> str:
        """The first run tells where it is, and waits to be killed."""
        if not os.path.exists(path):
            with open(path + ".new", "w") as out:
                out.write(f"{os.getpid()} {ray.get_runtime_context().get_node_id()}\n")
            os.rename(path + ".new", path)
            time.sleep(1000)
        return str(ray.get_runtime_context().get_node_id())

    return first_hangs


def make_actor(ray: Any, **options: Any) -> Any:
    @ray.remote(max_restarts=-1, max_task_retries=-1, **options)
    class Actor:
        def where(self) -> tuple[int, str]:
            return os.getpid(), str(ray.get_runtime_context().get_node_id())

    return Actor


def measure_workers(ray: Any, folder: pathlib.Path, kills: int, ends: float) -> dict[str, list[float]]:
    ray.init("local", num_cpus=2, log_to_driver=False, logging_level="ERROR", **_quiet(ray))
    task = make_task(ray)
    times = []
    for n in rounds(kills, ends):
        path = folder / str(n)
        ref = task.remote(str(path))
        pid = int(wait_for_file(path).split()[0])
        began = time.perf_counter()
        os.kill(pid, signal.SIGKILL)
        ray.get(ref, timeout=DEADLINE_S)
        times.append(time.perf_counter() - began)
    return {"recovery": times}


def measure_actors(ray: Any, folder: pathlib.Path, kills: int, ends: float) -> dict[str, list[float]]:
    ray.init("local", num_cpus=2, log_to_driver=False, logging_level="ERROR", **_quiet(ray))
    actor = make_actor(ray).remote()
    times = []
    for _ in rounds(kills, ends):
        pid, _node = ray.get(actor.where.remote(), timeout=DEADLINE_S)
        began = time.perf_counter()
        os.kill(pid, signal.SIGKILL)
        after = pid
        while after == pid:  # a call may still be answered by the process that is about to end
            after, _node = ray.get(actor.where.remote(), timeout=DEADLINE_S)
        times.append(time.perf_counter() - began)
    return {"recovery": times}


def _quiet(ray: Any) -> dict[str, Any]:
    return {"include_dashboard": False} if "raycore" not in ray.__version__ else {}


class Nodes:
    """A head without the resource "spot", and two nodes with it."""

    def __init__(self, ray: Any) -> None:
        from ray.cluster_utils import Cluster

        self.ray = ray
        self.cluster = Cluster()
        self.cluster.add_node(num_cpus=1, **_quiet(ray))
        self.nodes = {}
        for _ in range(2):
            self.add()
        ray.init(address=self.cluster.address, log_to_driver=False, logging_level="ERROR")

    def add(self) -> None:
        node = self.cluster.add_node(num_cpus=1, resources={"spot": 2})
        self.nodes[node.node_id if hasattr(node, "node_id") else node.unique_id] = node

    def kill(self, node_id: str) -> None:
        self.nodes[node_id].kill_raylet()

    def replace(self, node_id: str) -> None:
        self.cluster.remove_node(self.nodes.pop(node_id), allow_graceful=False)
        self.add()

    def close(self) -> None:
        self.ray.shutdown()
        self.cluster.shutdown()


def measure_nodes(ray: Any, folder: pathlib.Path, kills: int, ends: float) -> dict[str, list[float]]:
    nodes = Nodes(ray)
    try:
        actor = make_actor(ray, num_cpus=0, resources={"spot": 1}).remote()
        times = []
        for _ in rounds(kills, ends):
            _pid, node = ray.get(actor.where.remote(), timeout=DEADLINE_S)
            began = time.perf_counter()
            nodes.kill(node)
            after = node
            while after == node:
                _pid, after = ray.get(actor.where.remote(), timeout=DEADLINE_S)
            times.append(time.perf_counter() - began)
            nodes.replace(node)
        return {"recovery": times}
    finally:
        nodes.close()


def measure_node_tasks(ray: Any, folder: pathlib.Path, kills: int, ends: float) -> dict[str, list[float]]:
    nodes = Nodes(ray)
    try:
        task = make_task(ray, num_cpus=0, resources={"spot": 1})
        times = []
        for n in rounds(kills, ends):
            path = folder / str(n)
            ref = task.remote(str(path))
            node = wait_for_file(path).split()[1]
            began = time.perf_counter()
            nodes.kill(node)
            assert ray.get(ref, timeout=DEADLINE_S) != node
            times.append(time.perf_counter() - began)
            nodes.replace(node)
        return {"recovery": times}
    finally:
        nodes.close()


def measure_gcs(ray: Any, folder: pathlib.Path, kills: int, ends: float) -> dict[str, list[float]]:
    redis = None
    if "raycore" in ray.__version__:
        os.environ["RAY_gcs_storage"] = "sqlite"  # noqa: SIM112 - a public name
    else:
        redis, address = start_redis(folder)
        os.environ["RAY_REDIS_ADDRESS"] = address
    try:
        from ray.cluster_utils import Cluster

        cluster = Cluster()
        cluster.add_node(num_cpus=2, **_quiet(ray))
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        actor = make_actor(ray, num_cpus=0)
        ray.get(actor.remote().where.remote(), timeout=DEADLINE_S)
        times, starts = [], []
        for _ in rounds(kills, ends):
            began = time.perf_counter()
            cluster.head_node.kill_gcs_server()
            cluster.head_node.start_gcs_server()
            starts.append(time.perf_counter() - began)
            made = actor.remote()
            ray.get(made.where.remote(), timeout=DEADLINE_S)
            times.append(time.perf_counter() - began)
            ray.kill(made)
        ray.shutdown()
        cluster.shutdown()
        return {"recovery": times, "of which kill and start": starts}
    finally:
        if redis is not None:
            redis.kill()
            redis.wait()


def start_redis(folder: pathlib.Path) -> tuple[subprocess.Popen[bytes], str]:
    program = shutil.which("redis-server")
    if program is None:
        raise SystemExit("there is no redis-server here, which this package's GCS needs to go on from")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)],
        stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 10
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return server, f"127.0.0.1:{port}"
        assert time.monotonic() < deadline, "redis-server does not answer"
        time.sleep(0.01)


_MEASURES: dict[str, Callable[[Any, pathlib.Path, int, float], dict[str, list[float]]]] = {
    "worker": measure_workers,
    "actor": measure_actors,
    "node": measure_nodes,
    "node-task": measure_node_tasks,
    "gcs": measure_gcs,
}


# --- side by side


def ask(python: str, kind: str, kills: int, budget_s: float) -> dict[str, list[float]] | str:
    command = [python, os.path.abspath(__file__), "--child", kind, "--kills", str(kills), "--budget", str(budget_s)]
    env = {**os.environ, "RAY_DEDUP_LOGS": "0"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=budget_s + 240, check=False, env=env)
    except subprocess.TimeoutExpired:
        return "hangs"
    if done.returncode != 0:
        return f"failed: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else done.returncode}"
    # Some packages print logs of their processes in between, and after.
    found: dict[str, list[float]] = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    return found


def show(title: str, found: dict[str, list[float]] | str) -> None:
    if isinstance(found, str):
        print(f"  {title:6} {found}")
        return
    for name, times in found.items():
        if not times:
            print(f"  {title:6} {name}: none in time")
            continue
        p50, p99, most = (1000 * quantile(times, q) for q in (0.5, 0.99, 1.0))
        print(f"  {title:6} {name}: {len(times)} kills, p50 {p50:.1f} ms, p99 {p99:.1f} ms, most {most:.1f} ms")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--peer", help="another interpreter, on which the same is run")
    parser.add_argument("--peer-kills", type=int, help="so many there (default: as many)")
    parser.add_argument("--budget", type=float, default=240, help="seconds for each kind, after which no kill begins")
    parser.add_argument("--child", choices=KINDS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(run_child(arguments.child, arguments.kills, arguments.budget)))
        return
    for kind in arguments.kinds.split(","):
        print(kind, flush=True)
        show("ours", ask(sys.executable, kind, arguments.kills, arguments.budget))
        if arguments.peer:
            show("peer", ask(arguments.peer, kind, arguments.peer_kills or arguments.kills, arguments.budget))
        sys.stdout.flush()


if __name__ == "__main__":
    main()
