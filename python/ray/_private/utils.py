"""`ray._private.utils`: the helpers of Ray that other programs import."""

from __future__ import annotations

import getpass
import threading

from ray._raylet import ObjectRef, TaskID
from ray._runtime.node_resources import available_memory, cpu_count

INT32_MAX = (1 << 31) - 1


def binary_to_hex(identifier: bytes) -> str:
    """The hex form of an id."""
    return identifier.hex()


def hex_to_binary(hex_identifier: str) -> bytes:
    """The bytes of an id in hex."""
    return bytes.fromhex(hex_identifier)


def binary_to_object_ref(binary_object_ref: bytes) -> ObjectRef:
    """The ref with that id; of nobody, until it is known who owns it."""
    return ObjectRef(binary_object_ref)


def binary_to_task_id(binary_task_id: bytes) -> TaskID:
    """The task id of these bytes."""
    return TaskID(binary_task_id)


def ensure_str(s: str | bytes, encoding: str = "utf-8", errors: str = "strict") -> str:
    """Text as it is, bytes decoded."""
    return s if isinstance(s, str) else s.decode(encoding, errors)


def get_num_cpus() -> int:
    """The processors that this machine, or the container on it, gives to a node."""
    return cpu_count()


def estimate_available_memory() -> int:
    """Bytes that can be had without swapping; in a container, what it has left."""
    return available_memory()


def get_user() -> str:
    """The name of who runs this process; empty if it has none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # an id without a name
        return ""


def is_main_thread() -> bool:
    """Whether this is the thread that the program began on."""
    return threading.current_thread() is threading.main_thread()
