"""Where a cluster's GCS keeps its tables, as flags of the gcs_server."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray._runtime import private_file, system_config

FILE = "gcs.sqlite"
_EMBEDDED = ("sqlite", "rocksdb")  # Ray's embedded kind is rocksdb; here both names mean the same file
_PASSWORD_FILE = "redis_password"
# Setting of Ray -> flag.
_REDIS = {
    "external_storage_namespace": "redis-namespace",
    "REDIS_CA_CERT": "redis-ca-cert",
    "REDIS_CLIENT_CERT": "redis-client-cert",
    "REDIS_CLIENT_KEY": "redis-client-key",
    "REDIS_SERVER_NAME": "redis-server-name",
}


def flags(
    session_dir: Path,
    given: Mapping[str, Any],
    *,
    durable: bool,
    redis_username: str | None = None,
    redis_password: str | None = None,
) -> list[str]:
    """What `_system_config` or the environment says, else a file in the session's directory if `durable`, else memory.

    Args:
        redis_username, redis_password: for a Redis server; None: those of the environment.

    Raises:
        ValueError: no such kind of storage, one that needs a path or an address has none, or the address has more in
            it than an address.
    """
    kind = system_config.lookup("gcs_storage", given)
    path = str(system_config.lookup("gcs_storage_path", given) or "")
    address = os.environ.get("RAY_REDIS_ADDRESS", "")
    if kind == "redis" or (kind is None and address):
        return _redis_flags(session_dir, given, address, redis_username, redis_password)
    if kind is None and not path:
        return ["--storage", f"sqlite:{session_dir / FILE}"] if durable else []
    if kind == "memory":
        return ["--storage", "memory"]
    if kind is not None and kind not in _EMBEDDED:
        raise ValueError(f"RAY_gcs_storage must be one of memory, sqlite, rocksdb and redis, got {kind!r}.")
    if not path and kind == "rocksdb":
        raise ValueError("RAY_gcs_storage=rocksdb needs RAY_gcs_storage_path, a directory that outlives the head.")
    if not path:
        return ["--storage", f"sqlite:{session_dir / FILE}"]
    folder = Path(path)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return ["--storage", f"sqlite:{folder / FILE}"]


def are_durable(storage_flags: list[str]) -> bool:
    """Whether a gcs_server with these flags knows what an earlier one stored."""
    return bool(storage_flags) and storage_flags[1] != "memory"


def outlive(storage_flags: list[str], session_dir: Path) -> bool:
    """Whether another head can go on from there: they are not in the session's directory, nor in memory."""
    return are_durable(storage_flags) and storage_flags[1] != f"sqlite:{session_dir / FILE}"


def _redis_flags(
    session_dir: Path, given: Mapping[str, Any], address: str, username: str | None, password: str | None
) -> list[str]:
    if "@" in address:  # it goes into the command line and the log
        raise ValueError(
            "RAY_REDIS_ADDRESS must say only where the Redis server is, as host:port, redis://host:port or "
            "rediss://host:port: put user and password into RAY_REDIS_USERNAME and RAY_REDIS_PASSWORD."
        )
    first = address.split(",")[0].strip()  # others would be members of a Redis cluster
    if not first:
        raise ValueError("RAY_gcs_storage=redis needs RAY_REDIS_ADDRESS, as host:port, redis://... or rediss://...")
    made = ["--storage", first if "://" in first else f"redis://{first}"]
    for name, flag in _REDIS.items():
        if value := system_config.lookup(name, given):
            made += [f"--{flag}", str(value)]
    if username := username or os.environ.get("RAY_REDIS_USERNAME"):
        made += ["--redis-username", username]
    if password := password or os.environ.get("RAY_REDIS_PASSWORD"):
        # Not on the command line, which every user of the machine can read.
        file = session_dir / _PASSWORD_FILE
        private_file.write_text(file, password + "\n")
        made += ["--redis-password-file", str(file)]
    return made
