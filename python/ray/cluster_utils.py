"""Clusters of several nodes on one machine, for tests: `Cluster` starts and ends raylets at will."""

from __future__ import annotations

import atexit
import subprocess
import time
from typing import Any, NamedTuple

from ray import options as opts
from ray._context import address_info
from ray._runtime import addresses, connect, environment, gcs_query, security
from ray._runtime.cluster_process import Node, NodeOptions

_STORE_BYTES = 150 << 20
_LOOK_AGAIN_S = 0.02  # the death of a node that was killed is seen in the GCS's table only
# Of Ray's node arguments, those about what this engine does not have.
_ACCEPTED = {
    "dashboard_host",
    "dashboard_port",
    "enable_object_reconstruction",
    "include_dashboard",
    "max_worker_port",
    "min_worker_port",
    "plasma_directory",
    "ray_client_server_port",
    "raylet_ip_address",
}
_NODE_ARGUMENTS = (
    "num_cpus",
    "num_gpus",
    "resources",
    "labels",
    "object_store_memory",
    "memory",
    "node_name",
    "object_spilling_directory",
    "redis_username",
    "redis_password",
)


class ProcessInfo(NamedTuple):
    """A process of a node, and the files that it writes to."""

    process: subprocess.Popen[bytes]
    stdout_file: str
    stderr_file: str


class ClusterNode:
    """A node that `Cluster.add_node` started.

    Attributes:
        head: whether it is the head node, which has the GCS.
        address, gcs_address: of the cluster.
        node_ip_address: of the node.
    """

    def __init__(self, node: Node, *, head: bool) -> None:
        self._node = node
        self.head = head
        self.address = self.gcs_address = node.gcs_address
        self.node_ip_address = self.raylet_ip_address = node.ip

    @property
    def node_id(self) -> str:
        """Its id in hex. Waits until it has joined."""
        self._node.wait_ready()
        return self._node.node_id

    unique_id = node_id

    @property
    def gcs_is_durable(self) -> bool:
        """Whether the cluster goes on when its GCS is killed and started again (head node only)."""
        return self._node.gcs_is_durable

    @property
    def node_manager_port(self) -> int:
        """The TCP port of its raylet."""
        self._node.wait_ready()
        return self._node.port

    @property
    def raylet_socket_name(self) -> str:
        return str(self._node.node_dir / "sockets" / "raylet.sock")

    @property
    def plasma_store_socket_name(self) -> str:
        return str(self._node.node_dir / "sockets" / "store.sock")

    @property
    def address_info(self) -> dict[str, Any]:
        """Where it is, as in the context that `ray.init` returns."""
        node = self._node
        return address_info(node.ip, node.gcs_address, str(node.session_dir), str(node.node_dir))

    @property
    def session_name(self) -> str:
        return self._node.session_dir.name

    def get_temp_dir_path(self) -> str:
        """Where session directories are."""
        return str(self._node.root)

    def get_sockets_dir_path(self) -> str:
        """The directory of the node's sockets."""
        return str(self._node.node_dir / "sockets")

    def get_session_dir_path(self) -> str:
        """The session's directory."""
        return str(self._node.session_dir)

    def get_logs_dir_path(self) -> str:
        """The directory of the session's logs."""
        return str(self._node.session_dir / "logs")

    def wait_ready(self) -> None:
        """Until it has joined. Raises RaySystemError when it cannot."""
        self._node.wait_ready()

    def kill_raylet(self, check_alive: bool = True) -> None:
        """SIGKILL to the raylet, as if it had crashed."""
        self._node.kill_raylet()

    def kill_gcs_server(self, check_alive: bool = True, wait: bool = False) -> None:
        """SIGKILL to the gcs_server, as if it had crashed."""
        self._node.kill_gcs_server()

    def start_gcs_server(self) -> None:
        """A new gcs_server in the place of one that has ended: the cluster goes on, if RAY_gcs_storage is not memory.

        Here that has to be set, to sqlite for example; by default a cluster for tests ends with its GCS.

        Raises:
            RaySystemError: it did not start, or this is not the head node.
        """
        self._node.start_gcs_server()

    def kill_all_processes(self, check_alive: bool = True, allow_graceful: bool = False, wait: bool = False) -> None:
        """Ends the node: in order if `allow_graceful`, else as after a crash."""
        self._node.stop(graceful=allow_graceful)

    @property
    def all_processes(self) -> dict[str, list[ProcessInfo]]:
        """Its processes, those that have ended too, by kind: "raylet", on the head node also "gcs_server"."""
        kinds = {"gcs_server": self._node.gcs_server, "raylet": self._node.raylet}
        return {
            kind: [ProcessInfo(process.popen, str(process.log_file), str(process.output_file))]
            for kind, process in kinds.items()
            if process is not None
        }

    def live_processes(self) -> list[tuple[str, subprocess.Popen[bytes]]]:
        """Kind and process of those that run."""
        return [(kind, process) for kind, process in self._processes() if process.poll() is None]

    def dead_processes(self) -> list[tuple[str, subprocess.Popen[bytes]]]:
        """Kind and process of those that have ended."""
        return [(kind, process) for kind, process in self._processes() if process.poll() is not None]

    def _processes(self) -> list[tuple[str, subprocess.Popen[bytes]]]:
        return [(kind, info.process) for kind, infos in self.all_processes.items() for info in infos]

    def is_head(self) -> bool:
        """Whether it is the head node."""
        return self.head

    def any_processes_alive(self) -> bool:
        """Whether it has a process that runs."""
        return any(not process.ended for process in self._node.processes)

    def remaining_processes_alive(self) -> bool:
        """Whether none of its processes has ended by itself."""
        return all(not process.ended for process in self._node.processes)

    def __repr__(self) -> str:
        return f"ClusterNode({self._node.node_id or 'joining'}, head={self.head}, ip={self.node_ip_address})"


class Cluster:
    """Several nodes on this machine, each with processes of its own; the first one added is the head.

    It is this process's: it is gone when this process is, and `ray.init()` elsewhere does not find it by itself.

        cluster = Cluster()
        cluster.add_node(num_cpus=2)
        cluster.add_node(num_cpus=2, resources={"special": 1})
        ray.init(address=cluster.address)
        ...
        ray.shutdown()
        cluster.shutdown()
    """

    def __init__(
        self,
        initialize_head: bool = False,
        connect: bool = False,
        head_node_args: dict[str, Any] | None = None,
        shutdown_at_exit: bool = True,
    ) -> None:
        self.head_node: ClusterNode | None = None
        self._workers: list[ClusterNode] = []  # in the order of joining
        self.connected = False
        if not initialize_head and connect:
            raise RuntimeError("Cannot connect to an uninitialized cluster: pass initialize_head=True too.")
        if shutdown_at_exit:
            atexit.register(self.shutdown)
        if initialize_head:
            self.add_node(**(head_node_args or {}))
            if connect:
                self.connect()

    @property
    def address(self) -> str | None:
        """What `ray.init(address=...)` takes; None as long as there is no head node."""
        return self.head_node.gcs_address if self.head_node is not None else None

    gcs_address = address

    @property
    def worker_nodes(self) -> set[ClusterNode]:
        """The nodes but the head, as of now; `list_all_nodes` has them in the order in which they were added."""
        return set(self._workers)

    def _head(self) -> ClusterNode:
        if self.head_node is None:
            raise RuntimeError("The cluster has no head node yet: add_node() makes one.")
        return self.head_node

    def connect(self, namespace: str | None = None) -> None:
        """Connects this process as a driver."""
        import ray

        ray.init(address=self.address, namespace=namespace, ignore_reinit_error=True)
        self.connected = True

    def add_node(self, wait: bool = True, **arguments: Any) -> ClusterNode:
        """Starts a node; the first one is the head.

        Args:
            wait: until it has joined.
            arguments: num_cpus (1), num_gpus (0), resources, labels, object_store_memory (150 MiB), memory, node_name,
                node_ip_address (127.0.0.1), port (of the GCS, head only), object_spilling_directory, temp_dir,
                drain_s (30), _system_config (of the head; others may repeat what that has).

        Raises:
            TypeError: an unknown argument, or resources or labels that are no dicts.
            ValueError: an amount of a resource that is not a whole number, an object store that is too small or too
                large, an invalid label, or other settings than the head has.
            AssertionError: a resource that has an argument of its own, such as CPU.
            RaySystemError: the node did not start.
        """
        arguments = {name.removeprefix("_"): value for name, value in arguments.items()}
        ip = arguments.pop("node_ip_address", None) or addresses.LOOPBACK
        port = int(arguments.pop("port", None) or environment.port("RAY_GCS_SERVER_PORT", 0))
        temp_dir = arguments.pop("temp_dir", None)
        options = _options(arguments)
        if self.head_node is None:
            node = Node.start_head(options, ip=ip, port=port, temp_dir=temp_dir, owned=True, watch=True)
            self.head_node = added = ClusterNode(node, head=True)
            return added
        head = self.head_node._node
        node = Node.join(
            options,
            gcs_address=head.gcs_address,
            session_name=head.session_dir.name,
            local=connect.local_record(head.gcs_address, head.root),
            ip=ip,
            temp_dir=temp_dir or str(head.root),
            owned=True,
            watch=True,
            wait=wait,
        )
        added = ClusterNode(node, head=False)
        self._workers.append(added)
        return added

    def list_all_nodes(self) -> list[ClusterNode]:
        """The head, if there is one, and the others."""
        return ([self.head_node] if self.head_node is not None else []) + self._workers

    def remove_node(self, node: ClusterNode, allow_graceful: bool = True) -> None:
        """Ends a node: in order, without waiting for running work, or as after a crash (`allow_graceful=False`).

        Raises:
            ValueError: it is not of this cluster.
        """
        if node is self.head_node:
            self.head_node = None
        elif node in self._workers:
            self._workers.remove(node)
        else:
            raise ValueError(f"{node!r} is not a node of this cluster (any more).")
        node._node.stop(graceful=allow_graceful)

    def wait_for_nodes(self, timeout: float = 30) -> None:
        """Until all nodes have joined, and the cluster knows of those that are gone.

        Raises:
            TimeoutError: that took longer.
        """
        deadline = time.monotonic() + timeout
        for node in self.list_all_nodes():
            node.wait_ready()
        wanted = {node.node_id for node in self.list_all_nodes() if node.any_processes_alive()}
        while True:
            alive = {n["node_id"] for n in self._list_nodes() if n["alive"] and not n["driver_only"]}
            if alive == wanted:
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"After {timeout} s the cluster has {len(alive)} nodes instead of {len(wanted)}.")
            time.sleep(_LOOK_AGAIN_S)

    def _list_nodes(self) -> list[dict[str, Any]]:
        head = self._head()._node
        with security.for_asking(connect.local_record(head.gcs_address, head.root)) as credentials:
            return gcs_query.list_nodes(head.gcs_address, credentials)

    def remaining_processes_alive(self) -> bool:
        """Whether no process of a node has ended by itself."""
        return all(node.remaining_processes_alive() for node in self.list_all_nodes())

    def shutdown(self) -> None:
        """Ends all nodes, the head last. Idempotent."""
        nodes = [*self._workers, *([self.head_node] if self.head_node is not None else [])]
        self._workers, self.head_node = [], None
        for node in nodes:
            node._node.ask_to_stop()
        for node in nodes:
            node._node.stop()
        atexit.unregister(self.shutdown)


def _options(arguments: dict[str, Any]) -> NodeOptions:
    known = {name: arguments.pop(name) for name in _NODE_ARGUMENTS if name in arguments}
    system_config = arguments.pop("system_config", None) or {}
    drain_s = float(arguments.pop("drain_s", 30.0))
    unknown = sorted(set(arguments) - _ACCEPTED)
    if unknown:
        raise TypeError(f"add_node() got unknown arguments: {', '.join(unknown)}")
    opts.check_node_sizes(known)
    sizes = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": _STORE_BYTES}
    for name, check in (("resources", opts.check_node_resources), ("labels", opts.check_node_labels)):
        given = known.get(name) or {}
        check(given)
        known[name] = dict(given)
    return NodeOptions(**{**sizes, **known}, system_config=system_config, drain_s=drain_s)


__all__ = ["Cluster", "ClusterNode"]
