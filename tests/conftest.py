"""Makes tests/support importable and gives every session a temporary directory of its own."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Iterator

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))


@pytest.fixture(autouse=True)
def own_tmpdir(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pathlib.Path]:
    """Sessions of a test go under its own directory, so that tests cannot see each other's clusters."""
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    yield tmp_path
