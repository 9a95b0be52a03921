"""Where the token comes from, and what the executables are told."""

from __future__ import annotations

import pathlib

import pytest

import ray
from ray._runtime import security
from ray._runtime.session_dir import RAYLET, ProcessRecord


@pytest.fixture(autouse=True)
def home(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE", "RAY_USE_TLS"):
        monkeypatch.delenv(name, raising=False)
    return folder


def local(token_file: str, mode: str = security.TOKEN) -> ProcessRecord:
    return ProcessRecord(RAYLET, 1, "/nowhere", auth_token_file=token_file, auth_mode=mode)


def token_of(found: security.Security) -> str:
    return pathlib.Path(found.token_file).read_text().strip()


def test_a_new_cluster_gets_a_token_that_only_its_user_can_read(tmp_path: pathlib.Path) -> None:
    found = security.for_head(tmp_path)
    assert found.mode == security.TOKEN
    assert pathlib.Path(found.token_file).parent == tmp_path
    assert pathlib.Path(found.token_file).stat().st_mode & 0o777 == 0o600
    assert len(token_of(found)) == 64 and int(token_of(found), 16)
    assert found.flags() == ["--auth-mode", "token", "--auth-token-file", found.token_file]


def test_the_order_in_which_a_token_is_looked_for(
    tmp_path: pathlib.Path, home: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ray.exceptions.AuthenticationError, match=r"RAY_AUTH_TOKEN.*~/\.ray/auth_token"):
        security.for_joining(tmp_path)
    (home / ".ray").mkdir()
    security.write_token(home / ".ray" / "auth_token", "of-home")
    assert token_of(security.for_joining(tmp_path)) == "of-home"
    security.write_token(tmp_path / "of_head", "of-head")
    assert token_of(security.for_joining(tmp_path, local(str(tmp_path / "of_head")))) == "of-head"
    security.write_token(tmp_path / "given", "of-path")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "given"))
    assert token_of(security.for_joining(tmp_path, local(str(tmp_path / "of_head")))) == "of-path"
    monkeypatch.setenv("RAY_AUTH_TOKEN", "of-the-variable-itself")
    joined = security.for_joining(tmp_path)
    assert token_of(joined) == "of-the-variable-itself"
    assert pathlib.Path(joined.token_file).stat().st_mode & 0o777 == 0o600
    with security.for_asking() as asking:
        assert token_of(asking) == "of-the-variable-itself"
        assert pathlib.Path(asking.token_file).stat().st_mode & 0o777 == 0o600
    assert not pathlib.Path(asking.token_file).exists()


@pytest.mark.parametrize("token", ["short", "0123456789abcdef 0123456789abcdef", "0123456789abcd\u00e9f"])
def test_what_is_no_token_is_not_shown_to_anybody(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", token)
    for look in (security.for_head, security.for_joining):
        with pytest.raises(ray.exceptions.AuthenticationError, match="RAY_AUTH_TOKEN holds is no token") as refused:
            look(tmp_path)
        assert token not in str(refused.value)


def test_who_shows_no_token_on_purpose_is_told_so() -> None:
    refused = security.turned_away("h:1", security.Security(mode=security.DISABLED), "it wants one; do this")
    assert "RAY_AUTH_MODE=disabled" in str(refused)
    refused = security.turned_away("h:1", security.Security(), "it is another one; do this")
    assert "does not accept the token: it is another one. Set RAY_AUTH_TOKEN" in str(refused)


def test_a_path_that_leads_nowhere_is_named(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/no/such/file")
    with pytest.raises(ray.exceptions.AuthenticationError, match="/no/such/file"):
        security.for_head(tmp_path)


def test_a_file_that_others_can_read_is_no_token(
    tmp_path: pathlib.Path, home: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / ".ray").mkdir()
    security.write_token(home / ".ray" / "auth_token", "of-home")
    (home / ".ray" / "auth_token").chmod(0o644)
    with pytest.raises(ray.exceptions.AuthenticationError, match="chmod 600"):
        security.for_head(tmp_path)
    assert pathlib.Path(security.for_head(tmp_path, owned=True).token_file).parent == tmp_path
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(home / ".ray" / "auth_token"))
    with pytest.raises(ray.exceptions.AuthenticationError, match="chmod 600"):
        security.for_joining(tmp_path)


def test_without_a_token_only_loopback_is_served() -> None:
    security.check_listen(security.DISABLED, "127.0.0.1")
    security.check_listen(security.TOKEN, "10.0.0.1")
    with pytest.raises(ray.exceptions.AuthenticationError, match="loopback"):
        security.check_listen(security.DISABLED, "10.0.0.1")


def test_without_authentication_no_token_is_made(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert security.for_head(tmp_path).flags() == ["--auth-mode", "disabled"]
    assert not (tmp_path / "auth_token").exists()
    monkeypatch.setenv("RAY_AUTH_MODE", "perhaps")
    with pytest.raises(ValueError, match="perhaps"):
        security.from_environment()


def test_who_joins_on_the_same_machine_does_as_the_cluster_does(tmp_path: pathlib.Path) -> None:
    assert security.for_joining(tmp_path, local("", security.DISABLED)).mode == security.DISABLED


def test_tls_wants_all_three_files(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_USE_TLS", "1")
    names = {"RAY_TLS_SERVER_CERT": "cert", "RAY_TLS_SERVER_KEY": "key", "RAY_TLS_CA_CERT": "ca"}
    for variable, name in names.items():
        with pytest.raises(RuntimeError, match=variable):
            security.from_environment()
        monkeypatch.setenv(variable, str(tmp_path / name))
        with pytest.raises(RuntimeError, match=variable):
            security.from_environment()
        (tmp_path / name).touch()
    found = security.from_environment()
    assert found.flags()[2:] == [
        *("--tls-cert", str(tmp_path / "cert")),
        *("--tls-key", str(tmp_path / "key")),
        *("--tls-ca", str(tmp_path / "ca")),
    ]


def test_a_token_for_another_machine_can_be_shown_and_made(home: pathlib.Path) -> None:
    with pytest.raises(ray.exceptions.AuthenticationError):
        security.show_token(None)
    made = security.show_token(None, generate=True)
    assert security.show_token(None, generate=True) == made
    assert (home / ".ray" / "auth_token").stat().st_mode & 0o777 == 0o600
