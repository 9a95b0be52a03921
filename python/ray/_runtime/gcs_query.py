"""Looking at a cluster from the outside, without joining it: `raylet query` asks its GCS."""

from __future__ import annotations

import json
import os
import re
import subprocess
from typing import Any

from ray._runtime.processes import binary
from ray._runtime.security import SECRET_VARIABLES, Security, turned_away

_NOT_AUTHENTICATED = 4
_REFUSED = 5
_NO_SUCH_NODE = 6
_TIMEOUT_S = 5.0
_NODE_ID_BYTES = 28
_NODE_ID = re.compile(f"[0-9a-fA-F]{{{2 * _NODE_ID_BYTES}}}")
_GRACE_S = 10.0  # for a process that keeps the time itself


class DrainRefusedError(Exception):
    """The node is not idle, and stays."""


class NoSuchNodeError(Exception):
    """No node of that id is alive in the cluster."""


def list_nodes(address: str, security: Security, timeout: float = _TIMEOUT_S) -> list[dict[str, Any]]:
    """The nodes of the cluster whose GCS listens there, dead ones too.

    Raises:
        AuthenticationError: the GCS does not accept the token.
        ConnectionError: no answer within `timeout` seconds, or one that makes no sense.
    """
    nodes: list[dict[str, Any]] = _ask(address, security, timeout, [])
    return nodes


def waiting(address: str, security: Security, timeout: float = _TIMEOUT_S) -> dict[str, Any]:
    """What actors and placement groups of that cluster wait for. Raises as `list_nodes`."""
    found: dict[str, Any] = _ask(address, security, timeout, ["--waiting"])
    return found


def cluster_config(address: str, security: Security, timeout: float = _TIMEOUT_S) -> dict[str, Any]:
    """The settings for the whole cluster that its head was started with (`_system_config`). Raises as `list_nodes`."""
    found: dict[str, Any] = _ask(address, security, timeout, ["--config"])
    return found


def drain_node(
    address: str,
    security: Security,
    node_id: str,
    *,
    reason: str,
    deadline_s: float,
    only_if_idle: bool = False,
    timeout: float = _TIMEOUT_S,
) -> None:
    """Has a node take no more work, and leave when what runs there has ended, after `deadline_s` at the latest.

    Raises:
        ValueError: `node_id` is not the id of a node.
        NoSuchNodeError: no such node is alive.
        DrainRefusedError: `only_if_idle`, and something runs or lies there.
        AuthenticationError: the GCS does not accept the token.
        ConnectionError: no answer.
    """
    if not _NODE_ID.fullmatch(node_id):
        raise ValueError(f"{node_id!r} is not the id of a node: those are {2 * _NODE_ID_BYTES} hex digits.")
    order = ["--drain", node_id, "--reason", reason, "--deadline", f"{deadline_s}s"]
    _ask(address, security, timeout, [*order, *(["--only-if-idle"] if only_if_idle else [])])


def _ask(address: str, security: Security, timeout: float, more: list[str]) -> Any:
    try:
        done = _run(["--gcs-address", address, "--timeout", f"{timeout}s", *security.flags(), *more], timeout)
    except subprocess.TimeoutExpired:  # the machine is overloaded, or somebody has stopped the process
        raise ConnectionError(f"The Ray cluster at {address} could not be asked in time.") from None
    if done.returncode == 0:
        return json.loads(done.stdout)
    problem = done.stderr.strip() or f"exit code {done.returncode}"
    if done.returncode == _NO_SUCH_NODE:
        raise NoSuchNodeError(problem)
    if done.returncode == _REFUSED:
        raise DrainRefusedError(problem)
    if done.returncode == _NOT_AUTHENTICATED:
        raise turned_away(address, security, problem)
    raise ConnectionError(f"No Ray cluster answers at {address}: {problem}")


def _run(arguments: list[str], timeout: float) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if name not in SECRET_VARIABLES}
    return subprocess.run(
        [binary("raylet"), "query", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout + _GRACE_S,
        env=env,
        check=False,
    )
