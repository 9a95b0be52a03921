from typing import Any

from ray._core.object_ref import ObjectRef
from ray._core.worker import CoreWorker

def create(
    worker: CoreWorker,
    *,
    bundles: list[dict[str, float]],
    selectors: list[dict[str, str]],
    strategy: int,
    name: str = "",
    ray_namespace: str = "",
    creator_actor_id: bytes = b"",
    detached: bool = False,
    soft_target_node_id: bytes = b"",
    topology_label: str = "",
) -> bytes: ...
def remove(worker: CoreWorker, group_id: bytes) -> None: ...
def wait(worker: CoreWorker, group_id: bytes, timeout: float | None = None) -> bool: ...
def ready_ref(worker: CoreWorker, group_id: bytes, value: Any) -> ObjectRef: ...
def find(
    worker: CoreWorker, group_id: bytes = b"", name: str = "", ray_namespace: str = ""
) -> dict[str, Any] | None: ...
def list_all(worker: CoreWorker) -> list[dict[str, Any]]: ...
