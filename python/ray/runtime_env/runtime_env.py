"""`RuntimeEnv`: a runtime environment as a dict that is checked field by field.

Every field of Ray's is checked here. Which of them a cluster can carry out is checked where the environment is used:
for now that is `env_vars` (see `ray.options`).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any, ClassVar

logger = logging.getLogger("ray")

_PACKAGE_KEYS = {
    "pip": {"packages", "pip_check", "pip_version", "pip_install_options"},
    "uv": {"packages", "uv_check", "uv_version", "uv_pip_install_options"},
}
_ONE_OF = ("pip", "uv", "conda")  # each makes an interpreter of its own


def _text(name: str, value: Any) -> None:
    if not isinstance(value, str):
        raise TypeError(f"runtime_env[{name!r}] must be a string, got {value!r}.")


def _texts(name: str, value: Any) -> None:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise TypeError(f"runtime_env[{name!r}] must be a list of strings, got {value!r}.")


def _text_or_dict(name: str, value: Any) -> None:
    if not isinstance(value, (str, dict)):
        raise TypeError(f"runtime_env[{name!r}] must be a string or a dict, got {value!r}.")


def _packages(name: str, value: Any) -> None:
    if isinstance(value, dict):
        unknown = sorted(set(value) - _PACKAGE_KEYS[name])
        if unknown or "packages" not in value:
            raise ValueError(
                f"runtime_env[{name!r}] must have 'packages' and no {unknown}: {sorted(_PACKAGE_KEYS[name])}."
            )
        value = value["packages"]
    if not isinstance(value, str):
        _texts(name, value)


def _variables(name: str, value: Any) -> None:
    if not isinstance(value, dict):
        raise TypeError(f"runtime_env[{name!r}] must be a dict of strings, got {value!r}.")
    for key, text in value.items():
        if not isinstance(key, str) or not isinstance(text, str):
            raise TypeError(f"runtime_env[{name!r}] must map strings to strings, got {key!r}: {text!r}.")


def _hook(name: str, value: Any) -> None:
    if not isinstance(value, str) and not callable(value):
        raise TypeError(f"runtime_env[{name!r}] must be a function or its name, got {value!r}.")


def _container(name: str, value: Any) -> None:
    if not isinstance(value, dict) or not isinstance(value.get("image"), str):
        raise TypeError(f"runtime_env[{name!r}] must be a dict with an 'image', got {value!r}.")


_FIELDS: dict[str, Callable[[str, Any], None]] = {
    "working_dir": _text,
    "py_modules": lambda name, value: None if isinstance(value, list) else _texts(name, value),
    "excludes": _texts,
    "pip": _packages,
    "uv": _packages,
    "conda": _text_or_dict,
    "py_executable": _text,
    "env_vars": _variables,
    "container": _container,
    "image_uri": _text,
    "worker_process_setup_hook": _hook,
    "nsight": _text_or_dict,
    "rocprof_sys": _text_or_dict,
    "java_jars": _texts,
}


class RuntimeEnvConfig(dict[str, Any]):
    """How an environment is made; no part of what it is.

    Args:
        setup_timeout_seconds: how long that may take; -1: without end.
        eager_install: at the job's start rather than when the first worker needs it.
        log_files: files whose ends an error is to show.

    Raises:
        ValueError, TypeError: a bad value.
    """

    _KNOWN = ("setup_timeout_seconds", "eager_install", "log_files")

    def __init__(
        self, setup_timeout_seconds: int = 600, eager_install: bool = True, log_files: list[str] | None = None
    ) -> None:
        if not isinstance(setup_timeout_seconds, int) or isinstance(setup_timeout_seconds, bool):
            raise TypeError(f"setup_timeout_seconds must be an integer, got {setup_timeout_seconds!r}.")
        if setup_timeout_seconds == 0 or setup_timeout_seconds < -1:
            raise ValueError(
                f"setup_timeout_seconds must be positive, or -1 for no limit, got {setup_timeout_seconds}."
            )
        if not isinstance(eager_install, bool):
            raise TypeError(f"eager_install must be a boolean, got {eager_install!r}.")
        if log_files is not None:
            _texts("log_files", log_files)
        super().__init__(
            setup_timeout_seconds=setup_timeout_seconds, eager_install=eager_install, log_files=list(log_files or [])
        )

    @classmethod
    def default_config(cls) -> dict[str, Any]:
        """What holds where nothing is said."""
        return dict(cls())

    @classmethod
    def parse_and_validate_runtime_env_config(cls, config: dict[str, Any]) -> RuntimeEnvConfig:
        """A config of a plain dict; unknown keys are warned of and ignored."""
        if isinstance(config, cls):
            return config
        if not isinstance(config, dict):
            raise TypeError(f"runtime_env['config'] must be a dict or a RuntimeEnvConfig, got {config!r}.")
        unknown = sorted(set(config) - set(cls._KNOWN))
        if unknown:
            logger.warning("Unknown fields of runtime_env['config'], which are ignored: %s", ", ".join(unknown))
        return cls(**{key: value for key, value in config.items() if key in cls._KNOWN})

    def to_dict(self) -> dict[str, Any]:
        """As a plain dict."""
        return dict(self)


class RuntimeEnv(dict[str, Any]):
    """A runtime environment. Fields that are None are left out; other keys than Ray's are for plugins.

    Raises:
        TypeError, ValueError: a bad value, or fields that exclude each other.
    """

    extensions_fields: ClassVar[set[str]] = {"_ray_release", "_ray_commit", "_inject_current_ray"}
    known_fields: ClassVar[set[str]] = {*_FIELDS, *extensions_fields, "config"}

    def __init__(self, *, config: dict[str, Any] | RuntimeEnvConfig | None = None, **fields: Any) -> None:
        super().__init__()
        for name, value in fields.items():
            if value is not None:
                self[name] = value
        if config is not None:
            self["config"] = config
        kinds = [name for name in _ONE_OF if name in self]
        if len(kinds) > 1:
            raise ValueError(f"The fields {' and '.join(map(repr, kinds))} of a runtime_env exclude each other.")
        for name in ("container", "image_uri"):
            others = sorted(set(self) - {name, "config", "env_vars"})
            if name in self and others:
                raise ValueError(f"runtime_env[{name!r}] goes only with 'config' and 'env_vars', not with {others}.")

    def __setitem__(self, name: str, value: Any) -> None:
        if name == "config":
            value = RuntimeEnvConfig.parse_and_validate_runtime_env_config(value)
        elif name in _FIELDS and value is not None:
            _FIELDS[name](name, value)
        super().__setitem__(name, value)

    def set(self, name: str, value: Any) -> None:
        """Sets a field; None removes it."""
        if value is None:
            self.pop(name, None)
        else:
            self[name] = value

    def to_dict(self) -> dict[str, Any]:
        """As a plain dict."""
        return dict(self)

    def serialize(self) -> str:
        """As canonical JSON."""
        return json.dumps(self, sort_keys=True)

    @classmethod
    def deserialize(cls, text: str) -> RuntimeEnv:
        """From JSON."""
        return cls(**json.loads(text))

    def plugins(self) -> list[tuple[str, Any]]:
        """The fields that are not Ray's, in their order."""
        return [(name, value) for name, value in self.items() if name not in self.known_fields]

    def env_vars(self) -> dict[str, str]:
        """The variables that are set."""
        return dict(self.get("env_vars") or {})

    def working_dir(self) -> str:
        """The working directory; "" if there is none."""
        return str(self.get("working_dir") or "")

    def py_modules(self) -> list[Any]:
        """The modules that are brought along."""
        return list(self.get("py_modules") or [])

    def has_pip(self) -> bool:
        """Whether packages are installed with pip."""
        return "pip" in self

    def has_uv(self) -> bool:
        """Whether packages are installed with uv."""
        return "uv" in self

    def has_conda(self) -> bool:
        """Whether it is a conda environment."""
        return "conda" in self

    def has_working_dir(self) -> bool:
        """Whether there is a working directory."""
        return bool(self.get("working_dir"))

    # What is fetched by an address of its own. Local paths are no such thing; nothing here makes one of them.

    def working_dir_uri(self) -> str | None:
        """Where the working directory is fetched from; None: it is not fetched."""
        return self._uri("working_dir")

    def py_modules_uris(self) -> list[str]:
        """Where the modules are fetched from."""
        return self.py_modules()

    def conda_uri(self) -> str | None:
        """Where the conda environment is fetched from."""
        return self._uri("conda")

    def pip_uri(self) -> str | None:
        """Where the packages for pip are fetched from."""
        return self._uri("pip")

    def uv_uri(self) -> str | None:
        """Where the packages for uv are fetched from."""
        return self._uri("uv")

    def plugin_uris(self) -> list[str]:
        """Where plugins fetch from; none does."""
        return []

    def _uri(self, name: str) -> str | None:
        value = self.get(name)
        return value if isinstance(value, str) and "://" in value else None

    # The fields one by one.

    def py_executable(self) -> str | None:
        """The command that starts workers."""
        return self.get("py_executable")

    def image_uri(self) -> str | None:
        """The image that workers run in."""
        return self.get("image_uri")

    def java_jars(self) -> list[str]:
        """Archives for workers of Java."""
        return list(self.get("java_jars") or [])

    def nsight(self) -> str | dict[str, str] | None:
        """Options of that profiler."""
        return self.get("nsight")

    def rocprof_sys(self) -> str | dict[str, Any] | None:
        """Options of that profiler."""
        return self.get("rocprof_sys")

    def conda_env_name(self) -> str | None:
        """Name of the conda environment, if it is given by that."""
        conda = self.get("conda")
        return conda if isinstance(conda, str) else None

    def conda_config(self) -> str | None:
        """What the conda environment is made of, as JSON, if it is given by that."""
        conda = self.get("conda")
        return json.dumps(conda, sort_keys=True) if isinstance(conda, dict) else None

    def virtualenv_name(self) -> str | None:
        """The file of requirements for pip, if it is given by that."""
        pip = self.get("pip")
        return pip if isinstance(pip, str) else None

    def pip_config(self) -> dict[str, Any]:
        """The packages for pip and how they are installed."""
        return self._packages("pip")

    def uv_config(self) -> dict[str, Any]:
        """The packages for uv and how they are installed."""
        return self._packages("uv")

    def _packages(self, name: str) -> dict[str, Any]:
        value = self.get(name)
        if isinstance(value, list):
            return {"packages": list(value)}
        return dict(value) if isinstance(value, dict) else {}

    def has_py_container(self) -> bool:
        """Whether workers run in a container that is described by its own field."""
        return bool(self.get("container"))

    def py_container_image(self) -> str | None:
        """Its image."""
        return self["container"].get("image", "") if self.has_py_container() else None

    def py_container_worker_path(self) -> str | None:
        """Where the worker's program is in it."""
        return self["container"].get("worker_path", "") if self.has_py_container() else None

    def py_container_run_options(self) -> list[str] | None:
        """What the command that runs it is told."""
        return list(self["container"].get("run_options", [])) if self.has_py_container() else None

    def get_extension(self, key: str) -> Any:
        """One of Ray's internal fields.

        Raises:
            ValueError: it is none of them.
        """
        if key not in self.extensions_fields:
            raise ValueError(f"Extension key must be one of {self.extensions_fields}, got: {key}")
        return self.get(key)

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (dict(self),)


def _restore(fields: dict[str, Any]) -> RuntimeEnv:
    return RuntimeEnv(**fields)
