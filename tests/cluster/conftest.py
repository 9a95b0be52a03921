"""Clusters of several nodes on this host."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterator

import pytest
from support.nodes import HandCluster


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
