"""`JobConfig`: what `ray.init(job_config=...)` takes."""

from __future__ import annotations

from typing import Any


class JobConfig:
    """Settings of a job.

    Attributes:
        runtime_env: of its workers, unless `ray.init` is given one.
        metadata: for people.
        ray_namespace, default_actor_lifetime: of its named actors.
    """

    def __init__(
        self,
        jvm_options: list[str] | None = None,
        code_search_path: list[str] | None = None,
        runtime_env: dict[str, Any] | None = None,
        _client_job: bool = False,  # what follows it stands where Ray has it, for programs that give it by place
        metadata: dict[str, str] | None = None,
        ray_namespace: str | None = None,
        default_actor_lifetime: str = "non_detached",
    ) -> None:
        self.jvm_options = list(jvm_options or [])
        self.code_search_path = list(code_search_path or [])
        self.metadata = dict(metadata or {})
        self.ray_namespace = ray_namespace
        self.set_default_actor_lifetime(default_actor_lifetime)
        self.runtime_env = dict(runtime_env or {})

    def set_runtime_env(self, runtime_env: dict[str, Any] | None, validate: bool = False) -> None:
        """Sets the runtime environment; with `validate`, errors in it are raised here and not by `ray.init`."""
        if validate:
            from ray.options import check_runtime_env

            check_runtime_env(runtime_env)
        self.runtime_env = dict(runtime_env or {})

    def set_default_actor_lifetime(self, default_actor_lifetime: str) -> None:
        """Sets the lifetime of actors that say nothing of theirs. Raises ValueError."""
        if default_actor_lifetime not in ("detached", "non_detached"):
            raise ValueError(
                f"default_actor_lifetime must be 'detached' or 'non_detached', got {default_actor_lifetime!r}."
            )
        self.default_actor_lifetime = default_actor_lifetime

    def set_ray_namespace(self, ray_namespace: str) -> None:
        """Sets the namespace of named actors."""
        self.ray_namespace = ray_namespace

    def set_metadata(self, key: str, value: str) -> None:
        """Adds to the metadata."""
        self.metadata[key] = value
