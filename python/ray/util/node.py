"""Facts about the node that this process runs on."""

from __future__ import annotations

import os
import socket

from ray._runtime.session import current_session

_OUTSIDE = ("8.8.8.8", 80)


def get_node_ip_address(address: str | None = None) -> str:
    """Address of this node: as the cluster knows it, else that of the interface that leads to `address` (host:port)."""
    session = current_session()
    if session is not None:
        return session.node_ip
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # It sends nothing: it only chooses a route.
            probe.connect((address.rsplit(":", 1)[0], 80) if address else _OUTSIDE)
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"


def get_node_instance_id() -> str:
    """The cloud's id of this machine, from RAY_CLOUD_INSTANCE_ID; "" if unknown."""
    return os.environ.get("RAY_CLOUD_INSTANCE_ID", "")
