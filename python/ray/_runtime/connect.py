"""From the address that a driver gives to a raylet that it can attach to.

A driver speaks to a raylet of its own machine. Where the cluster has one here, and the driver may use it, that is the
one; else a raylet is started that offers the cluster nothing and lives as long as the driver.
"""

from __future__ import annotations

import os
import stat
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray._runtime import addresses, gcs_query, security, session_dir
from ray._runtime.cluster_process import PYTHON_VERSION, Node, NodeOptions, read_config
from ray._runtime.session_dir import GCS, RAYLET, ProcessRecord

_RAY_CLIENT_PORT = 10001  # of Ray's client server, which programs written for Ray name with ray://
_DRIVER_STORE_BYTES = 1 << 30  # of a driver's own raylet, at most; its memory is taken as it is used


@dataclass(frozen=True)
class Attachment:
    """Where a driver attaches.

    Attributes:
        node_dir: the raylet's sockets are in <node_dir>/sockets.
        logs: folder for the driver's own log.
        node: the driver's own raylet, to be stopped with it; else None.
        starts_cluster: that node is the cluster.
        remote: the address was of the scheme ray://.
    """

    node_dir: str
    logs: str
    node: Node | None = None
    starts_cluster: bool = False
    remote: bool = False

    @property
    def settings(self) -> dict[str, Any]:
        """What `_system_config` of the cluster's head says."""
        return read_config(Path(self.logs).parent)


def parse(address: str) -> tuple[str, bool]:
    """The address without its scheme, and whether it asks for a raylet of the driver's own (ray://).

    Raises:
        ValueError: it is malformed.
    """
    if address.startswith("unix:"):
        if os.path.basename(address) != "gcs.sock":
            raise ValueError(f"Malformed address: {address!r}. A Unix socket of a cluster is named gcs.sock.")
        return address, False
    remote = address.startswith("ray://")
    text = address.removeprefix("ray://")
    if "://" in text:
        raise ValueError(f"Malformed address: {address!r}. Of the schemes, only ray:// is known.")
    if remote and not text.rpartition(":")[2].isdigit():
        text = f"{text.rstrip('/')}:{addresses.DEFAULT_PORT}"
    try:
        addresses.split(text)
    except ValueError:
        raise ValueError(
            f"Malformed address: {address!r}. "
            "Expected 'auto', 'local', 'host:port', 'ray://host:port' or 'unix:<path>'."
        ) from None
    return text, remote


def find(address: str | None) -> str:
    """The address of the cluster that is meant: the one given, RAY_ADDRESS, or the one that runs on this machine.

    Raises:
        ConnectionError: there is none.
        ValueError: the address is malformed.
    """
    address = address if address not in (None, "auto") else os.environ.get("RAY_ADDRESS")
    if address in (None, "", "auto"):
        address = session_dir.find_running()
    if not address:
        raise ConnectionError("Could not find any running Ray instance. Give its --address, or set RAY_ADDRESS.")
    return parse(address)[0]


def same_cluster(address: str, gcs_address: str) -> bool:
    """Whether `address`, as a user gives it, is that of the cluster whose GCS calls itself `gcs_address`.

    Raises:
        ValueError: it is malformed.
    """
    where, _ = parse(address)
    if where == gcs_address:
        return True
    if where.startswith("unix:") or gcs_address.startswith("unix:"):
        return False
    try:
        host, port = addresses.split(where)
        if gcs_address in (addresses.join(ip, port) for ip in addresses.resolve(host)):
            return True
        record = local_record(where, session_dir.temp_root())  # it may listen at several addresses
    except ConnectionError:  # who goes there gets to know why
        return False
    return record is not None and record.gcs_address == gcs_address


def local_record(address: str, root: Path, kind: str = GCS) -> ProcessRecord | None:
    """A process of that cluster on this machine, of this user and network; a head node's first."""
    host, port = addresses.split(address)
    wanted = {addresses.join(ip, port) for ip in addresses.resolve(host)}
    network = session_dir.network_namespace()
    records = [r for r in session_dir.live_records(root) if r.network == network]
    known = {r.gcs_address for r in records if r.kind == GCS and wanted & set(r.addresses)} | wanted
    found = [r for r in records if r.kind == kind and r.gcs_address in known]
    return min(found, key=lambda record: (not record.head, record.started), default=None)


def attach(address: str, *, temp_dir: str | None = None) -> Attachment:
    """Finds or starts the raylet for a driver of the cluster at `address` (as `parse` takes it).

    Raises:
        ConnectionError: there is no cluster.
        AuthenticationError: it does not accept the token, or there is none.
        RuntimeError: it runs another Python.
        RaySystemError: the driver's own raylet did not start.
    """
    where, remote = parse(address)
    if where.startswith("unix:"):
        return _attach_to_folder(Path(where.removeprefix("unix:")).parent.parent)
    root = session_dir.temp_root(temp_dir)
    if not remote:
        record = local_record(where, root, RAYLET)
        if record is not None:
            check_python(record.python, "this machine")
            return Attachment(record.node_dir, os.path.join(record.session_dir, "logs"))
    where, local, nodes = _ask_gcs(where, remote, root)
    for node in nodes:
        if node["alive"]:
            check_python(node["python_version"], f"node {node['ip']}")
    if not remote:
        for node in sorted(nodes, key=lambda n: (not n["is_head"], n["start_time_ms"])):
            if _usable(node):
                folder = os.path.dirname(os.path.dirname(node["raylet_socket"]))
                return Attachment(folder, os.path.join(node["session_dir"], "logs"))
    return _own_raylet(where, nodes, local, temp_dir, remote)


def _ask_gcs(where: str, remote: bool, root: Path) -> tuple[str, ProcessRecord | None, list[dict[str, Any]]]:
    """Address of the GCS, its process if it is on this machine, and its nodes. Raises as `attach`."""
    host, port = addresses.split(where)
    if not remote or port != _RAY_CLIENT_PORT:
        local = local_record(where, root)
        with security.for_asking(local) as credentials:
            return where, local, gcs_query.list_nodes(where, credentials)
    # There is no client server, but most heads have their GCS on the default port; one of this machine is known by its
    # record.
    candidates = (where, addresses.join(host, addresses.DEFAULT_PORT))
    known = [(address, local_record(address, root)) for address in candidates]
    problem = ""
    for address, local in sorted(known, key=lambda entry: entry[1] is None):
        try:
            with security.for_asking(local) as credentials:
                return address, local, gcs_query.list_nodes(address, credentials)
        except ConnectionError as error:
            problem = problem or str(error)
    raise ConnectionError(
        f"{problem} ({_RAY_CLIENT_PORT} is the port of Ray's client server, which does not exist here: ray:// takes "
        f"the port of the GCS. Nothing answers at its default, {addresses.DEFAULT_PORT}, either; "
        "`ray start --head` prints the address.)"
    )


def _attach_to_folder(node_dir: Path) -> Attachment:
    """The raylet whose sockets are below that folder: of the first node of a session, or of a further one."""
    session = node_dir
    for folder in (node_dir, node_dir.parent):
        for process in session_dir.records_of(folder):
            if process.node_dir == str(node_dir):
                check_python(process.python, "this machine")
                session = folder
    return Attachment(str(node_dir), str(session / "logs"))


def _usable(node: dict[str, Any]) -> bool:
    """Whether the node's raylet runs on this machine, for this user."""
    if not node["alive"] or node["driver_only"] or not addresses.is_local(node["ip"]):
        return False
    try:
        found = os.stat(node["raylet_socket"])
    except OSError:
        return False
    return stat.S_ISSOCK(found.st_mode) and found.st_uid == os.getuid()


def _own_raylet(
    address: str, nodes: list[dict[str, Any]], local: ProcessRecord | None, temp_dir: str | None, remote: bool
) -> Attachment:
    options = NodeOptions(
        num_cpus=0,
        num_gpus=0,
        object_store_memory=_DRIVER_STORE_BYTES,
        driver_only=True,
        port=None,
    )
    node = Node.join(
        options,
        gcs_address=address,
        session_name=session_name(nodes, address),
        local=local,
        temp_dir=temp_dir,
        owned=True,
        watch=True,
    )
    return Attachment(str(node.node_dir), str(node.session_dir / "logs"), node, remote=remote)


def session_name(nodes: list[dict[str, Any]], address: str) -> str:
    """Of the cluster that has these nodes. Raises ConnectionError where it has no head."""
    for node in sorted(nodes, key=lambda n: (not n["is_head"], not n["alive"])):
        if node["session_dir"]:
            return os.path.basename(str(node["session_dir"]))
    raise ConnectionError(f"The cluster at {address} has no node yet.")


def check_python(theirs: str, where: str) -> None:
    """Raises RuntimeError where the cluster runs another minor version of Python: values could not be exchanged."""
    if theirs and tuple(map(int, theirs.split(".")[:2])) != sys.version_info[:2]:
        raise RuntimeError(
            f"Version mismatch: the cluster runs Python {theirs} ({where}), this process Python {PYTHON_VERSION}. "
            "The first two numbers of the version must be the same."
        )
