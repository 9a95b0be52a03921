"""Texts of network addresses."""

from __future__ import annotations

import contextlib
import pathlib
import socket
from typing import Any

import pytest

from ray._runtime import addresses, connect


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("10.0.0.1:6379", ("10.0.0.1", 6379)),
        ("head.example:1", ("head.example", 1)),
        ("[::1]:6379", ("::1", 6379)),
    ],
)
def test_split_and_join(text: str, parts: tuple[str, int]) -> None:
    assert addresses.split(text) == parts
    assert addresses.join(*parts) == text


@pytest.mark.parametrize("text", ["", "host", "host:", ":1", "host:x", "host:0", "host:65536", "::1:6379", "[::1]"])
def test_malformed_addresses(text: str) -> None:
    with pytest.raises(ValueError, match="Malformed"):
        addresses.split(text)


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("10.0.0.1:1", ("10.0.0.1:1", False)),
        ("ray://10.0.0.1:1", ("10.0.0.1:1", True)),
        ("ray://head", ("head:6379", True)),
        ("ray://head/", ("head:6379", True)),
        ("unix:/a/sockets/gcs.sock", ("unix:/a/sockets/gcs.sock", False)),
    ],
)
def test_what_a_driver_may_give(text: str, parsed: tuple[str, bool]) -> None:
    assert connect.parse(text) == parsed


@pytest.mark.parametrize("text", ["nonsense", "http://x:1", "ray://", "unix:/a/b", "a:b:c"])
def test_what_it_may_not_give(text: str) -> None:
    with pytest.raises(ValueError, match="Malformed"):
        connect.parse(text)


def test_which_addresses_are_of_this_machine() -> None:
    assert addresses.is_local("127.0.0.1")
    assert not addresses.is_local("192.0.2.1")  # set aside for documentation
    assert not addresses.is_local("nonsense")
    assert addresses.is_loopback("127.0.0.2") and addresses.is_loopback("::1") and not addresses.is_loopback("10.0.0.1")
    assert addresses.own_ip("127.0.0.1") == "127.0.0.1"


def test_which_may_be_the_address_of_a_node() -> None:
    assert addresses.checked_ip("127.0.0.2") == "127.0.0.2"
    assert addresses.is_loopback(addresses.checked_ip("localhost"))
    for host in ("0.0.0.0", "::", "192.0.2.1", "no-such-host.invalid"):
        with pytest.raises(ValueError, match=f"'{host}' cannot be the address of a node"):
            addresses.checked_ip(host)


def test_a_name_of_several_addresses_stands_for_the_one_that_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    of = {"two": ["192.0.2.1", "127.0.0.3", "127.0.0.2"], "away": ["192.0.2.1"], "any": ["127.0.0.1", "0.0.0.0"]}
    monkeypatch.setattr(addresses, "resolve", of.__getitem__)
    monkeypatch.setattr(addresses, "is_local", lambda ip: ip.startswith("127."))
    assert addresses.checked_ip("two") == "127.0.0.3"
    with pytest.raises(ValueError, match="'away' cannot be the address of a node: this machine does not have it"):
        addresses.checked_ip("away")
    with pytest.raises(ValueError, match="'any' cannot be the address of a node: others cannot reach it there"):
        addresses.checked_ip("any")


def test_whether_something_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = addresses.join("127.0.0.1", server.getsockname()[1])
        assert addresses.is_listening(address)
    assert not addresses.is_listening(address)


def test_a_name_that_nobody_knows() -> None:
    with pytest.raises(ConnectionError, match=r"no-such-host\.invalid"):
        addresses.resolve("no-such-host.invalid")


@pytest.mark.parametrize(
    ("address", "answering", "asked"),
    [
        ("192.0.2.1:10001", ["192.0.2.1:10001"], ["192.0.2.1:10001"]),
        ("192.0.2.1:10001", ["192.0.2.1:6379"], ["192.0.2.1:10001", "192.0.2.1:6379"]),
        ("[2001:db8::1]:10001", ["[2001:db8::1]:6379"], ["[2001:db8::1]:10001", "[2001:db8::1]:6379"]),
        ("192.0.2.1:10001", [], ["192.0.2.1:10001", "192.0.2.1:6379"]),
        ("192.0.2.1:10002", ["192.0.2.1:6379"], ["192.0.2.1:10002"]),
    ],
)
def test_the_port_of_rays_client_server(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path, address: str, answering: list[str], asked: list[str]
) -> None:
    """Of ray://: nothing listens there, but the GCS may on its default port."""
    seen: list[str] = []

    def list_nodes(where: str, _: object) -> list[dict[str, Any]]:
        seen.append(where)
        if where not in answering:
            raise ConnectionError(f"No Ray cluster answers at {where}")
        return []

    monkeypatch.setattr(connect.gcs_query, "list_nodes", list_nodes)
    monkeypatch.setattr(connect.security, "for_asking", contextlib.nullcontext)
    if asked[-1] in answering:
        assert connect._ask_gcs(address, True, tmp_path) == (asked[-1], None, [])
    else:
        with pytest.raises(ConnectionError, match="6379" if len(asked) == 2 else "10002"):
            connect._ask_gcs(address, True, tmp_path)
    assert seen == asked
    seen.clear()
    if len(asked) == 2:  # without ray:// an address is taken as it is
        with pytest.raises(ConnectionError, match="10001"):
            connect._ask_gcs(address, False, tmp_path)
        assert seen == asked[:1]


@pytest.mark.parametrize(
    ("host", "numeric"), [("10.0.0.1", True), ("fe80::1%eth0", True), ("localhost", False), ("1.2.3", False)]
)
def test_names_are_told_from_addresses(host: str, numeric: bool) -> None:
    assert addresses.is_numeric(host) == numeric
