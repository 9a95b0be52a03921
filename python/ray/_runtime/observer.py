"""A look at a cluster from any process: one that is connected to it, to another one, or to none."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

from ray._core.ids import WorkerID
from ray._core.worker import CoreWorker
from ray._runtime import connect
from ray._runtime.connect import Attachment
from ray._runtime.session import Session, current_session
from ray.exceptions import RayError


@contextlib.contextmanager
def looking_at(address: str | None) -> Iterator[Session]:
    """A session that answers questions about the cluster at `address`, for as long as the block runs.

    It is the one of this process where that is connected to the cluster, which None and "auto" mean; else one that
    starts here and ends with the block.

    Raises:
        ConnectionError: there is no such cluster.
        ValueError: the address is malformed.
    """
    session = current_session()
    if session is not None and (address in (None, "auto") or connect.same_cluster(address, session.gcs_address)):
        yield session
        return
    where = connect.find(address)
    session = _start_observer(connect.attach(where), address=where)
    try:
        yield session
    finally:
        session.shutdown("the question was answered")


def _start_observer(attachment: Attachment, *, address: str) -> Session:
    """Connects to the raylet of `attachment` as one that only looks: it has no job, and is not the current session."""
    worker_id = os.urandom(WorkerID.SIZE)
    try:
        core = CoreWorker.start(
            is_driver=True,
            is_observer=True,
            session_dir=attachment.node_dir,
            worker_id=worker_id,
            log_file=os.path.join(attachment.logs, f"python-core-driver-{worker_id.hex()}_{os.getpid()}.log"),
            python_version=".".join(map(str, sys.version_info[:3])),
        )
    except (RayError, ValueError) as error:  # the core has no other ones
        if attachment.node is not None:
            attachment.node.stop()
        raise ConnectionError(f"Could not connect to the Ray cluster at {address}: {error}") from error
    session = Session(core, is_driver=True, namespace="", job_config={})
    session.cluster = attachment.node
    return session
