"""Where a cluster's GCS keeps its tables, as flags of the gcs_server."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray._runtime import system_config

FILE = "gcs.sqlite"
_EMBEDDED = ("sqlite", "rocksdb")  # Ray's embedded kind is rocksdb; here both names mean the same file


def flags(session_dir: Path, given: Mapping[str, Any], *, durable: bool) -> list[str]:
    """What `_system_config` or the environment says, else a file in the session's directory if `durable`, else memory.

    Raises:
        ValueError: no such kind of storage, or one that needs a path has none.
    """
    kind = system_config.lookup("gcs_storage", given)
    path = str(system_config.lookup("gcs_storage_path", given) or "")
    if kind is None and not path:
        return ["--storage", f"sqlite:{session_dir / FILE}"] if durable else []
    if kind == "memory":
        return ["--storage", "memory"]
    if kind is not None and kind not in _EMBEDDED:
        raise ValueError(f"RAY_gcs_storage must be one of memory, sqlite and rocksdb, got {kind!r}.")
    if not path and kind == "rocksdb":
        raise ValueError("RAY_gcs_storage=rocksdb needs RAY_gcs_storage_path, a directory that outlives the head.")
    if not path:
        return ["--storage", f"sqlite:{session_dir / FILE}"]
    folder = Path(path)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return ["--storage", f"sqlite:{folder / FILE}"]


def are_durable(storage_flags: list[str]) -> bool:
    """Whether a gcs_server with these flags knows what an earlier one stored."""
    return bool(storage_flags) and storage_flags[-1] != "memory"
