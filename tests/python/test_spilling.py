"""Where spilled objects are to go: arguments, system config, environment."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from ray._runtime import spilling


def config(kind: str, **params: Any) -> dict[str, Any]:
    return {"type": kind, "params": params}


def test_nothing_was_asked_for(tmp_path: Path) -> None:
    assert spilling.resolve(None, {}, {}) == spilling.SpillTarget()
    assert spilling.flags(None, {}, tmp_path, {}) == []


def test_the_most_specific_one_counts() -> None:
    sources = [
        ({"object_spilling_config": config("filesystem", directory_path="/system-config")}, {}),
        ({"object_spilling_directory": "/system"}, {}),
    ]
    environ = {
        "RAY_object_spilling_directory": "/environment",
        "RAY_object_spilling_config": json.dumps(config("filesystem", directory_path="/environment-config")),
    }
    system = {**sources[0][0], **sources[1][0]}
    assert spilling.resolve("/argument", system, environ).directories == ("/argument",)
    assert spilling.resolve(None, system, environ).directories == ("/system",)
    del system["object_spilling_directory"]
    assert spilling.resolve(None, system, environ).directories == ("/environment",)
    del environ["RAY_object_spilling_directory"]
    assert spilling.resolve(None, system, environ).directories == ("/system-config",)
    del system["object_spilling_config"]
    assert spilling.resolve(None, system, environ).directories == ("/environment-config",)


def test_several_folders(tmp_path: Path) -> None:
    assert spilling.resolve("/a,/b", {}, {}).directories == ("/a", "/b")
    value = json.dumps(config("filesystem", directory_path=["/a", "/b"], buffer_size=100))
    assert spilling.resolve(None, {"object_spilling_config": value}, {}).directories == ("/a", "/b")
    flags = spilling.flags("/a,/b", {}, tmp_path, {})
    assert flags == ["--object-spilling-directory", "/a", "--object-spilling-directory", "/b"]


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        ("{", ValueError, "not JSON"),
        ("[]", TypeError, "JSON object"),
        (config("ceph", uri="x://y"), ValueError, "'filesystem' or 'smart_open'"),
        (config("filesystem"), ValueError, "directory_path"),
        (config("filesystem", directory_path="relative"), ValueError, "absolute"),
        (config("filesystem", directory_path="/a", path="/b"), ValueError, "unknown params path"),
        (config("smart_open"), ValueError, "needs 'uri'"),
        (config("smart_open", uri="/folder"), ValueError, "needs 'uri'"),
        ({"type": "filesystem", "params": 5}, TypeError, "'params'"),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_source(value: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text) as caught:
        spilling.resolve(None, {"object_spilling_config": value}, {})
    assert "_system_config['object_spilling_config']" in str(caught.value)


def test_uris(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    value = config("smart_open", uri=["s3://a/b/", "s3://c"], prefix="spill", buffer_size=1000)
    target = spilling.resolve(None, {"object_spilling_config": value}, {})
    assert target.uris == ("s3://a/b/spill", "s3://c/spill")
    flags = spilling.flags(None, {"object_spilling_config": value}, tmp_path, {})
    assert flags[:4] == ["--object-spilling-uri", "s3://a/b/spill", "--object-spilling-uri", "s3://c/spill"]
    file = Path(flags[5])
    assert flags[4] == "--object-spilling-options-file" and file.parent == tmp_path
    assert json.loads(file.read_text()) == {"buffer_size": 1000}
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_uri_with_a_password_is_refused_and_not_shown() -> None:
    value = config("smart_open", uri=["s3://a", "s3://key:hid/den@b"])
    with pytest.raises(ValueError, match="override_transport_params") as caught:
        spilling.resolve(None, {"object_spilling_config": value}, {})
    assert "hid" not in str(caught.value)


def test_uris_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"smart_open must be installed.*object_spilling_directory"):
        spilling.resolve(None, {"object_spilling_config": config("smart_open", uri="s3://a")}, {})
