"""Network addresses: `host:port` texts, and which of them are this machine's."""

from __future__ import annotations

import contextlib
import ipaddress
import socket

LOOPBACK = "127.0.0.1"
DEFAULT_PORT = 6379
# Datagram sockets that are connected, which sends nothing, tell the address by which this machine would reach others.
_ELSEWHERE = ("8.8.8.8", "2001:4860:4860::8888")


def split(address: str) -> tuple[str, int]:
    """Host and port of `host:port` or `[ipv6]:port`. Raises ValueError."""
    host, colon, port = address.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if bracketed:
        host = host[1:-1]
    if not colon or not host or (":" in host and not bracketed) or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"Malformed address: {address!r}. Expected 'host:port', for example '10.0.0.1:6379'.")
    return host, int(port)


def join(host: str, port: int) -> str:
    """The reverse of `split`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def resolve(host: str) -> list[str]:
    """Its numeric addresses. Raises ConnectionError where the name is not known."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ConnectionError(f"The host name {host!r} cannot be resolved: {error.strerror}.") from error
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def is_numeric(host: str) -> bool:
    """Whether it is an address itself, and no name."""
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def is_loopback(ip: str) -> bool:
    """Whether others cannot come in that way."""
    try:
        return ipaddress.ip_address(ip).is_loopback
    except ValueError:
        return ip == "localhost"


def is_local(ip: str) -> bool:
    """Whether it is an address of this machine (of this network namespace)."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET) as probe:
        probe.bind((ip, 0))
        return True
    return False


def checked_ip(host: str) -> str:
    """The first numeric address of `host` that is of this machine, for a node to be reached at.

    Raises:
        ValueError: it is none of this machine, or stands for all of them.
    """
    refused = f"{host!r} cannot be the address of a node"
    try:
        resolved = resolve(host)
    except ConnectionError as error:
        raise ValueError(f"{refused}: {error}") from None
    if any(ipaddress.ip_address(ip.partition("%")[0]).is_unspecified for ip in resolved):
        raise ValueError(f"{refused}: others cannot reach it there, as they can at {own_ip()}.")
    # A name may stand for several machines, or for addresses of both families of which this machine has one.
    local = next((ip for ip in resolved if is_local(ip)), None)
    if local is None:
        raise ValueError(f"{refused}: this machine does not have it, as it has {own_ip()}.")
    return local


def own_ip(towards: str | None = None) -> str:
    """The address of this machine on the way to `towards`, or to anywhere; the loopback one if it is on no network."""
    for host in (towards,) if towards else _ELSEWHERE:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((host, 9))
            return str(probe.getsockname()[0])
    return LOOPBACK


def is_listening(address: str, timeout: float = 1.0) -> bool:
    """Whether something accepts connections there."""
    with contextlib.suppress(OSError), socket.create_connection(split(address), timeout=timeout):
        return True
    return False
