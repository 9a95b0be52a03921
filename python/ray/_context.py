"""What `ray.init` returns."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ray._version import __commit__, __version__

if TYPE_CHECKING:
    from types import TracebackType


class RayContext(Mapping[str, Any]):
    """Facts about the cluster that this process is connected to. As a context manager it shuts down at the end.

    Attributes:
        address_info: addresses, directories and ids, by the names that Ray gives them.
        dashboard_url: "": there is no dashboard.
        python_version, ray_version, ray_commit: of this process; those of the cluster go with them.
    """

    def __init__(self, address_info: dict[str, Any]) -> None:
        self.address_info = address_info
        self.dashboard_url: str | None = ""
        self.python_version = ".".join(map(str, sys.version_info[:3]))
        self.ray_version = __version__
        self.ray_commit = __commit__

    def __getitem__(self, key: str) -> Any:
        warnings.warn(
            f'Accessing values through ctx["{key}"] is deprecated. Use ctx.address_info["{key}"] instead.',
            DeprecationWarning,
            stacklevel=2,
        )
        return self.address_info[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.address_info)

    def __len__(self) -> int:
        return len(self.address_info)

    def __repr__(self) -> str:
        address = self.address_info["gcs_address"]
        versions = f"python_version={self.python_version!r}, ray_version={self.ray_version!r}"
        return f"{type(self).__name__}({address=}, {versions})"

    def __enter__(self) -> RayContext:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.disconnect()

    def disconnect(self) -> None:
        """As `ray.shutdown()`."""
        import ray

        ray.shutdown()

    def _repr_html_(self) -> str:
        """For notebooks."""
        rows = (("Python version", self.python_version), ("Ray version", self.ray_version))
        cells = "".join(f"<tr><td><b>{name}:</b></td><td>{value}</td></tr>" for name, value in rows)
        return f"<div><h3>Ray</h3><table>{cells}</table></div>"


def address_info(node_ip: str, gcs_address: str, session_dir: str, node_dir: str) -> dict[str, Any]:
    """Where a node and its cluster are, by the names that Ray gives this; what does not exist here is None or empty."""
    sockets = os.path.join(node_dir, "sockets")
    return {
        "node_ip_address": node_ip,
        "redis_address": None,
        "object_store_address": os.path.join(sockets, "store.sock"),
        "raylet_socket_name": os.path.join(sockets, "raylet.sock"),
        "webui_url": "",
        "session_dir": session_dir,
        "metrics_export_port": None,
        "gcs_address": gcs_address,
        "address": gcs_address,
        "dashboard_agent_listen_port": None,
    }


class ClientContext(RayContext):
    """Of a driver that connected by ray://. It is a driver like any other; this class is what Ray returns for it."""

    def __init__(self, address_info: dict[str, Any]) -> None:
        super().__init__(address_info)
        self.dashboard_url = None
        self._num_clients = 1
