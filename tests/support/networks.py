"""A network for the nodes of a test: each in a network namespace with its own address, on one bridge. Needs root."""

from __future__ import annotations

import contextlib
import itertools
import os
import pathlib
import subprocess
import sys

from support import relay

_numbers = itertools.count()


def _ip(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["ip", *arguments], capture_output=True, text=True, timeout=20, check=False)


class NotPermitted(Exception):
    """This process may not make namespaces and what belongs to them, or the machine cannot."""


class Network:
    """`size` nodes: `hosts` are their addresses, `within(n)` is the start of a command that runs on node n.

    The bridge is in a namespace, too: nothing is made in that of this process. With `relayed`, cables can be made bad.
    """

    def __init__(self, size: int, *, ipv6: bool = False, relayed: bool = False) -> None:
        self._prefix = f"raytest-{os.getpid()}-{next(_numbers)}"
        self._switch = f"{self._prefix}-switch"
        self._made: list[str] = []
        self._relays: list[subprocess.Popen[str]] = []
        self.hosts = [f"fd00:7a::{n + 1:x}" if ipv6 else f"10.231.7.{n + 1}" for n in range(size)]
        try:
            self._add_namespace(self._switch)
            self._run("-n", self._switch, "link", "add", "br0", "type", "bridge")
            self._run("-n", self._switch, "link", "set", "br0", "up")
            for n in range(size):
                self._add_namespace(self._node(n))
                if relayed:
                    self._add_relay(n)
                else:
                    ends = (f"p{n}", "type", "veth", "peer", "name", "eth0", "netns", self._node(n))
                    self._run("-n", self._switch, "link", "add", *ends)
                self._run("-n", self._node(n), "link", "set", "lo", "up")
                # No detection of duplicates: the address is good at once.
                address = (f"{self.hosts[n]}/{64 if ipv6 else 24}", "dev", "eth0", *(("nodad",) if ipv6 else ()))
                self._run("-n", self._node(n), "addr", "add", *address)
                self._run("-n", self._node(n), "link", "set", "eth0", "up")
                self._run("-n", self._switch, "link", "set", f"p{n}", "master", "br0", "up")
        except AssertionError as error:
            self.close()
            raise NotPermitted(f"networks cannot be made here: {error}") from error
        except BaseException:
            self.close()
            raise

    def _node(self, n: int) -> str:
        return f"{self._prefix}-n{n}"

    def _add_namespace(self, name: str) -> None:
        try:
            done = _ip("netns", "add", name)
        except FileNotFoundError as error:
            raise NotPermitted("there is no program 'ip' here") from error
        if done.returncode != 0:
            raise NotPermitted(f"network namespaces cannot be made here: {done.stderr.strip()}")
        self._made.append(name)

    def _add_relay(self, n: int) -> None:
        self._relays.append(
            subprocess.Popen(
                [sys.executable, relay.__file__, self._node(n), "eth0", self._switch, f"p{n}"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        said = self._relays[-1].stdout
        assert said is not None
        if said.readline() != "up\n":
            raise NotPermitted(f"Ethernet devices cannot be made here: {self._relays[-1].communicate(timeout=20)[1]}")

    def _run(self, *arguments: str) -> None:
        done = _ip(*arguments)
        assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr.strip()}"

    def within(self, n: int) -> tuple[str, ...]:
        return ("ip", "netns", "exec", self._node(n))

    def unplug(self, n: int) -> None:
        """Pulls the cable of node n."""
        self._run("-n", self._switch, "link", "set", f"p{n}", "down")

    def plug(self, n: int) -> None:
        self._run("-n", self._switch, "link", "set", f"p{n}", "up")

    def mute(self, n: int, towards: int) -> None:
        """What node n sends to the other one is lost: it goes to a card that nobody has. Nobody is told."""
        nobody = ("lladdr", "02:00:00:00:00:99", "nud", "permanent")
        self._run("-n", self._node(n), "neigh", "replace", self.hosts[towards], *nobody, "dev", "eth0")

    def unmute(self, n: int, towards: int) -> None:
        self._run("-n", self._node(n), "neigh", "del", self.hosts[towards], "dev", "eth0")

    def impair(self, n: int, *, late_s: float, lost: float) -> int:
        """From now on what goes to and from node n of a relayed network is that late, and that share of it is lost.

        Returns how many frames were lost so far.
        """
        orders, said = self._relays[n].stdin, self._relays[n].stdout
        assert orders is not None and said is not None
        print(late_s, lost, file=orders, flush=True)
        return int(said.readline())

    def shape(self, n: int, *qdisc: str) -> bool:
        """Treats packets towards node n so, e.g. "tbf", "rate", "80mbit". False: this kernel cannot do that."""
        command = ["tc", "-n", self._switch, "qdisc", "replace", "dev", f"p{n}", "root", *qdisc]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        except FileNotFoundError:
            return False
        assert done.returncode == 0 or "unknown" in done.stderr, done.stderr
        return done.returncode == 0

    def close(self) -> None:
        """Removes everything. Idempotent."""
        for process in self._relays:
            process.communicate(timeout=20)  # its input ends, and so it does
        self._relays.clear()
        for name in reversed(self._made):
            self._run("netns", "del", name)
        self._made.clear()

    def left_over(self) -> list[str]:
        """The namespaces of this network that there still are."""
        with contextlib.suppress(FileNotFoundError):
            return [path.name for path in pathlib.Path("/run/netns").iterdir() if path.name.startswith(self._prefix)]
        return []
