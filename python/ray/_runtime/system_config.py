"""Settings of the cluster: RAY_<name> in the environment, under what `_system_config` says.

Those that a raylet has are handed to it as flags; `Config` answers for `ray._config`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from typing import Any

from ray._runtime.config_table import DEFAULTS

logger = logging.getLogger("ray")

Setting = bool | int | float | str


def _plain(flag: str) -> Callable[[Any], list[str]]:
    return lambda value: [f"--{flag}={value}"]


def _millis(flag: str) -> Callable[[Any], list[str]]:
    return lambda value: [f"--{flag}={int(value)}ms"]


def _seconds(flag: str) -> Callable[[Any], list[str]]:
    return lambda value: [f"--{flag}={int(float(value) * 1000)}ms"]


def _switch(flag: str) -> Callable[[Any], list[str]]:
    return lambda value: [f"--{flag}={'true' if value else 'false'}"]


def _unless_negative(make: Callable[[Any], list[str]]) -> Callable[[Any], list[str]]:
    return lambda value: make(value) if value >= 0 else []


# Ray's name -> what it is for our raylet. Only what somebody set is passed: the defaults are the raylet's own.
_RAYLET: dict[str, Callable[[Any], list[str]]] = {
    "count_swap_in_memory_monitor": _switch("count-swap"),
    "gcs_rpc_server_reconnect_timeout_s": _seconds("gcs-reconnect-timeout"),
    "idle_worker_killing_time_threshold_ms": _millis("worker-idle-timeout"),
    "local_fs_capacity_threshold": _plain("max-disk-use"),
    "max_fused_object_count": _plain("max-spill-file-objects"),
    "memory_monitor_refresh_ms": _millis("memory-monitor-refresh"),
    "memory_usage_threshold": _plain("memory-usage-threshold"),
    "min_memory_free_bytes": _unless_negative(_plain("min-memory-free-bytes")),
    "min_spilling_size": _plain("max-spill-file-bytes"),
    "num_workers_soft_limit": _unless_negative(_plain("worker-max-idle")),
    "object_spilling_threshold": _plain("spill-threshold"),
    "oom_grace_period_s": _seconds("overflow-grace"),
    "prestart_worker_first_driver": lambda value: [] if value else ["--worker-prestart=0"],
    "raylet_report_resources_period_milliseconds": _millis("report-interval"),
    "worker_cap_enabled": _switch("worker-cap"),
    "worker_cap_initial_backoff_delay_ms": _millis("worker-cap-delay"),
    "worker_cap_max_backoff_delay_ms": _millis("worker-cap-max-delay"),
    "worker_killing_policy_by_group": _switch("worker-killing-policy-by-group"),
    "worker_maximum_startup_concurrency": lambda value: [f"--worker-max-parallel-starts={value}"] if value > 0 else [],
    "worker_register_timeout_seconds": _seconds("worker-register-timeout"),
}
# The same for the GCS.
_GCS: dict[str, Callable[[Any], list[str]]] = {
    "health_check_failure_threshold": _plain("health-check-threshold"),
    "health_check_period_ms": _millis("health-check-period"),
    "health_check_timeout_ms": _millis("health-check-timeout"),
    "maximum_gcs_dead_node_cached_count": _plain("max-dead-nodes"),
    "maximum_gcs_dead_worker_cached_count": _plain("max-dead-workers"),
    "maximum_gcs_destroyed_actor_cached_count": _plain("max-dead-actors"),
    # Not of Ray, which does not forget these.
    "maximum_gcs_finished_job_cached_count": _plain("max-finished-jobs"),
    "maximum_gcs_removed_placement_group_cached_count": _plain("max-removed-placement-groups"),
}
# Of every process: its messages fare badly, for tests.
FAULTS = "testing_rpc_failure"
FAULTS_SEED = "testing_rpc_failure_seed"
DELAYS = "testing_asio_delay_us"
_EVERY: dict[str, Callable[[Any], list[str]]] = {
    FAULTS_SEED: _plain("testing-rpc-failure-seed"),
}
# How long a driver or worker waits for an answer of the GCS.
GCS_TIMEOUT = "gcs_server_request_timeout_seconds"
# What drivers and workers act on themselves.
_WORKER = (
    FAULTS,
    DELAYS,
    FAULTS_SEED,
    GCS_TIMEOUT,
    "actor_graceful_shutdown_timeout_ms",
    "lineage_pinning_enabled",
    "max_direct_call_object_size",
    "max_ended_tasks_per_owner",
    "max_lineage_bytes",
    "preload_python_modules",
    "process_group_cleanup_enabled",
    "record_ref_creation_sites",
    "task_events_report_interval_ms",
    "task_oom_retries",
    "task_oom_retry_delay_base_ms",
    "worker_niceness",
    "worker_oom_score_adjustment",
)
# Our own, for tests: where the memory monitor finds proc/ and sys/; which messages fare badly.
_OWN: dict[str, Callable[[Any], list[str]]] = {"memory_root": _plain("memory-root"), FAULTS_SEED: _EVERY[FAULTS_SEED]}


def faults(given: Mapping[str, Any]) -> str:
    """What the messages of each process are to suffer, as the core takes it; Ray's METHOD=MIN:MAX delays included.

    Raises:
        ValueError: a delay that is not of that form.
    """
    entries = [str(lookup(FAULTS, given) or "")]
    for entry in filter(None, str(lookup(DELAYS, given) or "").split(",")):
        method, _, delay = entry.partition("=")
        least, _, most = delay.partition(":")
        if not (method and least.isdigit() and most.isdigit()):
            raise ValueError(f"{DELAYS}: {entry!r} is not METHOD=MIN:MAX in microseconds.")
        entries.append(f"{method}=:delay=100@{least}us-{most}us")
    return ",".join(filter(None, entries))


def parse(name: str, text: str) -> Setting:
    """The value of a setting as the environment gives it, of the type of its default.

    Raises:
        ValueError: it is not of that type.
    """
    default = DEFAULTS.get(name, "")
    try:
        if isinstance(default, bool):
            return text.lower() in ("1", "true")
        if isinstance(default, int):
            return int(text)
        if isinstance(default, float):
            return float(text)
    except ValueError:
        raise ValueError(f"RAY_{name} must be of the type {type(default).__name__}, got {text!r}.") from None
    return text


def lookup(name: str, given: Mapping[str, Any]) -> Setting | None:
    """What somebody set: `given` goes before the environment. None: nobody did."""
    if name in given:
        value: Setting = given[name]
        return value
    text = os.environ.get(f"RAY_{name}")
    return parse(name, text) if text else None  # as everywhere, an empty one counts as not set


def raylet_flags(given: Mapping[str, Any]) -> list[str]:
    """Flags of a raylet for the settings that somebody changed.

    Raises:
        ValueError: a value of the wrong type.
    """
    unknown = sorted(set(given) - set(DEFAULTS) - set(_OWN))
    if unknown:
        logger.warning("Unknown names in _system_config, which have no effect: %s", ", ".join(unknown))
    return _flags({**_RAYLET, **_OWN, **_EVERY}, given) + _fault_flags(given)


def gcs_flags(given: Mapping[str, Any]) -> list[str]:
    """The same for the GCS."""
    return _flags({**_GCS, **_EVERY}, given) + _fault_flags(given)


def _fault_flags(given: Mapping[str, Any]) -> list[str]:
    text = faults(given)
    return [f"--testing-rpc-failure={text}"] if text else []


def records_sites(given: Mapping[str, Any]) -> bool:
    """Whether drivers and workers record where refs are made."""
    return bool(lookup("record_ref_creation_sites", given))


def worker_environment(given: Mapping[str, Any]) -> dict[str, str]:
    """What a raylet's environment must have so that its workers act on `given`, too."""
    return {f"RAY_{name}": str(given[name]) for name in _WORKER if name in given}


def agreed(cluster: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a node that joins: those of the cluster, which its head was started with.

    Raises:
        ValueError: `own` says anything else.
    """
    for name, value in own.items():
        if name not in cluster or cluster[name] != value:
            theirs = f"has {cluster[name]!r}" if name in cluster else "does not set it"
            what = f"_system_config[{name!r}] cannot be {value!r} for one node"
            raise ValueError(f"{what}: settings are the cluster's, whose head {theirs}.")
    return dict(cluster)


def _flags(table: Mapping[str, Callable[[Any], list[str]]], given: Mapping[str, Any]) -> list[str]:
    flags: list[str] = []
    for name, make in table.items():
        value = lookup(name, given)
        if value is None:
            continue
        try:
            flags += make(value)
        except (TypeError, ValueError):
            raise ValueError(f"The setting {name!r} cannot be {value!r}.") from None
    return flags


class Config:
    """`ray._config`: a method for each setting, which returns what the environment says, else Ray's default.

    What `_system_config` says is not seen, and where Ray's default is not ours (`--help-config` of gcs_server and
    raylet tells those) the answer is Ray's.
    """

    def __getattr__(self, name: str) -> Callable[[], Setting]:
        if name not in DEFAULTS:
            raise AttributeError(f"there is no setting {name!r}")

        def read() -> Setting:
            value = lookup(name, {})
            return DEFAULTS[name] if value is None else value

        return read

    def __dir__(self) -> list[str]:
        return sorted(DEFAULTS)


CONFIG = Config()
