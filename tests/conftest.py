"""Makes tests/support importable and gives every session a temporary directory of its own."""

from __future__ import annotations

import pathlib
import signal
import sys
from collections.abc import Iterator

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

# A shell starts what it puts into the background with SIGINT ignored, and our children would inherit that: tests that
# interrupt them would wait forever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def own_tmpdir(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pathlib.Path]:
    """Sessions of a test go under its own directory, so that tests cannot see each other's clusters."""
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    yield tmp_path
