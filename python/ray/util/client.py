"""Names of Ray's client for programs that ask for them: here a remote driver is an ordinary driver.

ray.util.connect("head:6379")      # as ray.init("ray://head:6379")
ray.util.client.ray.is_connected()
"""

from __future__ import annotations

from typing import Any

from ray._runtime.session import current_session


class _ClientApi:
    """The API of a remote driver: that of the package."""

    def is_connected(self) -> bool:
        """Whether this process is connected by ray://."""
        session = current_session()
        return session is not None and session.is_remote

    def disconnect(self) -> None:
        """As `ray.shutdown()`, if connected by ray://."""
        disconnect()

    def __getattr__(self, name: str) -> Any:
        import ray as package

        return getattr(package, name)


ray = _ClientApi()


def num_connected_contexts() -> int:
    """1 if this process is connected by ray://, else 0: a process has one connection at most."""
    return int(ray.is_connected())


def connect(
    conn_str: str,
    secure: bool = False,
    metadata: Any = None,
    connection_retries: int = 3,
    job_config: Any = None,
    namespace: str | None = None,
    *,
    ignore_version: bool = False,
    ray_init_kwargs: dict[str, Any] | None = None,
) -> Any:
    """Connects to the cluster at `host:port`, as `ray.init("ray://host:port")`.

    Args:
        secure, metadata, connection_retries, ignore_version: accepted, without effect (RAY_USE_TLS switches TLS on).

    Raises:
        RuntimeError: already connected.
        ConnectionError: there is no cluster.
    """
    import ray as package

    address = conn_str if conn_str.startswith("ray://") else f"ray://{conn_str}"
    return package.init(address, job_config=job_config, namespace=namespace, **(ray_init_kwargs or {}))


def disconnect() -> None:
    """Ends a connection by ray://. Does nothing when there is none."""
    import ray as package

    if ray.is_connected():
        package.shutdown()
