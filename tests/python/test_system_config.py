import re
import subprocess

import pytest

from ray._runtime import config_table, processes, session, system_config


def test_nothing_is_passed_that_nobody_set(monkeypatch):
    for name in system_config._RAYLET:
        monkeypatch.delenv(f"RAY_{name}", raising=False)
    assert system_config.raylet_flags({}) == []
    assert system_config.gcs_flags({}) == []


def test_what_was_given_goes_before_the_environment(monkeypatch):
    monkeypatch.setenv("RAY_memory_usage_threshold", "0.5")
    monkeypatch.setenv("RAY_worker_cap_enabled", "0")
    assert system_config.raylet_flags({}) == ["--memory-usage-threshold=0.5", "--worker-cap=false"]
    assert "--memory-usage-threshold=0.7" in system_config.raylet_flags({"memory_usage_threshold": 0.7})


def test_units():
    flags = system_config.raylet_flags({"memory_monitor_refresh_ms": 250, "worker_register_timeout_seconds": 1.5})
    assert flags == ["--memory-monitor-refresh=250ms", "--worker-register-timeout=1500ms"]


@pytest.mark.parametrize(
    ("program", "rows"), [("raylet", system_config._RAYLET), ("gcs_server", system_config._GCS)], ids=["raylet", "gcs"]
)
def test_the_executables_have_the_flags_that_settings_become(program, rows):
    known = set()
    for show in ("--help", "--help-config"):
        shown = subprocess.run([processes.binary(program), show], capture_output=True, text=True, check=True).stdout
        known |= {f"--{name}" for name in re.findall(r"^  --(?:\[no-\])?([a-z-]+) ", shown, re.MULTILINE)}
    for name, make in rows.items():
        default = config_table.DEFAULTS.get(name, 1)
        flags = [flag for value in (default, 1, 0) for flag in make(value)]
        assert flags, name
        assert {flag.partition("=")[0] for flag in flags} <= known, name


def test_bad_values(monkeypatch):
    with pytest.raises(ValueError, match="memory_monitor_refresh_ms"):
        system_config.raylet_flags({"memory_monitor_refresh_ms": "soon"})
    monkeypatch.setenv("RAY_num_workers_soft_limit", "many")
    with pytest.raises(ValueError, match="RAY_num_workers_soft_limit"):
        system_config.raylet_flags({})


def test_the_accessor(monkeypatch):
    assert system_config.CONFIG.max_direct_call_object_size() == 102400
    monkeypatch.setenv("RAY_max_direct_call_object_size", "5")
    assert system_config.CONFIG.max_direct_call_object_size() == 5
    with pytest.raises(AttributeError):
        system_config.CONFIG.nothing  # noqa: B018


@pytest.mark.parametrize(
    ("given", "options"),
    [
        ({"testing_rpc_failure": "KvGet=0.5", "testing_asio_delay_us": "KvPut=5:7"}, ["rpc_faults"]),
        ({"testing_rpc_failure_seed": 3}, ["rpc_faults_seed"]),
        ({"gcs_server_request_timeout_seconds": 7}, ["gcs_timeout_ms"]),
        ({"max_direct_call_object_size": 1000}, ["max_inline_bytes"]),
        ({"max_lineage_bytes": 5000}, ["lineage_cap_bytes"]),
        ({"lineage_pinning_enabled": False}, ["lineage_cap_bytes"]),
        ({"lineage_pinning_enabled": 0}, ["lineage_cap_bytes"]),
        ({"task_oom_retries": 4, "task_oom_retry_delay_base_ms": 20}, ["oom_retries", "oom_backoff_ms"]),
    ],
    ids=str,
)
def test_what_a_driver_acts_on_reaches_workers_too(given, options, monkeypatch):
    plain, of_driver = session.core_options(), session.core_options(given)
    assert [name for name in plain if of_driver[name] != plain[name]] == sorted(options, key=list(plain).index)
    for name, value in system_config.worker_environment(given).items():
        monkeypatch.setenv(name, value)
    assert session.core_options() == of_driver


def test_a_bad_setting_of_drivers_is_named():
    with pytest.raises(ValueError, match="'max_direct_call_object_size' cannot be 'big'"):
        session.core_options({"max_direct_call_object_size": "big"})


def test_settings_of_a_node_are_the_clusters():
    assert system_config.agreed({"a": 1, "b": 2}, {"b": 2}) == {"a": 1, "b": 2}
    with pytest.raises(ValueError, match=r"_system_config\['b'\] cannot be 3 for one node.* has 2"):
        system_config.agreed({"b": 2}, {"b": 3})
    with pytest.raises(ValueError, match="does not set it"):
        system_config.agreed({}, {"b": 3})
