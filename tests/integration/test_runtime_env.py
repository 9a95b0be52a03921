"""Environment variables of jobs, tasks and actors, and what else is refused."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

import ray


@pytest.fixture
def job() -> Iterator[None]:
    ray.init(num_cpus=2, logging_level="ERROR", runtime_env={"env_vars": {"A": "job", "B": "${HOME}/b"}})
    yield
    ray.shutdown()


@ray.remote
def look() -> tuple[str | None, str | None, str | None, int]:
    return os.environ.get("A"), os.environ.get("B"), os.environ.get("C"), os.getpid()


@ray.remote
class Actor:
    def look(self) -> tuple[str | None, str | None, dict[str, Any]]:
        return os.environ.get("A"), os.environ.get("C"), ray.get_runtime_context().runtime_env

    def child(self) -> Any:
        return ray.get(look.remote())


@pytest.mark.usefixtures("job")
def test_variables_are_merged_one_by_one_and_inherited() -> None:
    home = os.environ["HOME"]
    own = {"env_vars": {"A": "task", "C": "c"}}
    assert isinstance(ray.get_runtime_context().runtime_env, ray.runtime_env.RuntimeEnv)
    plain, special = ray.get([look.remote(), look.options(runtime_env=own).remote()], timeout=30)
    assert plain[:3] == ("job", f"{home}/b", None)
    assert special[:3] == ("task", f"{home}/b", "c")
    actor = Actor.options(runtime_env={"env_vars": {"C": "actor"}}).remote()
    a, c, env = ray.get(actor.look.remote(), timeout=30)
    assert (a, c) == ("job", "actor")
    assert env == {"env_vars": {"A": "job", "B": "${HOME}/b", "C": "actor"}}
    assert ray.get(actor.child.remote(), timeout=30)[:3] == ("job", f"{home}/b", "actor")


@pytest.mark.usefixtures("job")
def test_workers_of_different_environments_are_not_shared() -> None:
    tasks = {name: look.options(runtime_env={"env_vars": {"C": name}}) for name in ("x", "y")}
    seen: dict[str, set[int]] = {name: set() for name in tasks}
    for _ in range(5):
        for name, task in tasks.items():
            _, _, c, pid = ray.get(task.remote(), timeout=30)
            assert c == name
            seen[name].add(pid)
    assert not seen["x"] & seen["y"]


@pytest.mark.parametrize(
    ("env", "error", "names"),
    [
        ({"pip": ["numpy"]}, ValueError, ["'pip'", "'env_vars'"]),
        ({"working_dir": "/tmp"}, ValueError, ["'working_dir'", "'env_vars'"]),
        ({"env_vars": {"A": 1}}, TypeError, ["'A'", "1"]),
        ({"env_vars": ["A"]}, TypeError, ["env_vars", "['A']"]),
        ({"env_vars": {"A=B": "x"}}, ValueError, ["'A=B'"]),
        ("pip", TypeError, ["runtime_env", "dict", "'pip'"]),
    ],
    ids=repr,
)
def test_what_is_not_supported_is_refused_where_it_is_asked_for(env: Any, error: type, names: list[str]) -> None:
    asked = [
        lambda: ray.init(num_cpus=1, runtime_env=env, logging_level="ERROR"),
        lambda: look.options(runtime_env=env),
        lambda: ray.remote(runtime_env=env)(lambda: None),
        lambda: Actor.options(runtime_env=env),
    ]
    for ask in asked:
        with pytest.raises(error) as caught:
            ask()
        assert all(name in str(caught.value) for name in names), caught.value
    assert not ray.is_initialized()
