"""The processes of a node, gcs_server and raylet, as this process starts and ends them.

A node of `ray.init()` or of a test is owned: its processes watch their owner through a pidfd, and each other, so that
nothing is left over however any of them ends. One of `ray start` is let go: its raylet ends when the GCS has gone, and
does not come back in time if it keeps its tables.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ray._runtime import (
    accelerators,
    addresses,
    environment,
    gcs_query,
    gcs_storage,
    private_file,
    security,
    session_dir,
    spilling,
    system_config,
)
from ray._runtime.node_resources import NodeSizes, detect
from ray._runtime.processes import START_S, STOP_S, Process, binary
from ray._runtime.security import Security
from ray._runtime.session_dir import GCS, RAYLET, ProcessRecord
from ray.exceptions import RaySystemError

PYTHON_VERSION = ".".join(map(str, sys.version_info[:3]))
_CONFIG_FILE = "system_config.json"
_LABEL_VARIABLES = {
    "RAY_NODE_TYPE_NAME": "ray.io/node-group",
    "RAY_NODE_MARKET_TYPE": "ray.io/market-type",
    "RAY_NODE_REGION": "ray.io/availability-region",
    "RAY_NODE_ZONE": "ray.io/availability-zone",
}


@dataclass(frozen=True)
class NodeOptions:
    """What a node has and is called; sizes that are None are detected.

    Attributes:
        object_spilling_directory: folders for objects that the store has no room for, separated by commas. None: what
            the system config or the environment says, else the session's folder.
        drain_s: how long running work may go on after SIGTERM.
        driver_only: it offers nothing to the cluster, but is a driver's way into it.
        system_config: settings for the whole cluster (head only).
        port: of the raylet; 0: any free one; None: it does not listen, but dials out.
        redis_username, redis_password: for the Redis server that keeps the tables, if one does (head only). None: those
            of the environment.
    """

    num_cpus: float | None = None
    num_gpus: float | None = None
    resources: dict[str, float] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    object_store_memory: int | None = None
    memory: int | None = None
    node_name: str | None = None
    object_spilling_directory: str | None = None
    drain_s: float = 0.0
    driver_only: bool = False
    system_config: dict[str, object] = field(default_factory=dict)
    port: int | None = 0
    log_level: str | None = None
    redirect_output: bool = True
    redis_username: str | None = None
    redis_password: str | None = field(default=None, repr=False)

    def sizes(self) -> NodeSizes:
        """What is given, or detected."""
        return detect(
            self.num_cpus, self.num_gpus, self.memory, self.object_store_memory, resources=self.all_resources()
        )

    def all_labels(self) -> dict[str, str]:
        """Those that the environment gives, under those that were given, under RAY_OVERRIDE_LABELS.

        Raises:
            ValueError: that is no JSON object.
        """
        found = {label: os.environ[name] for name, label in _LABEL_VARIABLES.items() if os.environ.get(name)}
        found = {**accelerators.slice_labels(), **found}
        return {**found, **self.labels, **environment.json_object("RAY_OVERRIDE_LABELS")}

    def all_resources(self) -> dict[str, float]:
        """Custom ones; RAY_OVERRIDE_RESOURCES goes first. Raises ValueError if that is no JSON object."""
        return {**self.resources, **environment.json_object("RAY_OVERRIDE_RESOURCES")}


def write_config(session_directory: Path, settings: dict[str, object]) -> Path:
    """Keeps the settings of the cluster for drivers on this machine; where."""
    file = session_directory / _CONFIG_FILE
    if settings:
        private_file.write_text(file, json.dumps(settings))
    return file


def read_config(session_directory: Path) -> dict[str, Any]:
    """The settings of the cluster, as the node was started with."""
    try:
        return dict(json.loads((session_directory / _CONFIG_FILE).read_text()))
    except FileNotFoundError:  # there are none
        return {}


class Node:
    """A raylet, and on a head node the gcs_server, that this process started.

    Attributes:
        gcs_address: of the cluster.
        session_dir, node_dir: directories; the sockets are in <node_dir>/sockets.
        node_id: hex; "" until it is ready.
        ip, port: of the raylet; port 0 if it does not listen.
        security: as the processes were told.
        raylet, gcs_server: the processes; `gcs_server` is None but on a head node.
        gcs_is_durable: a gcs_server that is started again goes on where the last one ended.
    """

    def __init__(self, root: Path, session_directory: Path, node_dir: Path, ip: str, *, owned: bool) -> None:
        self.root = root
        self.session_dir = session_directory
        self.node_dir = node_dir
        self.ip = ip
        self.port = 0
        self.node_id = ""
        self.gcs_address = ""
        self.security = Security()
        self.raylet: Process | None = None
        self.gcs_server: Process | None = None
        self.owned = owned
        self._owner = os.getpid()
        self.gcs_is_durable = False
        self._replaceable = False  # another head may go on from what the GCS stores
        self._start_gcs: Callable[[], Process] | None = None
        self._records: list[ProcessRecord] = []
        self._addresses: tuple[str, ...] = ()

    # --- three ways to start

    @classmethod
    def start_local(cls, options: NodeOptions, *, temp_dir: str | None = None) -> Node:
        """A cluster of one node for this process: nothing listens on TCP.

        Raises:
            RaySystemError: a process did not start (the text has the end of its log), or there is no place for files.
        """
        root = session_dir.temp_root(temp_dir)
        directory = session_dir.make_session_dir(root)
        session_dir.reap_old_sessions(root)
        node = cls(root, directory, directory, addresses.LOOPBACK, owned=True)
        node.gcs_address = f"unix:{directory}/sockets/gcs.sock"
        node._addresses = (node.gcs_address,)

        def start() -> None:
            gcs = node._spawn_gcs(["--listen", node.gcs_address, "--exit-when-empty"], options)
            # The raylet starts at the same time and tries its link to the GCS until that answers.
            node._spawn_raylet(["--head", "--local-mode", "--watch-pid", str(gcs.pid)], options)
            deadline = time.monotonic() + START_S
            gcs.wait_ready(deadline)
            node._wait_raylet(deadline, head=True)

        return node._started(start)

    @classmethod
    def start_head(
        cls,
        options: NodeOptions,
        *,
        ip: str | None = None,
        port: int = addresses.DEFAULT_PORT,
        temp_dir: str | None = None,
        owned: bool = False,
        watch: bool = False,
    ) -> Node:
        """The head node of a new cluster; its GCS listens on `port` of `ip`, and of the loopback address.

        Args:
            ip: of this node, as others see it; found out if None.
            port: of the GCS; 0: any free one.
            owned: the cluster is for this process, and others should leave it alone.
            watch: its processes end when this one does.

        Raises:
            RaySystemError: a process did not start (the text has the end of its log), or there is no place for files.
            ConnectionError: something listens there already.
            AuthenticationError: no good token, or an address that others can reach without one.
            ValueError: `ip` is not of this machine.
        """
        mode = security.from_environment().mode
        if ip is None:
            ip = addresses.LOOPBACK if mode == security.DISABLED else addresses.own_ip()
        elif addresses.is_numeric(ip):
            security.check_listen(mode, ip)  # says more of an address that stands for all
        ip = addresses.checked_ip(ip)
        security.check_listen(mode, ip)
        listen = [addresses.join(ip, port)]
        if port and not addresses.is_loopback(ip):
            listen.append(addresses.join(addresses.LOOPBACK, port))
        if port and addresses.is_listening(listen[0]):
            raise ConnectionError(
                f"A cluster cannot be started at {listen[0]}: something listens there already. "
                "`ray stop` ends a cluster of yours; --port takes another port, 0 any free one."
            )
        root = session_dir.temp_root(temp_dir)
        directory = session_dir.make_session_dir(root)
        session_dir.reap_old_sessions(root)
        node = cls(root, directory, directory, ip, owned=owned)

        def start() -> None:
            node.security = security.for_head(directory, owned=owned)
            storage = gcs_storage.flags(
                directory,
                options.system_config,
                durable=not owned,
                redis_username=options.redis_username,
                redis_password=options.redis_password,
            )
            node.gcs_is_durable = gcs_storage.are_durable(storage)
            node._replaceable = gcs_storage.outlive(storage, directory)
            rest = [*node.security.flags(), *storage]
            gcs = node._spawn_gcs([*_listen_flags(listen), *rest], options, watch=watch)
            deadline = time.monotonic() + START_S
            said = gcs.wait_ready(deadline)
            node.gcs_address = said[0] if said else listen[0]
            node._addresses = (node.gcs_address, *listen[1:])
            # The next one must be where this one is.
            node._start_gcs = lambda: node._spawn_gcs([*_listen_flags(node._addresses), *rest], options, watch=watch)
            node._spawn_raylet(["--head", *node._network_flags(options)], options, watch=watch)
            node._wait_raylet(deadline, head=True)

        return node._started(start)

    @classmethod
    def join(
        cls,
        options: NodeOptions,
        *,
        gcs_address: str,
        session_name: str,
        local: ProcessRecord | None = None,
        ip: str | None = None,
        temp_dir: str | None = None,
        owned: bool = False,
        watch: bool = False,
        wait: bool = True,
    ) -> Node:
        """One more node of the cluster whose GCS listens at `gcs_address`.

        Args:
            session_name: of the cluster.
            local: a process of that cluster on this machine, of this user.
            ip: of this node, as others see it; found out if None.
            owned, watch: as for `start_head`.
            wait: until it has joined; else `wait_ready` does.

        Raises:
            RaySystemError: it did not start or was refused (the text has the end of its log); no place for files.
            AuthenticationError: there is no token, or the cluster does not accept it.
            ConnectionError: the GCS does not answer.
            ValueError: `options` have settings that are not the cluster's; `ip` is not of this machine.
        """
        if ip is None:
            ip = addresses.own_ip(addresses.resolve(addresses.split(gcs_address)[0])[0])
        else:
            ip = addresses.checked_ip(ip)
        root = session_dir.temp_root(temp_dir)
        with session_dir.joined(root, session_name) as (directory, node_dir):
            node = cls(root, directory, node_dir, ip, owned=owned)
            node.gcs_address = gcs_address

            def start() -> None:
                node.security = security.for_joining(node_dir, local)
                if options.port is not None:
                    security.check_listen(node.security.mode, node.ip)
                shared = gcs_query.cluster_config(gcs_address, node.security)
                agreed = replace(options, system_config=system_config.agreed(shared, options.system_config))
                write_config(directory, agreed.system_config)
                node._spawn_raylet(node._network_flags(agreed), agreed, watch=watch)
                if wait:
                    node._wait_raylet(time.monotonic() + START_S)

            return node._started(start)

    def wait_ready(self) -> None:
        """Until it has joined, after `join(wait=False)`. Raises RaySystemError."""
        if self.raylet is not None and not self.node_id:
            self._wait_raylet(time.monotonic() + START_S)

    def _started(self, start: Callable[[], None]) -> Node:
        with session_dir.held(self.session_dir):
            try:
                start()
            except BaseException:
                self.stop()
                raise
        return self

    # --- their command lines

    def _common_flags(self, options: NodeOptions, watch: bool) -> list[str]:
        flags = ["--session-dir", str(self.session_dir)]
        if watch:
            flags += ["--watch-pid", str(os.getpid())]
        if options.log_level:
            flags += ["--log-level", options.log_level]
        return flags

    def _network_flags(self, options: NodeOptions) -> list[str]:
        flags = ["--node-ip", self.ip, "--python-version", PYTHON_VERSION, *self.security.flags()]
        if options.port is not None:
            flags += ["--listen", addresses.join(self.ip, options.port)]
        return flags

    def _spawn_gcs(self, flags: list[str], options: NodeOptions, *, watch: bool = True) -> Process:
        settings = system_config.gcs_flags(options.system_config)
        command = [binary("gcs_server"), *flags, *settings, *self._common_flags(options, watch)]
        if options.system_config:
            # There may be keys in it, and command lines are for all to read.
            command += ["--config-file", str(write_config(self.session_dir, options.system_config))]
        logs = self.session_dir / "logs"
        self.gcs_server = Process("gcs_server", command, logs, redirect_output=options.redirect_output)
        return self.gcs_server

    def _spawn_raylet(self, flags: list[str], options: NodeOptions, *, watch: bool = True) -> Process:
        sizes = options.sizes()
        command = [
            binary("raylet"), *flags, *self._common_flags(options, watch),
            "--node-dir", str(self.node_dir), "--gcs-address", self.gcs_address, "--python", sys.executable,
            "--num-cpus", _number(sizes.num_cpus), "--num-gpus", _number(sizes.num_gpus), "--memory", str(sizes.memory),
            "--object-store-memory", str(sizes.object_store_memory),
            "--resources", json.dumps({**sizes.others, **options.all_resources()}),
            "--labels", json.dumps(options.all_labels()),
            *system_config.raylet_flags(options.system_config),
        ]  # fmt: skip
        if options.drain_s > 0:
            command += ["--drain-deadline", f"{options.drain_s}s"]
        if options.driver_only:
            command += ["--driver-only"]
        if options.node_name:
            command += ["--node-name", options.node_name]
        command += spilling.flags(options.object_spilling_directory, options.system_config, self.node_dir)
        name = "raylet" if self.node_dir == self.session_dir else f"raylet.{self.node_dir.name.removeprefix('node_')}"
        self.raylet = Process(
            name,
            command,
            self.session_dir / "logs",
            redirect_output=options.redirect_output,
            environment=system_config.worker_environment(options.system_config),
        )
        return self.raylet

    def _wait_raylet(self, deadline: float, *, head: bool = False) -> None:
        assert self.raylet is not None
        self.node_id, *listening = self.raylet.wait_ready(deadline)
        if listening and listening[0] != "-":
            self.port = addresses.split(listening[0])[1]
        if self.gcs_server is not None:
            self._record(GCS, self.gcs_server, reached_at=self._addresses)
        self._record(RAYLET, self.raylet, node_id=self.node_id, head=head)

    def _record(
        self, kind: str, process: Process, *, reached_at: tuple[str, ...] = (), node_id: str = "", head: bool = True
    ) -> None:
        record = ProcessRecord(
            kind=kind,
            pid=process.pid,
            session_dir=str(self.session_dir),
            node_dir=str(self.node_dir),
            gcs_address=self.gcs_address,
            addresses=reached_at,
            owned=self.owned,
            head=head,
            node_id=node_id,
            auth_token_file=self.security.token_file,
            auth_mode=self.security.mode,
            python=PYTHON_VERSION,
            replaceable=kind == GCS and self._replaceable,
        )
        self._records.append(record.write())

    # --- the end

    @property
    def processes(self) -> list[Process]:
        """Those that it has, in the order in which they end."""
        return [process for process in (self.raylet, self.gcs_server) if process is not None]

    def stop(self, *, graceful: bool = True) -> None:
        """Ends the processes and waits for them. Idempotent; does nothing in a forked child.

        Args:
            graceful: the node leaves in order (but without waiting for running work); else as after a crash.
        """
        if os.getpid() != self._owner:
            return
        self.ask_to_stop(graceful=graceful)
        deadline = time.monotonic() + STOP_S
        for process in self.processes:
            process.reap(deadline)
        self._forget()

    def ask_to_stop(self, *, graceful: bool = True) -> None:
        """The first half of `stop`, which does not wait."""
        for process in self.processes:
            # A raylet would let running work finish at SIGTERM. A gcs_server ends the other nodes at SIGINT; at SIGTERM
            # they wait for another head.
            waits = process is self.gcs_server and self._replaceable
            process.send_signal(signal.SIGKILL if not graceful else signal.SIGTERM if waits else signal.SIGINT)

    def kill_raylet(self) -> None:
        """As a crash of the raylet would."""
        _kill(self.raylet)

    def kill_gcs_server(self) -> None:
        """As a crash of the gcs_server would."""
        _kill(self.gcs_server)

    def start_gcs_server(self) -> None:
        """A new gcs_server in the place of one that has ended; it goes on from what that one stored.

        Raises:
            RaySystemError: it did not start (the text has the end of its log), or this node never had one.
        """
        if self._start_gcs is None or self.gcs_server is None:
            raise RaySystemError("Only the head of a cluster that others can join has a gcs_server to start again.")
        self.gcs_server.reap(time.monotonic())
        self._start_gcs().wait_ready(time.monotonic() + START_S)
        for record in [record for record in self._records if record.kind == GCS]:
            record.remove()
            self._records.remove(record)
        self._record(GCS, self.gcs_server, reached_at=self._addresses)

    def detach(self) -> None:
        """Lets the processes run on by themselves."""
        for process in self.processes:
            process.detach()

    def _forget(self) -> None:
        self.raylet = self.gcs_server = None
        for record in self._records:
            record.remove()
        session_dir.forget_current(self.root)
        shutil.rmtree(self.node_dir / "sockets", ignore_errors=True)  # of those that were killed
        if self.node_dir != self.session_dir:
            shutil.rmtree(self.node_dir, ignore_errors=True)


def _listen_flags(listen: Sequence[str]) -> list[str]:
    return [text for address in listen for text in ("--listen", address)]


def _kill(process: Process | None) -> None:
    if process is not None:
        process.send_signal(signal.SIGKILL)
        process.reap(time.monotonic() + STOP_S)


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else str(value)
