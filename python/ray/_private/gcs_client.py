"""`GcsClient`: the key-value table of the connected cluster as libraries of Ray reach it."""

from __future__ import annotations

from ray._runtime.session import require_session


class GcsClient:
    """Keys and values are bytes. Made without arguments: it is of the cluster that this process is connected to."""

    @property
    def address(self) -> str:
        """Of the GCS."""
        return require_session().gcs_address

    def internal_kv_get(self, key: bytes, namespace: bytes | None = None, timeout: float | None = None) -> bytes | None:
        """The value of a key, or None."""
        return require_session().kv_get(namespace or b"", key)

    def internal_kv_put(
        self,
        key: bytes,
        value: bytes,
        overwrite: bool = False,
        namespace: bytes | None = None,
        timeout: float | None = None,
    ) -> int:
        """Stores a value. How many keys are new: 1 or 0."""
        return int(require_session().kv_put(namespace or b"", key, value, overwrite))

    def internal_kv_del(
        self, key: bytes, del_by_prefix: bool = False, namespace: bytes | None = None, timeout: float | None = None
    ) -> int:
        """Deletes a key, or all with a prefix. How many."""
        return require_session().kv_del(namespace or b"", key, del_by_prefix)

    def internal_kv_keys(
        self, prefix: bytes, namespace: bytes | None = None, timeout: float | None = None
    ) -> list[bytes]:
        """The keys with a prefix."""
        return require_session().kv_keys(namespace or b"", prefix)

    def internal_kv_exists(self, key: bytes, namespace: bytes | None = None, timeout: float | None = None) -> bool:
        """Whether the key is there."""
        return require_session().kv_exists(namespace or b"", key)
