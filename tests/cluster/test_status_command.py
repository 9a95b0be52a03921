"""`ray status` of a cluster in which something waits."""

from __future__ import annotations

import time

from click.testing import CliRunner
from support.processes import wait_until

import ray
from ray.cli.main import cli
from ray.cluster_utils import Cluster
from ray.util import placement_group


def status(cluster: Cluster) -> str:
    done = CliRunner().invoke(cli, ["status", "--address", cluster.address])
    assert done.exit_code == 0, done.output
    return done.output


def test_what_waits_is_shown_by_shape_until_it_has_room(cluster: Cluster) -> None:
    cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
    assert "(no resource demands)" in status(cluster)

    @ray.remote(num_cpus=4)
    def large() -> None:
        time.sleep(0)

    @ray.remote(num_cpus=8)
    class Larger: ...

    refs = [large.remote() for _ in range(3)]
    actor = Larger.remote()
    group = placement_group([{"CPU": 2}, {"CPU": 2}], strategy="SPREAD")
    wanted = (
        "{'CPU': 4.0}:",
        "{'CPU': 8.0}: 1+ pending tasks/actors",
        "{'CPU': 2.0} * 2 (SPREAD): 1+ pending placement",
    )
    wait_until(lambda: all(text in status(cluster) for text in wanted), 30, "all of it is shown")

    cluster.add_node(num_cpus=16)
    ray.get(refs, timeout=30)
    ray.get(group.ready(), timeout=30)
    ray.get(actor.__ray_ready__.remote(), timeout=30)
    wait_until(lambda: "(no resource demands)" in status(cluster), 30, "nothing waits any more")
