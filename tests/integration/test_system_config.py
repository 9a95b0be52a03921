"""`_system_config` holds for the driver and for its workers."""

from __future__ import annotations

import ray


def test_the_size_from_which_values_go_to_the_store() -> None:
    ray.init(address="local", num_cpus=1, logging_level="ERROR", _system_config={"max_direct_call_object_size": 1000})
    try:

        @ray.remote
        def make() -> bytes:
            return bytes(2000)

        refs = [ray.put(bytes(2000)), make.remote()]
        assert len(ray.wait(refs, num_returns=2, timeout=60)[0]) == 2
        found = ray.experimental.get_object_locations(refs)
        assert [bool(found[ref]["node_ids"]) for ref in refs] == [True, True]
    finally:
        ray.shutdown()


def test_settings_of_worker_processes() -> None:
    ray.init(address="local", num_cpus=1, logging_level="ERROR", _system_config={"preload_python_modules": "colorsys"})
    try:

        @ray.remote
        def imported() -> bool:
            import sys

            return "colorsys" in sys.modules

        assert ray.get(imported.remote(), timeout=60)
    finally:
        ray.shutdown()
