import pytest

from ray._runtime import system_config


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
