"""Clusters of several nodes on this host."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterator

import pytest
from support.networks import Network, NotPermitted
from support.nodes import HandCluster
from support.shell import Shell

import ray
from ray.cluster_utils import Cluster


@pytest.fixture
def cluster_of(tmp_path: pathlib.Path) -> Iterator[Callable[..., HandCluster]]:
    """A function that starts a cluster: cluster_of(2) has two nodes. It ends with the test."""
    made: list[HandCluster] = []

    def start(nodes: int, *gcs_arguments: str, host: str = "127.0.0.1") -> HandCluster:
        made.append(HandCluster(tmp_path / f"c{len(made)}", *gcs_arguments, host=host))
        for _ in range(nodes):
            made[-1].add_raylet()
        return made[-1]

    (tmp_path / "c0").mkdir()
    yield start
    for cluster in made:
        cluster.close()


@pytest.fixture
def network_of() -> Iterator[Callable[..., Network]]:
    """network_of(3) is a network of three machines; it ends with the test, which is skipped where none can be made."""
    made: list[Network] = []

    def make(size: int, **kind: bool) -> Network:
        try:
            made.append(Network(size, **kind))
        except NotPermitted as error:
            pytest.skip(str(error))
        return made[-1]

    yield make
    for network in made:
        network.close()
        assert network.left_over() == []


@pytest.fixture
def shell(tmp_path: pathlib.Path) -> Iterator[Shell]:
    made = Shell(tmp_path)
    yield made
    made.end()


@pytest.fixture
def cluster(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    made = Cluster()
    yield made
    ray.shutdown()
    made.shutdown()
