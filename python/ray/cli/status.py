"""`ray status`: the nodes of a cluster, and what of their resources is in use."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from typing import Any

import click

from ray._runtime import connect
from ray.cli import cluster
from ray.cli.errors import shown

_RULE = "-" * 63
_BYTES = ("memory", "object_store_memory")
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_FAILURES_SHOWN = 20
_STRATEGIES = {1: "PACK", 2: "SPREAD", 3: "STRICT_PACK", 4: "STRICT_SPREAD"}  # PlacementStrategy


@click.command()
@click.option(
    "--address", metavar="HOST:PORT", help="Of the cluster. Default: RAY_ADDRESS, or the one on this machine."
)
@click.option("-v", "--verbose", is_flag=True, help="Also what each node has.")
def status(address: str | None, verbose: bool) -> None:
    """Shows the nodes of a cluster and the use of its resources."""
    with shown():
        where = connect.find(address)
        nodes = cluster.nodes_of(where)
        waiting = cluster.waiting_in(where)
    click.echo("\n".join(report(nodes, datetime.datetime.now(), verbose, waiting=waiting)))


def report(
    nodes: list[dict[str, Any]],
    now: datetime.datetime,
    verbose: bool = False,
    *,
    waiting: dict[str, Any] | None = None,
) -> list[str]:
    """The lines that `ray status` prints."""
    alive = [node for node in nodes if node["alive"] and not node["driver_only"]]
    failed = [node for node in nodes if not node["alive"] and not node["driver_only"]]
    busy = [node for node in alive if _is_busy(node)]
    lines = [f"======== Autoscaler status: {now} ========", "Node status", _RULE]
    lines += ["Active:", *_names(busy, "no active nodes")]
    lines += ["Idle:", *_names([node for node in alive if node not in busy], "no idle nodes")]
    lines += ["Pending:", " (no pending nodes)"]
    lines += ["Recent failures:", *_failures(failed)]
    lines += ["", "Resources", _RULE, "Total Usage:", *_usage(alive)]
    lines += ["", "From request_resources:", " (none)"]
    lines += ["Pending Demands:", *_demands(alive, waiting or {})]
    if verbose:
        for node in alive:
            lines += ["", f"Node: {node['node_id']} ({node['node_name']}, {node['ip']})", " Usage:"]
            lines += [f" {line}" for line in _usage([node])]
            labels = ", ".join(f"{key}={value}" for key, value in sorted(node["labels"].items()))
            lines.append(f" Labels: {labels or '(none)'}")
    return lines


def _is_busy(node: dict[str, Any]) -> bool:
    return any(
        node["available"].get(name, 0) < amount
        for name, amount in node["total"].items()
        if name != "object_store_memory"
    )


def _demands(nodes: list[dict[str, Any]], waiting: dict[str, Any]) -> list[str]:
    """What waits for room: requests of tasks at their nodes, actors and placement groups at the GCS, by shape."""
    shapes: dict[str, int] = {}
    for demand in [*(d for node in nodes for d in node.get("waiting", [])), *waiting.get("actors", [])]:
        shape = _shape(demand["need"])
        shapes[shape] = shapes.get(shape, 0) + demand["count"]
    lines = [f" {shape}: {count}+ pending tasks/actors" for shape, count in sorted(shapes.items())]
    groups: dict[str, int] = {}
    for group in waiting.get("placement_groups", []):
        bundles: dict[str, int] = {}
        for bundle in group["bundles"]:
            shape = _shape(bundle)
            bundles[shape] = bundles.get(shape, 0) + 1
        text = ", ".join(f"{shape} * {count}" for shape, count in sorted(bundles.items()))
        text = f"{text} ({_STRATEGIES.get(group['strategy'], 'PACK')})"
        groups[text] = groups.get(text, 0) + 1
    lines += [f" {text}: {count}+ pending placement groups" for text, count in sorted(groups.items())]
    return lines or [" (no resource demands)"]


def _shape(need: dict[str, float]) -> str:
    return str({name: float(need[name]) for name in sorted(need)})


def _names(nodes: Iterable[dict[str, Any]], none: str) -> list[str]:
    found = [
        f" 1 {node['node_id']}{' (draining)' if node['draining'] else ''}{' (head)' if node['is_head'] else ''}"
        for node in nodes
    ]
    return found or [f" ({none})"]


def _failures(nodes: list[dict[str, Any]]) -> list[str]:
    newest = sorted(nodes, key=lambda node: -node["end_time_ms"])[:_FAILURES_SHOWN]
    found = [f" {node['node_id']}: {node['death_reason']} (ip: {node['ip']})" for node in newest if not node["left"]]
    return found or [" (no failures)"]


def _usage(nodes: list[dict[str, Any]]) -> list[str]:
    total: dict[str, float] = {}
    free: dict[str, float] = {}
    for node in nodes:
        for name, amount in node["total"].items():
            total[name] = total.get(name, 0.0) + amount
            free[name] = free.get(name, 0.0) + node["available"].get(name, 0.0)
    lines = []
    for name in sorted(total):
        if name.startswith("node:"):
            continue
        used = total[name] - free[name]
        if name in _BYTES:
            lines.append(f" {_size(used)}/{_size(total[name])} {name}")
        else:
            lines.append(f" {float(used)}/{float(total[name])} {name}")
    return lines or [" (no resources)"]


def _size(amount: float) -> str:
    for unit in _UNITS:
        if amount < 1024 or unit == _UNITS[-1]:
            return f"{amount:.2f}{unit}" if unit != "B" else f"{amount:.0f}{unit}"
        amount /= 1024
    raise AssertionError
