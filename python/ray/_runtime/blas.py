"""How many threads the linear algebra of numpy uses, where the zygote imported it before the task was known.

OpenBLAS reads the environment when it is loaded, and would start a thread for each core of the machine in every worker.
It is loaded for one thread, which is what a task of one CPU is to have, and told when a task has more.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator

_VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")
_SETTERS = ("scipy_openblas_set_num_threads64_", "openblas_set_num_threads64_", "openblas_set_num_threads")


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Libraries that are loaded meanwhile use one thread, unless the user's environment says how many."""
    if any(name in os.environ for name in _VARIABLES):
        yield
        return
    os.environ[_VARIABLES[0]] = "1"
    try:
        yield
    finally:
        del os.environ[_VARIABLES[0]]


def set_threads(count: int) -> None:
    """Tells the OpenBLAS that this process has loaded; does nothing where there is none."""
    for setter in _setters():
        setter(count)


def _setters() -> list[Callable[[int], None]]:
    import ctypes

    with open("/proc/self/maps") as maps:
        paths = {line.split(maxsplit=5)[5].strip() for line in maps if "openblas" in line}
    found = []
    for path in sorted(paths):
        with contextlib.suppress(OSError):
            library = ctypes.CDLL(path)
            found += [getattr(library, name) for name in _SETTERS if hasattr(library, name)][:1]
    return found
