"""Where the objects go for which a node's store has no room, and the raylet's flags for that."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ray._runtime import private_file

logger = logging.getLogger("ray")

_DIRECTORY = "object_spilling_directory"
_CONFIG = "object_spilling_config"
_OPTIONS_FILE = "object_spilling_options.json"
_WITH_PASSWORD = re.compile(r"[^/]+://[^@]*:[^@]*@")


@dataclass(frozen=True)
class SpillTarget:
    """Folders, or URIs; neither: the session's folder."""

    directories: tuple[str, ...] = ()
    uris: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)


def resolve(
    directory: str | None, system_config: Mapping[str, Any], environ: Mapping[str, str] = os.environ
) -> SpillTarget:
    """What was asked for: by argument, else by `system_config` or the environment.

    Raises:
        TypeError, ValueError: it makes no sense; the text names where it came from.
    """
    if directory is not None:
        if not isinstance(directory, str):
            raise TypeError(f"{_DIRECTORY} must be a string, got {directory!r}.")
        return _folders(directory, _DIRECTORY)
    if value := system_config.get(_DIRECTORY):
        return _folders(value, f"_system_config[{_DIRECTORY!r}]")
    if value := environ.get(f"RAY_{_DIRECTORY}"):
        return _folders(value, f"RAY_{_DIRECTORY}")
    for value, source in (
        (system_config.get(_CONFIG), f"_system_config[{_CONFIG!r}]"),
        (environ.get(f"RAY_{_CONFIG}"), f"RAY_{_CONFIG}"),
    ):
        if value:
            logger.warning("%s is not a stable interface; use object_spilling_directory for folders.", source)
            return _from_config(value, source)
    return SpillTarget()


def flags(
    directory: str | None, system_config: Mapping[str, Any], node_dir: Path, environ: Mapping[str, str] = os.environ
) -> list[str]:
    """For the command line of the raylet. Raises as `resolve` does.

    Options may have keys of the storage in them, and every user of the machine can read a command line: they go into a
    file in `node_dir`.
    """
    target = resolve(directory, system_config, environ)
    out = []
    for folder in target.directories:
        out += ["--object-spilling-directory", folder]
    for uri in target.uris:
        out += ["--object-spilling-uri", uri]
    if target.options:
        file = node_dir / _OPTIONS_FILE
        private_file.write_text(file, json.dumps(dict(target.options)))
        out += ["--object-spilling-options-file", str(file)]
    return out


def _folders(value: Any, source: str) -> SpillTarget:
    if isinstance(value, (list, tuple)):
        folders = list(value)
    elif isinstance(value, str):
        folders = value.split(",")
    else:
        raise TypeError(f"{source} must be a string, got {value!r}.")
    if not all(isinstance(folder, str) and os.path.isabs(folder) and "," not in folder for folder in folders):
        raise ValueError(f"{source} must be one or several absolute paths, separated by commas, got {value!r}.")
    return SpillTarget(directories=tuple(folders))


def _from_config(value: Any, source: str) -> SpillTarget:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise ValueError(f"{source} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise TypeError(f"{source} must be a JSON object, got {value!r}.")
    kind, params = value.get("type"), value.get("params") or {}
    if not isinstance(params, dict):
        raise TypeError(f"'params' of {source} must be an object, got {params!r}.")
    if kind == "filesystem":
        _check_keys(params, {"directory_path", "buffer_size"}, source)
        if not params.get("directory_path"):
            raise ValueError(f"{source} needs 'directory_path', a path or a list of them.")
        return _folders(params["directory_path"], source)
    if kind != "smart_open":
        raise ValueError(f"'type' of {source} must be 'filesystem' or 'smart_open', got {kind!r}.")
    _check_keys(params, {"uri", "buffer_size", "override_transport_params", "prefix"}, source)
    uris = params.get("uri")
    uris = [uris] if isinstance(uris, str) else uris
    if not uris or not isinstance(uris, list) or not all(isinstance(uri, str) and "://" in uri for uri in uris):
        raise ValueError(f"{source} needs 'uri', like s3://bucket/folder, or a list of them, got {uris!r}.")
    if any(_WITH_PASSWORD.match(uri) for uri in uris):
        raise ValueError(
            f"'uri' of {source} must not have a password in it, since it is shown in logs and errors: put that into "
            "'override_transport_params', or where the storage's own package looks for it."
        )
    if importlib.util.find_spec("smart_open") is None:
        raise ValueError(
            f"{source} wants objects spilled to {uris[0]}, for which the package smart_open must be installed here "
            "(pip install 'smart_open[s3]'). Without it, only folders can be given: object_spilling_directory, or "
            "'type': 'filesystem' with 'directory_path'."
        )
    prefix = f"/{params['prefix'].strip('/')}" if params.get("prefix") else ""
    options = {}
    if params.get("buffer_size"):
        options["buffer_size"] = int(params["buffer_size"])
    if params.get("override_transport_params"):
        options["transport_params"] = params["override_transport_params"]
    return SpillTarget(uris=tuple(uri.rstrip("/") + prefix for uri in uris), options=options)


def _check_keys(params: dict[str, Any], known: set[str], source: str) -> None:
    if unknown := sorted(set(params) - known):
        raise ValueError(f"{source} has unknown params {', '.join(unknown)}; known are {', '.join(sorted(known))}.")
