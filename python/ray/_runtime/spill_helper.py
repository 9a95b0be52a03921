"""Keeps spilled objects at URIs, for a raylet: `python -m ray._runtime.spill_helper [OPTIONS_FILE]`.

Requests and answers go over the socket that is standard input and output, in the form that
cpp/ray/object_manager/spill/external_storage.h tells. In OPTIONS_FILE is a JSON object: `buffer_size` is what is copied
at a time, `transport_params` goes to smart_open.
"""

from __future__ import annotations

import errno
import io
import json
import os
import struct
import sys
from contextlib import suppress
from importlib import import_module
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

_HEAD = struct.Struct("<cIQQ")
_ANSWER = struct.Struct("<cQ")
_FINE, _LOST, _FULL, _FAILED = b"k", b"l", b"f", b"e"


class SpillHelper:
    """Carries out one request after the other."""

    def __init__(self, requests: BinaryIO, answers: BinaryIO, options: dict[str, Any]) -> None:
        self._requests = requests
        self._answers = answers
        self._buffer_bytes = int(options.get("buffer_size", 1 << 20))
        self._transport = options.get("transport_params") or {}

    def run(self) -> None:
        """Returns when the raylet has closed its end."""
        while len(head := self._requests.read(_HEAD.size)) == _HEAD.size:
            what, length, offset, size = _HEAD.unpack(head)
            uri = self._requests.read(length).decode()
            try:
                if what == b"w":
                    self._write(uri, size)
                elif what == b"r":
                    self._read(uri, offset, size)
                    continue
                elif what == b"d":
                    _delete(uri)
                else:
                    raise RuntimeError(f"a request of an unknown kind: {what!r}")
                self._answer(_FINE)
            except _RayletGone:
                return
            except Exception as error:
                self._answer(_outcome(error), f"{type(error).__name__}: {error}".encode())

    def _answer(self, outcome: bytes, text: bytes = b"") -> None:
        self._answers.write(_ANSWER.pack(outcome, len(text)) + text)
        self._answers.flush()

    def _open(self, uri: str, mode: str) -> Any:
        return import_module("smart_open").open(uri, mode, transport_params=self._transport)

    def _write(self, uri: str, size: int) -> None:
        left = size
        try:
            if (path := _local_path(uri)) is not None:
                os.makedirs(os.path.dirname(path), exist_ok=True)
            with self._open(uri, "wb") as file:
                while left > 0:
                    data = self._receive(left)
                    left -= len(data)
                    file.write(data)
        finally:
            # What is not wanted any more still stands before the next request.
            while left > 0:
                left -= len(self._receive(left))

    def _receive(self, left: int) -> bytes:
        data = self._requests.read(min(left, self._buffer_bytes))
        if not data:
            raise _RayletGone
        return data

    def _read(self, uri: str, offset: int, size: int) -> None:
        with self._open(uri, "rb") as file:
            file.seek(offset)
            # All of it before the answer begins: a failure must not come in the middle of one.
            data = bytearray()
            while len(data) < size and (part := file.read(min(size - len(data), self._buffer_bytes))):
                data += part
        if len(data) < size:
            raise FileNotFoundError(f"it has {offset + len(data)} bytes, not {offset + size}")
        self._answers.write(_ANSWER.pack(_FINE, size))
        self._answers.write(data)
        self._answers.flush()


class _RayletGone(Exception):
    pass


def _local_path(uri: str) -> str | None:
    parts = urlsplit(uri)
    return unquote(parts.path) if parts.scheme in ("", "file") else None


def _delete(uri: str) -> None:
    """Deletes it where that is known how; what does not exist is fine.

    Raises:
        io.UnsupportedOperation: smart_open only reads and writes, and deleting is known here for S3 only. The file
            stays until the storage expires it; the raylet logs this.
    """
    if (path := _local_path(uri)) is not None:
        with suppress(FileNotFoundError):
            os.unlink(path)
        return
    parts = urlsplit(uri)
    if parts.scheme in ("s3", "s3a", "s3n"):
        import_module("boto3").client("s3").delete_object(Bucket=parts.netloc, Key=parts.path.lstrip("/"))
        return
    raise io.UnsupportedOperation(
        f"files at {parts.scheme}:// are not deleted: let the storage expire what begins with ray_spilled_objects_"
    )


def _outcome(error: Exception) -> bytes:
    if isinstance(error, FileNotFoundError):
        return _LOST
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return _FULL
    return _FAILED


def _options(arguments: list[str]) -> dict[str, Any]:
    """What the file says whose name is the argument; there may be none, or an empty one."""
    if not any(arguments):
        return {}
    with open(arguments[0]) as file:
        options: dict[str, Any] = json.load(file)
    return options


def main() -> None:
    # Prints of the packages that are used here must not get in between.
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    SpillHelper(requests, answers, _options(sys.argv[1:])).run()


if __name__ == "__main__":
    main()
