"""ray.util without a cluster: lazy loading, metrics, log_once."""

from __future__ import annotations

import pickle
import subprocess
import sys
from typing import Any

import pytest

import ray
from ray.util import debug, metrics


def test_import_loads_nothing_heavy() -> None:
    """`import ray` has a budget of 60 ms: what only `init`, a worker or the command line needs is not loaded by it."""
    heavy = (
        *("asyncio", "cloudpickle", "concurrent.futures", "ctypes", "email", "http.client", "ipaddress"),
        *("multiprocessing", "numpy", "pathlib", "platform", "selectors", "shutil", "socket", "sqlite3", "ssl"),
        *("subprocess", "tempfile", "unittest", "urllib.parse", "uuid", "ray._runtime.accelerators"),
        *("ray._runtime.cluster_process", "ray._runtime.connect", "ray._runtime.worker_main", "ray.cli"),
        *("ray.util.state",),
    )
    code = f"import sys; had = set(sys.modules); import ray; print([m for m in {heavy} if m in {{*sys.modules}} - had])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_cloudpickle_is_reached_through_ray() -> None:
    assert pickle.loads(ray.cloudpickle.dumps(lambda: 3))() == 3
    with pytest.raises(AttributeError):
        _ = ray.cloudpickle.no_such_name


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError):
        _ = ray.util.no_such_name


def test_the_old_name_of_an_accelerator_is_known_and_warns() -> None:
    with pytest.warns(DeprecationWarning, match="NVIDIA_A100"):
        assert ray.util.accelerators.NVIDIA_TESLA_A100 == ray.util.accelerators.NVIDIA_A100
    with pytest.raises(AttributeError, match="NVIDIA_B52"):
        _ = ray.util.accelerators.NVIDIA_B52


def test_metrics_keep_defaults_and_boundaries_through_pickle() -> None:
    made = metrics.Histogram("t_latency", "d", [1.0, 2.0], ("a", "b")).set_default_tags({"a": "1"})
    assert pickle.loads(pickle.dumps(made)).info == made.info


def test_metrics_of_one_name_share_their_values() -> None:
    for _ in range(2):
        metrics.Counter("t_shared").inc(2)
    h = metrics.Histogram("t_buckets", boundaries=[1.0, 2.0])
    for value in (0.5, 1.0, 1.5, 9.0):
        h.observe(value)
    found = {s.name: s for s in metrics.snapshot()}
    assert found["t_shared"].value == 4
    assert (found["t_buckets"].value, found["t_buckets"].buckets) == (12.0, [2, 1, 1])


def test_gauges_show_flags_and_boundaries_may_come_in_any_order() -> None:
    metrics.Gauge("flag").set(True)
    metrics.Histogram("ordered", boundaries=[2.0, 1.0]).observe(1.5)
    seen = {series.name: series for series in metrics.snapshot()}
    assert seen["flag"].value == 1.0
    assert seen["ordered"].buckets == [0, 1, 0]


@pytest.mark.parametrize("arguments", [{"name": 5}, {"name": "a", "description": 5}, {"name": "a", "tag_keys": "b"}])
def test_metrics_are_named_by_text(arguments: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        metrics.Counter(**arguments)


def test_metrics_with_a_bad_name_are_dropped() -> None:
    with pytest.warns(UserWarning, match="dropped"):
        made = metrics.Counter("t-bad")
    made.inc()
    assert "t-bad" not in {s.name for s in metrics.snapshot()}
    with pytest.raises(ValueError):
        metrics.Histogram("t_none")


def test_log_once() -> None:
    debug.reset_log_once("k")
    assert [debug.log_once("k"), debug.log_once("k")] == [True, False]
    debug.reset_log_once("k")
    assert debug.log_once("k")


def test_old_names_lead_to_the_present_ones() -> None:
    import ray.experimental.dynamic_resources
    import ray.experimental.multiprocessing
    import ray.experimental.queue
    import ray.internal
    from ray import _raylet, _version
    from ray.experimental import tqdm_ray

    assert ray.experimental.queue.Queue is ray.util.queue.Queue
    assert ray.experimental.multiprocessing.Pool is ray.util.multiprocessing.Pool
    with pytest.raises(DeprecationWarning, match="placement groups"):
        ray.experimental.dynamic_resources.set_resource("x", 1)
    assert tqdm_ray.instance() is tqdm_ray.instance()
    assert (_version.version, _version.commit) == (ray.__version__, ray.__commit__)
    assert _raylet.RAY_NODE_ID_KEY == "ray.io/node-id"
    assert ray.util.num_connected_contexts() == 0
