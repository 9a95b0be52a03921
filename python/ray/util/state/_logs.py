"""Finds the log files that somebody asks for, by node, actor, task or process.

They are read as files: a node's logs are on its machine, and can be read there only.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ray._runtime import addresses, log_files
from ray._runtime.observer import looking_at
from ray._runtime.session import Session
from ray.util.state import _tables
from ray.util.state.exception import RayStateApiException

_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_SUFFIXES = ("out", "err")


def names(
    address: str | None, node_id: str | None, node_ip: str | None, pattern: str | None
) -> tuple[str, dict[str, list[str]]]:
    """The node's address, and the names of its machine's log files by what they are of.

    Raises:
        ConnectionError: there is no such cluster.
        RayStateApiException: there is no such node, or it is on another machine.
    """
    with looking_at(address) as session:
        node = _node(session, node_id, node_ip)
        return node["ip"], log_files.by_kind(_logs(session, node["ip"]), pattern or "*")


def find(
    address: str | None,
    *,
    node_id: str | None = None,
    node_ip: str | None = None,
    filename: str | None = None,
    actor_id: str | None = None,
    task_id: str | None = None,
    attempt_number: int = 0,
    pid: int | str | None = None,
    suffix: str = "out",
    timeout: float = 30,
) -> Path:
    """The one file that is meant.

    Raises:
        ConnectionError, RayStateApiException: as `names`, and where there is no such file.
        ValueError: not exactly one of filename, actor_id, task_id and pid, or a bad one.
    """
    if suffix not in _SUFFIXES:
        raise ValueError(f"suffix must be one of {_SUFFIXES}, got {suffix!r}.")
    if sum(what is not None for what in (filename, actor_id, task_id, pid)) != 1:
        raise ValueError("Exactly one of filename, actor_id, task_id and pid must be given.")
    with looking_at(address) as session:
        if actor_id is not None:
            return _of_actor(session, actor_id, suffix)
        if task_id is not None:
            return _of_task(session, task_id, attempt_number, suffix, timeout)
        logs = _logs(session, _node(session, node_id, node_ip)["ip"])
        if pid is not None:
            found = log_files.of_worker(logs, suffix, pid=_number(pid))
            what = f"no worker with the pid {pid} has written"
        else:
            found = logs / str(filename)
            what = f"there is no file {filename}"
            if found.parent != logs:
                raise ValueError(f"filename must be the name of a file in the folder of the logs, got {filename!r}.")
    if found is None or not found.is_file():
        raise RayStateApiException(f"No log: {what} in {logs}.")
    return found


def _of_actor(session: Session, actor_id: str, suffix: str) -> Path:
    actor = next((row for row in session.list_actors() if row["actor_id"].hex() == actor_id), None)
    if actor is None:
        raise RayStateApiException(f"There is no actor with the id {actor_id}.")
    if not actor["pid"]:
        raise RayStateApiException(f"No log: actor {actor_id} has no process (yet).")
    logs = _logs(session, actor["node_ip"])
    found = log_files.of_worker(logs, suffix, pid=actor["pid"])
    if found is None:
        raise RayStateApiException(f"No log: that of process {actor['pid']} of actor {actor_id} is not in {logs}.")
    return found


def _of_task(session: Session, task_id: str, attempt: int, suffix: str, timeout: float) -> Path:
    query = _tables.Query(filters=[("task_id", "=", task_id)], timeout=timeout, detail=True)
    found, missing = _tables.tasks(session, query)
    row = next((row for row in found if row.attempt_number == attempt), None)
    if row is None:
        known = f"its attempts are {[row.attempt_number for row in found]}" if found else "nobody knows that task"
        raise RayStateApiException("; ".join([f"There is no attempt {attempt} at task {task_id}: {known}", *missing]))
    if row.worker_id is None or row.worker_pid is None:
        raise RayStateApiException(f"No log: no process has run task {task_id} (yet).")
    ip = next((node["ip"] for node in session.list_nodes() if node["node_id"].hex() == row.node_id), "")
    logs = _logs(session, ip)
    path = log_files.of_worker(logs, suffix, pid=row.worker_pid, worker_id=row.worker_id)
    if path is None:
        raise RayStateApiException(f"No log: that of process {row.worker_pid}, which ran {task_id}, is not in {logs}.")
    return path


def _number(pid: int | str) -> int:
    if not str(pid).isdecimal():
        raise ValueError(f"pid must be the number of a process, got {pid!r}.")
    return int(pid)


def _node(session: Session, node_id: str | None, node_ip: str | None) -> dict[str, Any]:
    """The node that is meant: without an id or address the head."""
    for node in session.list_nodes():
        if node["driver_only"]:
            continue
        if node["node_id"].hex() == node_id if node_id else node["ip"] == node_ip if node_ip else node["is_head"]:
            return dict(node)
    which = f"the id {node_id}" if node_id else f"the address {node_ip}" if node_ip else "the GCS"
    raise RayStateApiException(f"There is no node with {which} in the cluster.")


def _logs(session: Session, node_ip: str) -> Path:
    if not addresses.is_local(node_ip):
        raise RayStateApiException(
            f"These logs are files on the machine {node_ip}, and can be read there only: log in there, and ask again."
        )
    return Path(session.session_dir) / "logs"


def chunks(
    path: Path, *, tail: int, follow: bool, interval: float, encoding: str, errors: str, filter_ansi_code: bool
) -> Iterator[str]:
    """The file's text in pieces. Raises UnicodeDecodeError."""
    decoder = codecs.getincrementaldecoder(encoding)(errors)
    for piece in log_files.read(path, tail=tail, follow=follow, interval=interval):
        text = decoder.decode(piece)
        yield _ANSI.sub("", text) if filter_ansi_code else text
    if rest := decoder.decode(b"", final=True):
        yield rest
