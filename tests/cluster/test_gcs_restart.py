"""The GCS is killed and started again: what runs goes on, and nothing that was acknowledged is lost."""

from __future__ import annotations

import os
import pathlib
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from support.actors import Counting
from support.nodes import CORE, HandCluster
from support.processes import alive, descendants, start_driver, wait_until
from support.shell import Shell

import ray
from ray._runtime import gcs_storage, session_dir
from ray.cluster_utils import Cluster
from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_list, _internal_kv_put
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy


@ray.remote(num_cpus=0)
class Counter(Counting):
    def stay_once(self, path: str) -> str:
        """Where it runs; the first time it does not come back."""
        if not os.path.exists(path):
            pathlib.Path(path).touch()
            time.sleep(1000)
        return self.node()


@ray.remote
def wait_for_file(path: str) -> str:
    while not os.path.exists(path):
        time.sleep(0.01)
    return "done"


@ray.remote(num_cpus=0)
def add(a: int, b: int) -> int:
    return a + b


@pytest.fixture
def durable(tmp_path: pathlib.Path) -> Iterator[Callable[..., HandCluster]]:
    """As cluster_of, with a GCS that keeps its tables; `raylet` are further flags of the raylets."""
    made: list[HandCluster] = []

    def start(nodes: int, *gcs: str, raylet: tuple[str, ...] = ()) -> HandCluster:
        (tmp_path / "c").mkdir()
        made.append(HandCluster(tmp_path / "c", "--storage", f"sqlite:{tmp_path}/gcs.sqlite", *gcs))
        for _ in range(nodes):
            made[-1].add_raylet(*raylet)
        return made[-1]

    yield start
    for cluster in made:
        cluster.close()


def test_what_runs_goes_on_and_everything_is_there_afterwards(
    durable: Callable[..., HandCluster], tmp_path: pathlib.Path
) -> None:
    cluster = durable(2)
    cluster.connect(namespace="n")
    far = Counter.options(resources={"n1": 0.1}).remote()
    named = Counter.options(name="named").remote()
    detached = Counter.options(name="detached", lifetime="detached").remote()
    group = ray.util.placement_group([{"CPU": 1}], strategy="PACK", name="group")
    assert group.wait(30)
    assert ray.get([far.add.remote(), named.add.remote(), detached.add.remote()], timeout=30) == [1, 1, 1]
    pids = ray.get([a.pid.remote() for a in (far, named, detached)], timeout=30)
    _internal_kv_put("key", "value", namespace="test")
    running = wait_for_file.options(num_cpus=0).remote(str(tmp_path / "go"))
    big = ray.put(b"x" * (1 << 20))
    job = ray.get_runtime_context().get_job_id()
    # Known everywhere from now on:
    ray.get([add.remote(0, 0), add.options(resources={"n1": 0.1}).remote(0, 0)], timeout=30)

    cluster.kill_gcs()
    # Without a GCS: calls to actors here and there, tasks, objects.
    assert ray.get([far.add.remote(), named.add.remote(), detached.add.remote()], timeout=10) == [2, 2, 2]
    assert ray.get(add.remote(1, 2), timeout=10) == 3
    assert ray.get(add.options(resources={"n1": 0.1}).remote(3, 4), timeout=10) == 7
    assert len(ray.get(big, timeout=10)) == 1 << 20
    (tmp_path / "go").touch()
    assert ray.get(running, timeout=10) == "done"

    cluster.restart_gcs()
    began = time.monotonic()
    fresh = Counter.remote()
    assert ray.get(fresh.add.remote(), timeout=10) == 1
    assert time.monotonic() - began < 1, "a new actor works soon"
    began = time.monotonic()
    assert ray.util.placement_group([{"CPU": 1}], strategy="SPREAD").wait(10)
    assert time.monotonic() - began < 1, "a new placement group is placed soon"
    assert ray.get([ray.get_actor(name).add.remote() for name in ("named", "detached")], timeout=10) == [3, 3]
    assert ray.get([a.pid.remote() for a in (far, named, detached)], timeout=10) == pids
    assert ray.util.get_placement_group("group").id == group.id
    assert _internal_kv_get("key", namespace="test") == b"value"
    assert {n["NodeID"] for n in ray.nodes() if n["Alive"]} == {cluster.node_id(0), cluster.node_id(1)}
    assert ray.get_runtime_context().get_job_id() == job
    ray.shutdown()
    cluster.connect(namespace="n")
    assert ray.get_runtime_context().get_job_id() != job
    assert ray.get(ray.get_actor("detached").add.remote(), timeout=10) == 4
    with pytest.raises(ValueError, match="named"):
        ray.get_actor("named")  # it went with its job


def test_what_is_asked_meanwhile_waits(durable: Callable[..., HandCluster]) -> None:
    cluster = durable(1)
    cluster.connect(namespace="n")
    Counter.options(name="old", lifetime="detached").remote()
    ray.get(ray.get_actor("old").add.remote(), timeout=30)
    cluster.kill_gcs()
    asked = {
        "actor": lambda: ray.get(ray.get_actor("old").add.remote()),
        "named": lambda: ray.get(Counter.options(name="new", lifetime="detached").remote().add.remote()),
        "plain": lambda: ray.get(Counter.remote().add.remote()),
        "group": lambda: ray.util.placement_group([{"CPU": 1}]).wait(60),
        "kv": lambda: _internal_kv_put("k", "v", overwrite=False, namespace="test"),
        "nodes": lambda: len(ray.nodes()),
    }
    answers: dict[str, object] = {}
    threads = [
        threading.Thread(target=lambda name=name, ask=ask: answers.update({name: ask()})) for name, ask in asked.items()
    ]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    assert answers == {}
    cluster.restart_gcs()
    for thread in threads:
        thread.join(30)
    assert answers == {"actor": 2, "named": 1, "plain": 1, "group": True, "kv": False, "nodes": 1}


def test_what_is_asked_meanwhile_fails_in_time(
    durable: Callable[..., HandCluster], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_gcs_server_request_timeout_seconds", "1")
    cluster = durable(1)
    cluster.connect(namespace="n")
    old = Counter.options(name="old").remote()
    assert ray.get(old.add.remote(), timeout=30) == 1
    cluster.kill_gcs()
    began = time.monotonic()
    for ask in (
        lambda: ray.get_actor("old"),
        lambda: Counter.options(name="new").remote(),
        lambda: ray.util.placement_group([{"CPU": 1}], name="new"),
        lambda: _internal_kv_put("k", "v", namespace="test"),
    ):
        with pytest.raises(ray.exceptions.GetTimeoutError, match=r"GCS did not answer .* within 1000 ms"):
            ask()
    assert time.monotonic() - began < 10
    assert ray.get(old.add.remote(), timeout=10) == 2, "what needs no GCS goes on"
    cluster.restart_gcs()
    wait_until(lambda: len(ray.nodes()) == 1, 10, "it answers again")
    assert ray.get(ray.get_actor("old").add.remote(), timeout=10) == 3
    # What failed has not come into being after all.
    with pytest.raises(ValueError, match="new"):
        ray.get_actor("new")
    assert ray.get(Counter.options(name="new").remote().add.remote(), timeout=10) == 1
    assert ray.util.placement_group([{"CPU": 1}], name="new").wait(10)
    states = [group["state"] for group in ray.util.placement_group_table().values()]
    assert sorted(states) == ["CREATED", "REMOVED"]


def test_a_call_to_a_node_that_died_meanwhile_keeps_its_retries(
    durable: Callable[..., HandCluster], tmp_path: pathlib.Path
) -> None:
    cluster = durable(2, "--node-return-timeout", "1s")
    cluster.connect()
    there = NodeAffinitySchedulingStrategy(cluster.node_id(1), soft=True)
    actor = Counter.options(max_restarts=1, max_task_retries=1, scheduling_strategy=there).remote()
    started = tmp_path / "started"
    ref = actor.stay_once.remote(str(started))
    wait_until(started.exists, 30, "the call runs on the node that is to die")
    cluster.kill_gcs()
    cluster.raylets[1].end()
    time.sleep(1)  # it is looked for there again and again: the GCS cannot say that it is dead
    cluster.restart_gcs()
    assert ray.get(ref, timeout=30) == cluster.node_id(0)


def test_actor_that_died_meanwhile_is_noticed(durable: Callable[..., HandCluster]) -> None:
    cluster = durable(2)
    cluster.connect()
    lasting = Counter.options(max_restarts=1, max_task_retries=1, resources={"n1": 0.1}).remote()
    mortal = Counter.options(resources={"n1": 0.1}).remote()
    pids = ray.get([lasting.pid.remote(), mortal.pid.remote()], timeout=30)
    cluster.kill_gcs()
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    refs = [lasting.pid.remote(), mortal.pid.remote()]
    cluster.restart_gcs()
    assert ray.get(refs[0], timeout=30) not in pids
    with pytest.raises(ray.exceptions.ActorDiedError, match="signal 9"):
        ray.get(refs[1], timeout=30)


def test_node_that_died_meanwhile_is_given_up(durable: Callable[..., HandCluster]) -> None:
    cluster = durable(2, "--node-return-timeout", "1s")
    cluster.connect()
    there = NodeAffinitySchedulingStrategy(cluster.node_id(1), soft=True)
    actor = Counter.options(max_restarts=1, max_task_retries=-1, scheduling_strategy=there).remote()
    assert ray.get(actor.node.remote(), timeout=30) == cluster.node_id(1)
    cluster.kill_gcs()
    cluster.raylets[1].end()
    ref = actor.node.remote()
    cluster.restart_gcs()
    assert ray.get(ref, timeout=30) == cluster.node_id(0)
    dead = next(n for n in ray.nodes() if n["NodeID"] == cluster.node_id(1))
    assert not dead["Alive"]


def test_driver_that_died_meanwhile_takes_its_actors_along(durable: Callable[..., HandCluster]) -> None:
    cluster = durable(2)
    driver = start_driver(
        f"""
        import os, time, ray
        ray.init(address={cluster.driver_address(0)!r}, logging_level="ERROR")

        @ray.remote(num_cpus=0, resources={{"n1": 0.01}})
        class A:
            def pid(self):
                return os.getpid()

        a = A.remote()
        print(ray.get(a.pid.remote()), flush=True)
        time.sleep(1000)
        """
    )
    assert driver.stdout is not None
    pid = int(driver.stdout.readline())
    cluster.kill_gcs()
    driver.kill()
    driver.communicate(timeout=10)
    cluster.restart_gcs()
    wait_until(lambda: not alive(pid), 10, "its actor on the other node ends")


def test_gcs_that_does_not_come_back_ends_the_nodes(durable: Callable[..., HandCluster]) -> None:
    cluster = durable(2, raylet=("--gcs-reconnect-timeout", "1s"))
    cluster.connect()
    actor = Counter.remote()
    assert ray.get(actor.add.remote(), timeout=30) == 1
    below = [pid for raylet in cluster.raylets for pid in descendants(raylet.popen.pid)]
    began = time.monotonic()
    cluster.kill_gcs()
    with pytest.raises(ray.exceptions.RayError):
        ray.get(Counter.options(name="never").remote().add.remote(), timeout=30)
    assert 0.9 < time.monotonic() - began < 10
    assert [r.popen.wait(timeout=20) for r in cluster.raylets] == [3, 3]
    assert "was not back after 1s" in cluster.raylets[0].tail()
    wait_until(lambda: not [p for p in below if alive(p)], 10, "no worker is left")


def test_interrupt_ends_the_cluster(durable: Callable[..., HandCluster]) -> None:
    cluster = durable(2)
    cluster.gcs.send_signal(signal.SIGINT)
    assert cluster.gcs.popen.wait(timeout=10) == 0
    assert [r.popen.wait(timeout=20) for r in cluster.raylets] == [0, 0]


def test_gcs_without_the_tables_is_not_taken_for_the_same(
    durable: Callable[..., HandCluster], tmp_path: pathlib.Path
) -> None:
    cluster = durable(1)
    cluster.kill_gcs()
    for path in tmp_path.glob("gcs.sqlite*"):
        path.unlink()
    cluster.restart_gcs()
    assert cluster.raylets[0].popen.wait(timeout=20) == 3
    assert "does not know node" in cluster.raylets[0].tail()


def test_damaged_tables_are_refused(durable: Callable[..., HandCluster], tmp_path: pathlib.Path) -> None:
    cluster = durable(0)
    cluster.gcs.send_signal(signal.SIGTERM)
    assert cluster.gcs.popen.wait(timeout=10) == 0
    path = tmp_path / "gcs.sqlite"
    path.write_bytes(damaged := b"no longer a database" * 500)
    done = subprocess.run(
        [str(CORE / "gcs_server"), "--listen", "127.0.0.1:0", "--storage", f"sqlite:{path}", "--auth-mode", "disabled"],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 1
    assert f"{path} is damaged or no GCS database" in done.stderr
    assert path.read_bytes() == damaged


@pytest.mark.timeout(240)
def test_killed_at_random_moments_it_does_everything_once(durable: Callable[..., HandCluster]) -> None:
    cluster = durable(2)
    cluster.connect(namespace="n")
    stop = threading.Event()
    failures: list[BaseException] = []
    made: list[str] = []
    jobs_before = len(_internal_kv_list("", namespace="done"))

    def work(number: int) -> None:
        try:
            for i in range(1000):
                if stop.is_set():
                    return
                name = f"a{number}.{i}"
                actor = Counter.options(name=name, lifetime="detached").remote()
                assert ray.get(actor.add.remote(), timeout=60) == 1, name
                assert not _internal_kv_put(name, "mine", overwrite=False, namespace="done"), name
                group = ray.util.placement_group([{"CPU": 1}, {"CPU": 1}], strategy="STRICT_SPREAD")
                assert group.wait(60), name
                ray.util.remove_placement_group(group)
                assert ray.get(ray.get_actor(name).add.remote(), timeout=60) == 2, name
                made.append(name)
                if i % 2:
                    ray.kill(actor)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    chance = random.Random(20251127)
    for _ in range(12):
        time.sleep(chance.uniform(0.05, 0.6))
        cluster.kill_gcs()
        time.sleep(chance.uniform(0, 0.3))
        cluster.restart_gcs()
        if failures:
            break
    stop.set()
    for thread in threads:
        thread.join(60)
    assert not failures, failures[0]
    assert len(made) > 4
    kept = sorted(name for name in made if int(name.split(".")[1]) % 2 == 0)
    assert sorted(ray.util.list_named_actors()) == kept
    assert ray.get([ray.get_actor(name).add.remote() for name in kept], timeout=60) == [3] * len(kept)
    assert len(_internal_kv_list("", namespace="done")) - jobs_before == len(made)
    # Nothing is held any more but by nobody: all bundles came back.
    wait_until(lambda: ray.available_resources().get("CPU") == 2, 10, "all bundles are returned")


CLUSTER = """
import os, sys, time, ray
from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_put
ray.init("auto", namespace="n", logging_level="ERROR")

@ray.remote(num_cpus=0)
class C:
    n = 0
    def add(self):
        self.n += 1
        return self.n

if sys.argv[1] == "before":
    C.options(name="c", lifetime="detached").remote()
    group = ray.util.placement_group([{"CPU": 1}], name="g", lifetime="detached")
    assert group.wait(30)
    _internal_kv_put("k", "v", namespace="test")
print(ray.get(ray.get_actor("c").add.remote()), ray.util.get_placement_group("g").bundle_specs,
      _internal_kv_get("k", namespace="test"), ray.get(C.remote().add.remote()))
"""


def gcs_record(shell: Shell) -> session_dir.ProcessRecord:
    return next(r for r in session_dir.live_records(shell.root) if r.kind == session_dir.GCS)


def test_head_of_ray_start_goes_on_from_its_file(shell: Shell) -> None:
    shell.start_head()
    assert (shell.session_dir() / "gcs.sqlite").stat().st_mode & 0o777 == 0o600
    assert shell.drive(CLUSTER, "before") == "1 [{'CPU': 1.0}] b'v' 1"
    gcs = gcs_record(shell)
    command = pathlib.Path(f"/proc/{gcs.pid}/cmdline").read_bytes().decode().split("\0")[:-1]
    at = command.index("--ready-fd")
    del command[at : at + 2]
    command[command.index("--listen") + 1] = gcs.gcs_address
    os.kill(gcs.pid, signal.SIGKILL)
    wait_until(lambda: not alive(gcs.pid), 5, "it is gone")
    with subprocess.Popen(command, env=shell.env) as again:  # as a service manager would
        try:
            assert shell.drive(CLUSTER, "after") == "2 [{'CPU': 1.0}] b'v' 1"
        finally:
            again.terminate()


def test_ray_start_block_starts_the_gcs_again(shell: Shell) -> None:
    head = shell.spawn("start", "--head", "--port=0", "--node-ip-address=127.0.0.1", "--num-cpus=1", "--block")
    wait_until(lambda: (shell.root / "ray_current_cluster").exists(), 30, "it has started")
    assert shell.drive(CLUSTER, "before") == "1 [{'CPU': 1.0}] b'v' 1"
    for n in (2, 3):
        gcs = gcs_record(shell)
        os.kill(gcs.pid, signal.SIGKILL)
        wait_until(
            lambda pid=gcs.pid: [
                r for r in session_dir.live_records(shell.root) if r.kind == session_dir.GCS and r.pid != pid
            ],
            10,
            "there is another one",
        )
        assert shell.drive(CLUSTER, "after") == f"{n} [{{'CPU': 1.0}}] b'v' 1"
    head.send_signal(signal.SIGTERM)
    assert head.stdout is not None
    while "Draining" not in head.stdout.readline():  # the lines before tell of the restarts
        pass
    head.send_signal(signal.SIGTERM)  # the actor would hold it up
    output, _ = head.communicate(timeout=30)
    assert head.returncode == 0, output
    assert (shell.session_dir() / "logs" / "ray_process_exit.log").read_text().count("signal SIGKILL") == 2


def test_cluster_utils_can_start_it_again(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_gcs_storage", "sqlite")
    head = cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, namespace="n")
    actor = Counter.options(name="c").remote()
    assert ray.get(actor.add.remote(), timeout=30) == 1
    head.kill_gcs_server()
    assert ray.get(actor.add.remote(), timeout=30) == 2
    head.start_gcs_server()
    assert ray.get(ray.get_actor("c").add.remote(), timeout=30) == 3
    with pytest.raises(ray.exceptions.RaySystemError, match="head"):
        cluster.add_node(num_cpus=1).start_gcs_server()


def test_storage_comes_from_the_environment(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_gcs_storage", raising=False)
    monkeypatch.delenv("RAY_gcs_storage_path", raising=False)
    assert gcs_storage.flags(tmp_path, {}, durable=False) == []
    kept = gcs_storage.flags(tmp_path, {}, durable=True)
    assert kept == ["--storage", f"sqlite:{tmp_path}/gcs.sqlite"]
    assert gcs_storage.are_durable(kept) and not gcs_storage.outlive(kept, tmp_path)
    monkeypatch.setenv("RAY_gcs_storage", "memory")
    assert gcs_storage.flags(tmp_path, {}, durable=True) == ["--storage", "memory"]
    monkeypatch.setenv("RAY_gcs_storage", "rocksdb")
    with pytest.raises(ValueError, match="RAY_gcs_storage_path"):
        gcs_storage.flags(tmp_path, {}, durable=True)
    monkeypatch.setenv("RAY_gcs_storage_path", f"{tmp_path}/kept")
    kept = gcs_storage.flags(tmp_path, {}, durable=False)
    assert kept == ["--storage", f"sqlite:{tmp_path}/kept/gcs.sqlite"]
    assert gcs_storage.outlive(kept, tmp_path)
    with pytest.raises(ValueError, match="tape"):
        gcs_storage.flags(tmp_path, {"gcs_storage": "tape"}, durable=True)
