"""What the actors of several tests have in common; a test decorates a class of its own with what it needs."""

from __future__ import annotations

import os
import time

import ray


class Counting:
    """Counts calls, and says where it runs."""

    def __init__(self) -> None:
        self.n = 0

    def add(self) -> int:
        self.n += 1
        return self.n

    def pid(self) -> int:
        return os.getpid()

    def node(self) -> str:
        return ray.get_runtime_context().get_node_id()


class Staying:
    """Says where it runs, and can be kept busy for longer than any test takes."""

    def node(self) -> str:
        return ray.get_runtime_context().get_node_id()

    def pid(self) -> int:
        return os.getpid()

    def hang(self) -> None:
        time.sleep(1000)
