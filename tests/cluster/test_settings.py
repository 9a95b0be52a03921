"""`_system_config` of the head is that of the whole cluster."""

from __future__ import annotations

import json
import os
import pathlib
import sys
from typing import Any

import pytest
from support.shell import Shell

import ray
from ray.cluster_utils import Cluster

SETTINGS = {
    "max_direct_call_object_size": 1000,
    "preload_python_modules": "colorsys",
    "record_ref_creation_sites": True,
}
GUEST = """
import json, os, sys, ray
ray.init(sys.argv[1], logging_level="ERROR", log_to_driver=False)

@ray.remote(num_cpus=0, resources={"guest": 1})
def look():
    return "colorsys" in sys.modules, ray.put(0).call_site()

print(json.dumps(ray.get(look.remote())))
"""


@ray.remote(num_cpus=0, resources={"guest": 1})
def look() -> dict[str, Any]:
    large = ray.put(bytes(2000))
    return {
        "module": "colorsys" in sys.modules,
        "in store": bool(ray.experimental.get_object_locations([large])[large]["node_ids"]),
        "site": large.call_site(),
    }


@pytest.fixture
def with_guest(cluster: Cluster) -> Cluster:
    cluster.add_node(num_cpus=1, _system_config=SETTINGS)
    cluster.add_node(num_cpus=1, resources={"guest": 1})
    return cluster


def test_they_hold_on_nodes_that_join_and_for_drivers(with_guest: Cluster) -> None:
    ray.init(with_guest.address, logging_level="ERROR", log_to_driver=False)
    found = ray.get(look.remote(), timeout=60)
    assert found["module"] and found["in store"] and "in look" in found["site"]
    here = ray.put(bytes(2000))
    assert ray.experimental.get_object_locations([here])[here]["node_ids"]
    assert os.path.basename(__file__) in here.call_site()
    assert os.path.basename(__file__) in look.remote().call_site()


def test_a_node_cannot_have_others(with_guest: Cluster) -> None:
    with_guest.add_node(_system_config={"max_direct_call_object_size": 1000})
    with pytest.raises(ValueError, match="head has 1000"):
        with_guest.add_node(_system_config={"max_direct_call_object_size": 5})
    with pytest.raises(ValueError, match="does not set it"):
        with_guest.add_node(_system_config={"max_io_workers": 1})
    with pytest.raises(ValueError, match="_system_config must not be given"):
        ray.init(with_guest.address, _system_config={"max_io_workers": 1})


def test_they_reach_a_node_that_joins_from_elsewhere(shell: Shell, tmp_path: pathlib.Path) -> None:
    address = shell.start_head(f"--system-config={json.dumps(SETTINGS)}")
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    other = Shell(folder, RAY_AUTH_TOKEN=shell.run("get-auth-token"))
    try:
        other.run("start", f"--address={address}", "--num-cpus=1", '--resources={"guest": 1}')
        for where in (shell, other):
            module, site = json.loads(where.drive(GUEST, address))
            assert module and "in look" in site
    finally:
        other.end()
