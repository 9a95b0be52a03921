"""The helper that keeps spilled objects at URIs: requests and answers as the raylet sends and gets them."""

from __future__ import annotations

import io
import struct
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from ray._runtime import spill_helper


class Storage:
    """In the place of smart_open: URIs are names in `files`, or of real files."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    def open(self, uri: str, mode: str, transport_params: Any) -> Any:
        assert transport_params == {"timeout": 5}
        if uri.startswith("file://"):
            return open(uri.removeprefix("file://"), mode)
        if mode == "rb":
            if uri not in self.files:
                raise FileNotFoundError(uri)
            return io.BytesIO(self.files[uri])
        if "full" in uri:
            raise OSError(28, "no space left")
        storage = self

        class Writer(io.BytesIO):
            def __exit__(self, *exc_info: object) -> None:
                if exc_info[0] is None:
                    storage.files[uri] = self.getvalue()

        return Writer()


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> Storage:
    storage = Storage()
    module = types.ModuleType("smart_open")
    module.open = storage.open  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "smart_open", module)
    return storage


def request(what: bytes, uri: str, offset: int = 0, size: int = 0, data: bytes = b"") -> bytes:
    return struct.pack("<cIQQ", what, len(uri), offset, size) + uri.encode() + data


def run(*requests: bytes) -> list[tuple[bytes, bytes]]:
    answers = io.BytesIO()
    options = {"buffer_size": 3, "transport_params": {"timeout": 5}}
    spill_helper.SpillHelper(io.BytesIO(b"".join(requests)), answers, options).run()
    data, out = answers.getvalue(), []
    while data:
        outcome, size = struct.unpack_from("<cQ", data)
        out.append((outcome, data[9 : 9 + size]))
        data = data[9 + size :]
    return out


def test_writes_and_reads(storage: Storage) -> None:
    answers = run(
        request(b"w", "x://a", size=10, data=b"0123456789"),
        request(b"r", "x://a", offset=2, size=5),
        request(b"r", "x://a", offset=8, size=5),
        request(b"r", "x://b", size=1),
    )
    assert answers[:2] == [(b"k", b""), (b"k", b"23456")]
    assert [outcome for outcome, _ in answers[2:]] == [b"l", b"l"]
    assert b"10 bytes, not 13" in answers[2][1]


def test_a_failed_write_leaves_the_conversation_in_step(storage: Storage) -> None:
    answers = run(request(b"w", "x://full", size=10, data=b"0123456789"), request(b"w", "x://a", size=1, data=b"z"))
    assert [outcome for outcome, _ in answers] == [b"f", b"k"]
    assert storage.files == {"x://a": b"z"}


def test_a_raylet_that_goes_in_the_middle(storage: Storage) -> None:
    assert run(request(b"w", "x://a", size=10, data=b"0123")) == []
    assert storage.files == {}


def test_files_are_made_and_deleted(storage: Storage, tmp_path: Path) -> None:
    uri = f"file://{tmp_path}/deep/er/file"
    assert run(request(b"w", uri, size=2, data=b"ab"), request(b"r", uri, size=2)) == [(b"k", b""), (b"k", b"ab")]
    assert run(request(b"d", uri), request(b"d", uri)) == [(b"k", b""), (b"k", b"")]
    assert not Path(f"{tmp_path}/deep/er/file").exists()


def test_deletes_on_s3(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    deleted = []
    client = types.SimpleNamespace(delete_object=lambda **kwargs: deleted.append(kwargs))
    module = types.ModuleType("boto3")
    module.client = lambda name: client  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "boto3", module)
    assert run(request(b"d", "s3://bucket/a/b")) == [(b"k", b"")]
    assert deleted == [{"Bucket": "bucket", "Key": "a/b"}]


def test_what_cannot_be_deleted_is_told(storage: Storage) -> None:
    [(outcome, text)] = run(request(b"d", "hdfs://x/y"))
    assert outcome == b"e"
    assert b"are not deleted" in text
