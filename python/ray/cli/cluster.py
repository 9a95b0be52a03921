"""What the commands share: what the nodes of a cluster are, and what waits there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from ray._runtime import addresses, connect, gcs_query, security, session_dir
from ray._runtime.security import Security


@contextlib.contextmanager
def credentials(address: str) -> Iterator[Security]:
    """What the GCS there wants to see, for the length of a question. Raises AuthenticationError."""
    if address.startswith("unix:"):  # its user can enter the folder; nothing more is asked for
        yield Security(security.DISABLED)
        return
    with security.for_asking(connect.local_record(address, session_dir.temp_root())) as found:
        yield found


def nodes_of(address: str, timeout: float = 5.0) -> list[dict[str, Any]]:
    """The nodes of the cluster there, dead ones too. Raises ConnectionError, AuthenticationError."""
    with credentials(address) as shown:
        return gcs_query.list_nodes(address, shown, timeout)


def waiting_in(address: str, timeout: float = 5.0) -> dict[str, Any]:
    """What actors and placement groups of the cluster there wait for. Raises ConnectionError, AuthenticationError."""
    with credentials(address) as shown:
        return gcs_query.waiting(address, shown, timeout)


def is_here(address: str) -> bool:
    """Whether the host of `host:port` is this machine. Raises ConnectionError where its name is not known."""
    return any(addresses.is_local(ip) for ip in addresses.resolve(addresses.split(address)[0]))
