"""The flags that describe a node, for `ray start` and `ray symmetric-run`, and what they mean."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ray import options as opts
from ray._runtime import environment
from ray._runtime.cluster_process import NodeOptions

_DRAIN_S = 30.0


def _option(*names: str, **attributes: Any) -> Callable[[Any], Any]:
    return click.option(*names, **attributes)


_REDIS = "For the Redis server that keeps the cluster's tables, where RAY_REDIS_ADDRESS names one (head only)."
# What has an effect.
_NODE = [
    _option("--node-ip-address", metavar="IP", help="Address of this node, as others see it. Default: found out."),
    _option("--num-cpus", type=click.IntRange(0), help="CPUs to schedule. Default: those that there are."),
    _option("--num-gpus", type=click.IntRange(0), help="GPUs to schedule. Default: those that there are."),
    _option("--resources", metavar="JSON", default="{}", help="Custom resources, as in '{\"special\": 2}'."),
    _option("--memory", type=click.IntRange(1), help="Bytes of memory to schedule. Default: what the store leaves."),
    _option("--object-store-memory", type=click.IntRange(1), help="Bytes. Default: 30 % of what is free."),
    _option("--labels", metavar="K=V,...", default="", help="Labels of the node."),
    _option("--labels-file", type=click.Path(exists=True, dir_okay=False), help="Labels, one `key: value` in a line."),
    _option("--node-name", help="Name for people. Default: the node's id."),
    _option("--node-manager-port", type=click.IntRange(0, 65535), default=0, help="The node's one port. 0: any free."),
    _option("--object-spilling-directory", metavar="DIRS", help="Where objects go when the store is full."),
    _option("--temp-dir", metavar="DIR", help="Where session directories are. Default: $RAY_TMPDIR/ray or /tmp/ray."),
    _option("--redis-username", metavar="NAME", help=f"{_REDIS} Default: $RAY_REDIS_USERNAME, or its default user."),
    _option(
        "--redis-password",
        metavar="PASSWORD",
        help=f"{_REDIS} Default: $RAY_REDIS_PASSWORD, which shows in no list of processes.",
    ),
    _option("--no-redirect-output", is_flag=True, help="Logs go to the terminal instead of files."),
]

_ONE_PORT = "a node has one port, --node-manager-port"
_NO_DASHBOARD = "there is no dashboard yet"
_NO_AGENTS = "there are no agent processes"
_UNIX = "workers open no port"
# Ray's flags for what this engine does not have: accepted, so that commands and scripts run unchanged.
_POINTLESS: list[tuple[str, Any, str]] = [
    ("--object-manager-port", int, _ONE_PORT),
    ("--min-worker-port", int, _UNIX),
    ("--max-worker-port", int, _UNIX),
    ("--worker-port-list", str, _UNIX),
    ("--ray-client-server-port", int, "ray:// takes the port of the GCS, and tries 6379 for 10001"),
    ("--dashboard-host", str, _NO_DASHBOARD),
    ("--dashboard-port", int, _NO_DASHBOARD),
    ("--dashboard-agent-listen-port", int, _NO_AGENTS),
    ("--dashboard-agent-grpc-port", int, _NO_AGENTS),
    ("--runtime-env-agent-port", int, _NO_AGENTS),
    ("--metrics-export-port", int, "metrics are not exported yet"),
    ("--plasma-directory", str, "the object store lives in anonymous memory"),
    ("--tracing-startup-hook", str, "there is no tracing yet"),
    ("--system-reserved-cpu", float, "there is no isolation by control groups yet"),
    ("--system-reserved-memory", int, "there is no isolation by control groups yet"),
    ("--cgroup-path", str, "there is no isolation by control groups yet"),
    ("--proxy-server-url", str, _NO_DASHBOARD),
]
_POINTLESS_SWITCHES: list[tuple[str, str]] = [
    ("--enable-object-reconstruction", "objects are always computed again where that is allowed"),
    ("--ray-debugger-external", "there is no remote debugger"),
    ("--disable-usage-stats", "nothing is ever reported to anybody"),
    ("--no-monitor", "there is no autoscaler yet"),
    ("--enable-resource-isolation", "there is no isolation by control groups yet"),
]
_PLAIN = "what this command says is plain text"
_OF_MESSAGES: list[tuple[str, click.Choice[str]]] = [
    ("--log-style", click.Choice(["auto", "record", "pretty"])),
    ("--log-color", click.Choice(["auto", "false", "true"])),
]
_POINTLESS_BOOLEANS: list[tuple[str, str]] = [
    ("--include-log-monitor", "the raylet forwards what workers print"),
]


def node_flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds them to a click command."""
    flags = list(_NODE)
    for name, kind, why in _POINTLESS:
        flags.append(_option(name, type=kind, expose_value=False, help=_without_effect(why)))
    for name, why in _POINTLESS_SWITCHES:
        flags.append(_option(name, is_flag=True, expose_value=False, help=_without_effect(why)))
    for name, why in _POINTLESS_BOOLEANS:
        flags.append(_option(name, type=bool, expose_value=False, help=_without_effect(why)))
    for flag in reversed(flags):
        command = flag(command)
    return command


def message_flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds Ray's flags for how a command talks, which have no effect, to a click command."""
    command = _option("-v", "--verbose", is_flag=True, expose_value=False, help=_without_effect(_PLAIN))(command)
    for name, kind in reversed(_OF_MESSAGES):
        command = _option(name, type=kind, expose_value=False, help=_without_effect(_PLAIN))(command)
    return command


def _without_effect(why: str) -> str:
    return f"Accepted, without effect: {why}."


def options_from(given: dict[str, Any]) -> NodeOptions:
    """What the flags say. Raises click.BadParameter."""
    store = given["object_store_memory"]
    if store is not None and store < opts.MIN_STORE_BYTES:
        raise click.BadParameter(
            f"at least {opts.MIN_STORE_BYTES} bytes are needed.", param_hint="--object-store-memory"
        )
    labels = {**_labels_of_file(given["labels_file"]), **parse_labels(given["labels"])}
    try:
        opts.check_node_labels(labels)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--labels") from None
    return NodeOptions(
        num_cpus=given["num_cpus"],
        num_gpus=given["num_gpus"],
        resources=parse_resources(given["resources"]),
        labels=labels,
        object_store_memory=store,
        memory=given["memory"],
        node_name=given["node_name"],
        object_spilling_directory=given["object_spilling_directory"],
        port=given["node_manager_port"],
        redirect_output=not given["no_redirect_output"],
        redis_username=given["redis_username"],
        redis_password=given["redis_password"],
        drain_s=drain_seconds(),
        log_level=environment.log_level() if os.environ.get("RAY_BACKEND_LOG_LEVEL") else None,
    )


def drain_seconds() -> float:
    """How long running work may go on after SIGTERM."""
    text = os.environ.get("RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S") or _DRAIN_S
    try:
        return max(0.0, float(text))
    except ValueError:
        raise click.ClickException(
            f"RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S must be a number of seconds, got {text!r}."
        ) from None


def parse_resources(text: str) -> dict[str, float]:
    """Of --resources. Raises click.BadParameter."""
    hint = "--resources"
    try:
        got = json.loads(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is not JSON: {error}", param_hint=hint) from None
    if not isinstance(got, dict):
        raise click.BadParameter(f"{text!r} is not a JSON object.", param_hint=hint)
    for name, amount in got.items():
        if name in ("CPU", "GPU", "memory", "object_store_memory"):
            raise click.BadParameter(f"{name} has a flag of its own.", param_hint=hint)
        if isinstance(amount, bool) or not isinstance(amount, (int, float)) or not 0 <= amount <= 1e14:
            raise click.BadParameter(f"{name} must be a number from 0 to 1e14, got {amount!r}.", param_hint=hint)
        if amount != math.floor(amount):
            raise click.BadParameter(f"{name} must be a whole number, got {amount!r}.", param_hint=hint)
    return got


def parse_labels(text: str) -> dict[str, str]:
    """Of --labels. Raises click.BadParameter."""
    labels = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        key, equals, value = item.partition("=")
        if not equals or not key.strip():
            raise click.BadParameter(f"{item!r} is not KEY=VALUE.", param_hint="--labels")
        labels[key.strip()] = value.strip()
    return labels


def _labels_of_file(path: str | None) -> dict[str, str]:
    labels: dict[str, str] = {}
    if path is None:
        return labels
    for line in Path(path).read_text().splitlines():
        text = line.strip().strip("{},")
        if not text or text.startswith("#"):
            continue
        key, colon, value = text.partition(":")
        key, value = key.strip().strip("\"'"), value.strip().strip("\"'")
        if not colon or not key:
            raise click.BadParameter(f"{line!r} is not `key: value`.", param_hint="--labels-file")
        labels[key] = value
    return labels
