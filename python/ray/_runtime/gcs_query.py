"""Looking at a cluster from the outside, without joining it: `raylet query` asks its GCS."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

from ray._runtime.processes import binary
from ray._runtime.security import SECRET_VARIABLES, Security, authentication_error

_NOT_AUTHENTICATED = 4
_TIMEOUT_S = 5.0


def list_nodes(address: str, security: Security, timeout: float = _TIMEOUT_S) -> list[dict[str, Any]]:
    """The nodes of the cluster whose GCS listens there, dead ones too.

    Raises:
        AuthenticationError: the GCS does not accept the token.
        ConnectionError: no answer within `timeout` seconds, or one that makes no sense.
    """
    done = _run(["--gcs-address", address, "--timeout", f"{timeout}s", *security.flags()], timeout)
    if done.returncode == 0:
        nodes: list[dict[str, Any]] = json.loads(done.stdout)
        return nodes
    problem = done.stderr.strip() or f"exit code {done.returncode}"
    if done.returncode == _NOT_AUTHENTICATED:
        raise authentication_error(f"The cluster at {address} does not accept the token: {problem}.")
    raise ConnectionError(f"No Ray cluster answers at {address}: {problem}")


def _run(arguments: list[str], timeout: float) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if name not in SECRET_VARIABLES}
    return subprocess.run(
        [binary("raylet"), "query", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout + 10,  # it keeps the time itself
        env=env,
        check=False,
    )
