"""A worker leads a process group, so that what its user code has started ends with it, however it ends."""

from __future__ import annotations

import contextlib
import os
import signal


def wanted() -> bool:
    """Whether the children of workers are to end with them (RAY_process_group_cleanup_enabled, on by default)."""
    return os.environ.get("RAY_process_group_cleanup_enabled", "1") not in ("0", "false", "False")  # noqa: SIM112


def kill(leader: int) -> None:
    """Ends all processes of the group of a worker that has ended.

    REQUIRES: nobody has waited for the worker yet.
    """
    # There is none if the worker ended before it had one; what became another user's is that one's business.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def ask_to_end() -> None:
    """Asks what this worker's code has started to end; called when the worker is about to.

    The zygote ends what stays, or the raylet if that ends both of them.
    """
    if wanted() and os.getpgid(0) == os.getpid():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.killpg(0, signal.SIGTERM)
