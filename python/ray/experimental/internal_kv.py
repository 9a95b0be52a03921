"""The cluster's key-value table. str keys and values are encoded as UTF-8."""

from __future__ import annotations

from ray._private.gcs_client import GcsClient
from ray._runtime.session import Session, current_session


def _session() -> Session:
    session = current_session()
    if session is None:
        raise RuntimeError("Ray has not been started yet. Call ray.init() first.")
    return session


def _bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value


def internal_kv_get_gcs_client() -> GcsClient | None:
    """What reaches the table by bytes alone; None when not connected."""
    return None if current_session() is None else GcsClient()


def _internal_kv_initialized() -> bool:
    """Whether the table can be used."""
    return current_session() is not None


def _internal_kv_get(key: str | bytes, *, namespace: str | bytes | None = None) -> bytes | None:
    """The value of a key, or None."""
    return _session().kv_get(_bytes(namespace or b""), _bytes(key))


def _internal_kv_exists(key: str | bytes, *, namespace: str | bytes | None = None) -> bool:
    """Whether the key is there."""
    return _session().kv_exists(_bytes(namespace or b""), _bytes(key))


def _internal_kv_put(
    key: str | bytes, value: str | bytes, overwrite: bool = True, *, namespace: str | bytes | None = None
) -> bool:
    """Stores a value. Returns whether the key existed already."""
    return not _session().kv_put(_bytes(namespace or b""), _bytes(key), _bytes(value), overwrite)


def _internal_kv_del(key: str | bytes, *, del_by_prefix: bool = False, namespace: str | bytes | None = None) -> int:
    """Deletes a key, or all with a prefix. Returns how many."""
    return _session().kv_del(_bytes(namespace or b""), _bytes(key), del_by_prefix)


def _internal_kv_list(prefix: str | bytes, *, namespace: str | bytes | None = None) -> list[bytes]:
    """The keys with a prefix."""
    return _session().kv_keys(_bytes(namespace or b""), _bytes(prefix))
