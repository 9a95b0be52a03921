from typing import Any

from ray._core.worker import CoreWorker

def ask(
    worker: CoreWorker, questions: list[tuple[bytes, int, bytes, bool]], timeout_ms: int
) -> list[tuple[list[dict[str, Any]], str]]: ...
