"""A group of equal actors that are called together."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import ray.api
from ray._actor_handle import ActorHandle
from ray.runtime_context import get_runtime_context
from ray.util.annotations import Deprecated
from ray.util.node import get_node_ip_address


@dataclass
class ActorMetadata:
    """Where an actor of the group is."""

    node_id: str
    node_ip: str
    hostname: str
    gpu_ids: list[str] | None


@dataclass
class ActorWrapper:
    """An actor of the group: its handle, and where it is."""

    actor: ActorHandle
    metadata: ActorMetadata


@dataclass
class ActorConfig:
    """What the actors of a group are made of."""

    num_cpus: float
    num_gpus: float
    resources: dict[str, float] | None
    init_args: tuple[Any, ...]
    init_kwargs: dict[str, Any]


class ActorGroupMethod:
    """A method of all actors of a group."""

    def __init__(self, actor_group: ActorGroup, method_name: str) -> None:
        self._actor_group = actor_group
        self._method_name = method_name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        name = self._method_name
        raise TypeError(
            "ActorGroup methods cannot be called directly. "
            f"Instead of running 'object.{name}()', try 'object.{name}.remote()'."
        )

    def remote(self, *args: Any, **kwargs: Any) -> list[Any]:
        """Calls the method of each actor with these arguments; what the calls return, in the actors' order."""
        return [
            getattr(wrapped.actor, self._method_name).remote(*args, **kwargs) for wrapped in self._actor_group.actors
        ]


def _metadata(_: Any) -> ActorMetadata:
    context = get_runtime_context()
    gpu_ids = context.get_accelerator_ids().get("GPU")
    return ActorMetadata(context.get_node_id(), get_node_ip_address(), socket.gethostname(), gpu_ids)


@Deprecated
class ActorGroup:
    """Actors of one class with the same resources and arguments: `group.method.remote(...)` calls all of them.

    Args:
        actor_cls: a plain class.
        num_actors: how many at first.
        num_cpus_per_actor, num_gpus_per_actor, resources_per_actor: what each takes.
        init_args, init_kwargs: of the constructor.

    Raises:
        ValueError: no actors, or negative resources.
    """

    def __init__(
        self,
        actor_cls: type,
        num_actors: int = 1,
        num_cpus_per_actor: float = 1,
        num_gpus_per_actor: float = 0,
        resources_per_actor: dict[str, float] | None = None,
        init_args: tuple[Any, ...] | None = None,
        init_kwargs: dict[str, Any] | None = None,
    ) -> None:
        if num_actors <= 0:
            raise ValueError(f"The provided `num_actors` must be greater than 0. Received num_actors={num_actors}.")
        if num_cpus_per_actor < 0 or num_gpus_per_actor < 0:
            raise ValueError(
                "The number of CPUs and of GPUs per actor must not be negative. "
                f"Received num_cpus_per_actor={num_cpus_per_actor} and num_gpus_per_actor={num_gpus_per_actor}."
            )
        self.num_actors = num_actors
        self.actor_config = ActorConfig(
            num_cpus_per_actor, num_gpus_per_actor, resources_per_actor, init_args or (), init_kwargs or {}
        )
        self._remote_cls = ray.api.remote(
            num_cpus=num_cpus_per_actor, num_gpus=num_gpus_per_actor, resources=resources_per_actor
        )(actor_cls)
        self._actors: list[ActorWrapper] = []
        self.start()

    def start(self) -> None:
        """Starts the actors, if they were shut down. Raises RuntimeError where they run."""
        if self._actors:
            raise RuntimeError("The actors have already been started. Please call `shutdown` first to restart them.")
        self.add_actors(self.num_actors)

    def add_actors(self, num_actors: int) -> None:
        """Adds so many, and waits until they live."""
        config = self.actor_config
        made = [self._remote_cls.remote(*config.init_args, **config.init_kwargs) for _ in range(num_actors)]
        found = ray.api.get([actor.__ray_call__.remote(_metadata) for actor in made])
        self._actors += [ActorWrapper(actor, metadata) for actor, metadata in zip(made, found, strict=True)]

    def remove_actors(self, actor_indexes: list[int]) -> None:
        """Ends the actors at these positions, after what they have been asked for. Others move up."""
        gone = set(actor_indexes)
        for index in gone:
            self._actors[index].actor.__ray_terminate__.remote()
        self._actors = [wrapped for index, wrapped in enumerate(self._actors) if index not in gone]

    def shutdown(self, patience_s: float = 5) -> None:
        """Ends all actors: those that are not done after `patience_s` seconds by force; at once where that is 0."""
        handles = [wrapped.actor for wrapped in self._actors]
        self._actors = []
        if patience_s > 0:
            ends = [actor.__ray_terminate__.remote() for actor in handles]
            _, late = ray.api.wait(ends, num_returns=len(ends), timeout=patience_s) if ends else ([], [])
            handles = [actor for actor, end in zip(handles, ends, strict=True) if end in late]
        for actor in handles:
            ray.api.kill(actor)

    @property
    def actors(self) -> list[ActorWrapper]:
        """The actors. Raises RuntimeError after `shutdown`."""
        if not self._actors:
            raise RuntimeError("This ActorGroup has been shutdown. Please start it again.")
        return self._actors

    @property
    def actor_metadata(self) -> list[ActorMetadata]:
        """Where each of them is."""
        return [wrapped.metadata for wrapped in self.actors]

    def __getattr__(self, name: str) -> ActorGroupMethod:
        if name.startswith("_") or not hasattr(self._remote_cls.__ray_actor_class__, name):
            raise AttributeError(f"the actors of this group have no method {name!r}")
        return ActorGroupMethod(self, name)

    def __getitem__(self, index: int) -> ActorWrapper:
        return self.actors[index]

    def __iter__(self) -> Iterator[ActorWrapper]:
        return iter(self.actors)

    def __len__(self) -> int:
        return len(self._actors)
