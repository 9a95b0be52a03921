"""What a node tells of its resources, and when, with reports that are a minute apart."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import ray
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy as InGroup


@pytest.fixture(autouse=True)
def cluster() -> Iterator[None]:
    ray.init(num_cpus=2, _system_config={"raylet_report_resources_period_milliseconds": 60_000})
    yield
    ray.shutdown()


@ray.remote(num_cpus=1)
class Tenant:
    def lives(self) -> bool:
        return True


@ray.remote(num_cpus=1)
def works() -> bool:
    return True


def test_a_group_takes_the_place_of_one_that_was_in_use_at_once() -> None:
    for _ in range(5):
        group = placement_group([{"CPU": 1}, {"CPU": 1}])
        assert group.wait(10), "nothing but a report can tell that the one before it has gone"
        tenant = Tenant.options(scheduling_strategy=InGroup(group, 0)).remote()
        assert ray.get(
            [tenant.lives.remote(), works.options(scheduling_strategy=InGroup(group, 1)).remote()], timeout=10
        ) == [True, True]
        remove_placement_group(group)
