"""`ray.client(address)`: a remote driver, which is an ordinary driver."""

from __future__ import annotations

import json
import os
import warnings
from typing import Any

from ray._context import ClientContext, RayContext
from ray._deprecation import RayDeprecationWarning


class ClientBuilder:
    """Collects what a connection needs: `ray.client("host:6379").namespace("x").connect()`."""

    def __init__(self, address: str | None) -> None:
        self.address = address
        self._runtime_env: dict[str, Any] | None = json.loads(os.environ.get("RAY_RUNTIME_ENV") or "null")
        self._namespace = os.environ.get("RAY_NAMESPACE") or None
        self._init_arguments: dict[str, Any] = {}

    def env(self, env: dict[str, Any]) -> ClientBuilder:
        """The runtime environment of the job."""
        self._runtime_env = env
        return self

    def namespace(self, namespace: str) -> ClientBuilder:
        """The namespace of the job."""
        self._namespace = namespace
        return self

    def _init_args(self, **arguments: Any) -> ClientBuilder:
        """More arguments for `ray.init`."""
        self._init_arguments.update(arguments)
        return self

    def connect(self) -> RayContext:
        """Connects: to the address, which gets the scheme ray:// if it has none, or to the cluster on this machine."""
        import ray

        address = self.address
        if address and address != "local" and "://" not in address:
            address = f"ray://{address}"
        return ray.init(
            address or None,
            namespace=self._namespace,
            runtime_env=self._runtime_env,
            **{"ignore_reinit_error": True, **self._init_arguments},
        )


def client(address: str | None = None, _deprecation_warn_enabled: bool = True) -> ClientBuilder:
    """A builder for a connection to the cluster at `address`; `ray.init("ray://...")` does the same."""
    if _deprecation_warn_enabled:
        warnings.warn("ray.client() is deprecated; use ray.init('ray://...').", RayDeprecationWarning, stacklevel=2)
    return ClientBuilder(address)


__all__ = ["ClientBuilder", "ClientContext", "client"]
