"""A GCS that keeps its tables in a Redis server, and heads that take each other's place."""

from __future__ import annotations

import pathlib
import socket
import subprocess
from collections.abc import Callable, Iterator

import pytest
from support.actors import Counting
from support.certificates import make_certificates
from support.nodes import HandCluster
from support.processes import free_port, run_driver, wait_until

import ray
from ray._runtime import gcs_storage
from ray.cluster_utils import Cluster
from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_put

COUNT = """
import os, ray
ray.init({address!r}, namespace="n", logging_level="ERROR")

@ray.remote
class C:
    n = 0
    def add(self):
        self.n += 1
        return [self.n, os.getpid()]

print(*ray.get(C.options(name="c", lifetime="detached", get_if_exists=True).remote().add.remote(), timeout=30))
"""


@ray.remote(num_cpus=0)
class Counter(Counting):
    pass


@pytest.fixture
def redis(tmp_path: pathlib.Path) -> Iterator[Callable[..., int]]:
    """Starts a redis-server with further arguments; its port. `tls`: that is what the port speaks."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str, tls: bool = False) -> int:
        for _ in range(5):  # between the choice of a port and its use another process may take it
            port = free_port()
            ports = ("--port", "0", "--tls-port", str(port)) if tls else ("--port", str(port))
            command = ["redis-server", *ports, "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path), *arguments]
            server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            started.append(server)

            def listens(server: subprocess.Popen[bytes] = server, port: int = port) -> bool:
                with socket.socket() as probe:
                    return server.poll() is not None or probe.connect_ex(("127.0.0.1", port)) == 0

            wait_until(listens, 10, "redis-server listens")
            if server.poll() is None:
                return port
        raise AssertionError("no redis-server could be started")

    yield start
    for server in started:
        server.kill()
        server.wait()


def test_with_tls_and_a_password(redis: Callable[..., int], tmp_path: pathlib.Path) -> None:
    make_certificates(tmp_path, ["redis.test", "gcs"])
    port = redis(
        *("--requirepass", "secret"),
        *("--tls-cert-file", str(tmp_path / "redis.test.pem"), "--tls-key-file", str(tmp_path / "redis.test.key")),
        *("--tls-ca-cert-file", str(tmp_path / "ca.pem"), "--tls-auth-clients", "yes"),
        tls=True,
    )
    (tmp_path / "password").write_text("secret\n")
    (tmp_path / "c").mkdir()
    cluster = HandCluster(
        tmp_path / "c",
        *("--storage", f"rediss://127.0.0.1:{port}", "--redis-password-file", str(tmp_path / "password")),
        *("--redis-ca-cert", str(tmp_path / "ca.pem"), "--redis-server-name", "redis.test"),
        *("--redis-client-cert", str(tmp_path / "gcs.pem"), "--redis-client-key", str(tmp_path / "gcs.key")),
    )
    try:
        cluster.add_raylet()
        cluster.connect(namespace="n")
        actor = Counter.options(name="c", lifetime="detached").remote()
        assert ray.get(actor.add.remote(), timeout=30) == 1
        _internal_kv_put("k", "v", namespace="test")
        cluster.kill_gcs()
        assert ray.get(actor.add.remote(), timeout=30) == 2
        cluster.restart_gcs()
        assert ray.get(ray.get_actor("c").add.remote(), timeout=30) == 3
        assert _internal_kv_get("k", namespace="test") == b"v"
        assert "secret" not in cluster.gcs.tail()
    finally:
        cluster.close()


def test_a_new_head_takes_the_place_of_one_that_was_lost(
    redis: Callable[..., int], cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_REDIS_ADDRESS", f"127.0.0.1:{redis()}")
    monkeypatch.setenv("RAY_GCS_SERVER_PORT", str(free_port()))
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0123456789abcdef" * 4)  # one that a head made would be lost with it
    head = cluster.add_node(num_cpus=0)
    cluster.add_node(num_cpus=1)

    def count() -> list[str]:
        done = run_driver(COUNT.format(address=cluster.address))
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    n, pid = count()
    assert n == "1"
    cluster.remove_node(head, allow_graceful=False)
    cluster.add_node(num_cpus=0)
    assert count() == ["2", pid]


def test_the_password_may_be_given_to_the_head(
    redis: Callable[..., int], cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_REDIS_ADDRESS", f"127.0.0.1:{redis('--requirepass', 'secret')}")
    monkeypatch.setenv("RAY_REDIS_PASSWORD", "another")
    head = cluster.add_node(num_cpus=0, redis_password="secret")
    assert head.remaining_processes_alive()


def test_flags(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_REDIS_ADDRESS", "h:1,h:2")
    monkeypatch.setenv("RAY_REDIS_PASSWORD", "secret")
    monkeypatch.setenv("RAY_external_storage_namespace", "mine")
    made = gcs_storage.flags(tmp_path, {}, durable=False)
    assert gcs_storage.outlive(made, tmp_path)
    assert made[:4] == ["--storage", "redis://h:1", "--redis-namespace", "mine"]
    assert "secret" not in made
    file = tmp_path / "redis_password"
    assert made[-2:] == ["--redis-password-file", str(file)]
    assert file.read_text() == "secret\n" and file.stat().st_mode & 0o777 == 0o600
    monkeypatch.setenv("RAY_REDIS_ADDRESS", "redis://h:1,redis://user:hidden@h:2")
    with pytest.raises(ValueError, match="RAY_REDIS_USERNAME and RAY_REDIS_PASSWORD") as caught:
        gcs_storage.flags(tmp_path, {}, durable=False)
    assert "hidden" not in str(caught.value)
    monkeypatch.delenv("RAY_REDIS_ADDRESS")
    with pytest.raises(ValueError, match="RAY_REDIS_ADDRESS"):
        gcs_storage.flags(tmp_path, {"gcs_storage": "redis"}, durable=False)
