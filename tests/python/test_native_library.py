"""What the native parts link and export: nothing that could clash with other libraries in the user's process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import ray


def installed(*pattern: str) -> list[Path]:
    """Files of the package, in whichever of its folders they are (an editable install has two)."""
    return [path for folder in ray.__path__ for path in Path(folder).glob("/".join(pattern))]


def libraries() -> list[Path]:
    return [*installed("*.so"), *installed("_core", "*.so")]


def test_the_parts_are_there() -> None:
    assert installed("_raylet*.so")
    assert installed("_core", "libray_core.so")
    assert installed("core", "raylet")
    assert installed("core", "gcs_server")


def test_no_grpc_is_linked() -> None:
    for library in libraries():
        linked = subprocess.run(["ldd", str(library)], capture_output=True, text=True, check=True).stdout
        assert "not found" not in linked, linked
        for name in ("grpc", "absl", "libprotobuf.so"):
            assert name not in linked, f"{library} links {name}"


@pytest.mark.parametrize("first", ["ray", "others"])
def test_lives_beside_other_users_of_grpc_and_protobuf(first: str) -> None:
    others = "import grpc, pyarrow, google.protobuf.descriptor_pb2 as pb"
    imports = ["import ray", others] if first == "ray" else [others, "import ray"]
    script = "\n".join(
        [
            *imports,
            "message = pb.FileDescriptorProto(name='x')",
            "assert pb.FileDescriptorProto.FromString(message.SerializeToString()).name == 'x'",
            "assert pyarrow.array([1, 2]).sum().as_py() == 3",
            "channel = grpc.insecure_channel('127.0.0.1:1')",
            "channel.close()",
            "assert len(ray.NodeID.from_random().binary()) == 28",
        ]
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
