"""Variables of the environment that make no sense: the error names them, whoever reads them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ray._runtime import environment, session, shutdown_hook
from ray._runtime.cluster_process import NodeOptions
from ray._runtime.connect import Attachment


def test_what_is_not_set_or_empty_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_EMPTY", "")
    for name in ("RAY_EMPTY", "RAY_NOT_SET"):
        assert environment.integer(name, 5) == 5
        assert environment.number(name, 1.5) == 1.5
        assert environment.port(name, 6379) == 6379
        assert environment.json_object(name) == {}


def test_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_X", "7")
    assert environment.integer("RAY_X", 0) == environment.number("RAY_X", 0) == environment.port("RAY_X", 0) == 7
    monkeypatch.setenv("RAY_X", '{"a": 1}')
    assert environment.json_object("RAY_X") == {"a": 1}


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (lambda: environment.integer("RAY_X", 0), "1.5"),
        (lambda: environment.number("RAY_X", 0), "many"),
        (lambda: environment.number("RAY_X", 0), "nan"),
        (lambda: environment.port("RAY_X", 0), "65536"),
        (lambda: environment.json_object("RAY_X"), "{"),
        (lambda: environment.json_object("RAY_X"), "[]"),
    ],
)
def test_nonsense_is_named(read: Callable[[], Any], text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_X", text)
    with pytest.raises(ValueError, match=r"^RAY_X "):
        read()


@pytest.mark.parametrize(
    "name",
    ["RAY_BACKEND_LOG_LEVEL", "RAY_max_lineage_bytes", "RAY_task_oom_retries", "RAY_task_oom_retry_delay_base_ms"],
)
def test_a_bad_setting_is_not_shown_as_a_cluster_that_cannot_be_reached(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setenv(name, "many")
    attachment = Attachment(str(tmp_path), str(tmp_path))
    with pytest.raises(ValueError, match=f"^{name} must be"):
        session.start_driver(attachment, address="local", namespace="n", job_config={})


def test_nobody_there_is_shown_as_such(tmp_path: Any) -> None:
    attachment = Attachment(str(tmp_path), str(tmp_path))
    with pytest.raises(ConnectionError, match="at nowhere"):
        session.start_driver(attachment, address="nowhere", namespace="n", job_config={})


@pytest.mark.parametrize("name", ["RAY_OVERRIDE_LABELS", "RAY_OVERRIDE_RESOURCES"])
def test_overrides_are_json_objects(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "a=b")
    with pytest.raises(ValueError, match=f"^{name} is not JSON"):
        NodeOptions().all_labels() if name.endswith("LABELS") else NodeOptions().all_resources()


def test_an_actor_is_shut_down_in_order_all_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RAY_actor_graceful_shutdown_timeout_ms", "soon")
    called = []

    class Actor:
        def __ray_shutdown__(self) -> None:
            called.append(1)

    shutdown_hook.run(Actor())
    assert called == [1]
    assert "RAY_actor_graceful_shutdown_timeout_ms must be a number, got 'soon'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "level"), [("trace", "DEBUG"), ("FATAL", "ERROR"), ("Warning", "WARNING"), ("", "INFO")]
)
def test_every_log_level_of_ray_means_something(text: str, level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_BACKEND_LOG_LEVEL", text)
    assert environment.log_level() == level
