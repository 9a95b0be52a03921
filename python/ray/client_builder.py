"""`ray.client(address)`: the older way to say `ray.init(address)`. Deprecated."""

from __future__ import annotations

import json
import os
import warnings
from typing import TYPE_CHECKING, Any

from ray._context import ClientContext, RayContext
from ray._deprecation import RayDeprecationWarning

if TYPE_CHECKING:
    from types import TracebackType


class ClientBuilder:
    """Collects the arguments of a connection; `connect()` makes it. Also a context manager.

    RAY_NAMESPACE and RAY_RUNTIME_ENV (JSON) are the defaults of namespace and runtime environment.
    """

    def __init__(self, address: str | None) -> None:
        self.address = address
        self._namespace: str | None = os.environ.get("RAY_NAMESPACE")
        text = os.environ.get("RAY_RUNTIME_ENV")
        self._runtime_env: dict[str, Any] | None = json.loads(text) if text else None
        self._init_args: dict[str, Any] = {}

    def env(self, env: dict[str, Any]) -> ClientBuilder:
        """Sets the job's runtime environment."""
        self._runtime_env = env
        return self

    def namespace(self, namespace: str) -> ClientBuilder:
        """Sets the job's namespace."""
        self._namespace = namespace
        return self

    def connect(self) -> RayContext:
        """Connects; the context of the connection. Raises as `ray.init` does."""
        from ray.api import init

        address = self.address or os.environ.get("RAY_ADDRESS") or "local"
        return init(address, namespace=self._namespace, runtime_env=self._runtime_env, **self._init_args)

    def __enter__(self) -> RayContext:
        self._context = self.connect()
        return self._context

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._context.disconnect()


def client(address: str | None = None, _deprecation_warn_enabled: bool = True) -> ClientBuilder:
    """Deprecated: use `ray.init("ray://<host>:<port>")`.

    Args:
        address: `host:port` or `ray://host:port` of a cluster, "local", or None: RAY_ADDRESS, else a new local one.
    """
    if _deprecation_warn_enabled:
        warnings.warn(
            "Starting a connection through `ray.client` is deprecated; use `ray.init('ray://<host>:<port>')`.",
            RayDeprecationWarning,
            stacklevel=2,
        )
    if address is not None and address not in ("local", "auto") and "://" not in address and ":" in address:
        address = f"ray://{address}"
    return ClientBuilder(address)


__all__ = ["ClientBuilder", "ClientContext", "client"]
