"""Nobody without the cluster's token gets anything over TCP."""

from __future__ import annotations

import pathlib
import re
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator

import grpc
import pytest
from support.certificates import make_certificates
from support.nodes import CORE, HandCluster
from support.processes import wait_until

import ray

METHODS_H = pathlib.Path(__file__).parents[2] / "cpp" / "ray" / "wire" / "methods.h"
METHODS = [
    f"/ray.v1.{service}/{method}"
    for service, method in re.findall(r'^\s*X\(k\w+, \d+, "(\w+)", "(\w+)"\)', METHODS_H.read_text(), re.MULTILINE)
]
NOTHING = 199  # no method has this number
STREAM = "/ray.v1.NodeLink/Stream"
WRONG = "this-is-not-the-token-of-this-cluster"
GCS = ("--gcs-address", "127.0.0.1:1")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HandCluster]:
    made = HandCluster(tmp_path_factory.mktemp("security"))
    made.add_raylet()
    yield made
    made.close()


def call(address: str, method: str, authorization: str | None) -> tuple[grpc.StatusCode, str]:
    """What a client that holds `authorization` gets from `method`."""
    metadata = [] if authorization is None else [("authorization", authorization)]
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            if method == STREAM:
                list(channel.stream_stream(method)(iter([b""]), metadata=metadata, timeout=10))
            else:
                channel.unary_unary(method)(b"", metadata=metadata, timeout=10)
        except grpc.RpcError as error:
            return error.code(), error.details()
        return grpc.StatusCode.OK, ""


def test_the_table_of_methods_was_read() -> None:
    assert len(METHODS) > 70
    assert "/ray.v1.WorkerTask/PushTask" in METHODS and "/ray.v1.Tunnel/Frames" in METHODS


@pytest.mark.parametrize("who", ["gcs_server", "raylet"])
def test_every_method_is_refused_without_the_token(cluster: HandCluster, who: str) -> None:
    address = cluster.gcs_address if who == "gcs_server" else cluster.raylets[0].ready[1]
    token = cluster.token_file.read_text().strip()
    wrong = [WRONG, f"{token}x", token[:-1], ""]
    bad = [None, f"Bearer {wrong[0]}", *(f"Bearer {w}" for w in wrong[1:]), "", WRONG, f"Basic {token}", token]
    for method in [*METHODS, STREAM, "/ray.v1.NoSuch/Method", "/grpc.health.v1.Health/Check"]:
        for authorization in bad if method in (METHODS[0], STREAM) else bad[:2]:
            code, details = call(address, method, authorization)
            assert code == grpc.StatusCode.UNAUTHENTICATED, (method, authorization, details)
            assert "RAY_AUTH_TOKEN" in details
            assert token not in details
    # With it, the same call gets as far as the handler.
    code, _ = call(cluster.gcs_address, "/ray.v1.GcsNode/ListNodes", f"Bearer {token}")
    assert code == grpc.StatusCode.OK
    code, _ = call(address, "/ray.v1.NoSuch/Method", f"Bearer {token}")
    assert code == grpc.StatusCode.UNIMPLEMENTED


def test_links_on_plain_tcp_are_refused_without_the_token(cluster: HandCluster) -> None:
    host, _, port = cluster.raylets[0].ready[1].rpartition(":")
    token = cluster.token_file.read_text().strip()
    probe = struct.pack("<IIQHHBBH", 0, 0, 1, NOTHING, 0, 1, 0, 0)  # a frame that asks for a method that there is not

    def open_link(authorization: str) -> bytes:
        with socket.create_connection((host, int(port)), timeout=10) as link:
            link.sendall(b"RAYLINK1" + struct.pack("<H", len(authorization)) + authorization.encode() + probe)
            return link.recv(4096)

    for bad in ("", WRONG, f"Bearer {WRONG}", f"Bearer {token}x", f"Basic {token}", token):
        answer = open_link(bad)
        assert answer[:1] == b"\x01", bad
        assert b"RAY_AUTH_TOKEN" in answer and token.encode() not in answer
    assert open_link(f"Bearer {token}")[:1] == b"\x00"


def test_token_rotates_without_a_restart(cluster_of: Callable[..., HandCluster]) -> None:
    cluster = cluster_of(0, "--auth-token-grace", "500ms")
    cluster.add_raylet("--auth-token-grace", "500ms")
    cluster.connect()
    old = cluster.token_file.read_text().strip()
    new = "the-token-that-comes-after-the-first"
    replacement = cluster.token_file.with_suffix(".new")
    replacement.touch(mode=0o600)
    replacement.write_text(new)
    replacement.rename(cluster.token_file)
    list_nodes = "/ray.v1.GcsNode/ListNodes"
    wait_until(lambda: call(cluster.gcs_address, list_nodes, f"Bearer {new}")[0] == grpc.StatusCode.OK, 10, "new: good")
    wait_until(
        lambda: call(cluster.gcs_address, list_nodes, f"Bearer {old}")[0] == grpc.StatusCode.UNAUTHENTICATED,
        10,
        "old is not",
    )
    assert call(cluster.gcs_address, list_nodes, f"Bearer {new}")[0] == grpc.StatusCode.OK
    cluster.add_raylet()  # joins, and is reached, with the new one
    wait_until(lambda: sum(n["Alive"] for n in ray.nodes()) == 2, 10, "open links have stayed")


def test_the_token_before_stays_good_over_a_restart_of_the_gcs(cluster_of: Callable[..., HandCluster]) -> None:
    cluster = cluster_of(0)
    old = cluster.token_file.read_text().strip()
    new = "the-token-that-comes-after-the-first"
    cluster.kill_gcs()
    cluster.token_file.write_text(new)
    cluster.restart_gcs()
    for token in (old, new):
        assert call(cluster.gcs_address, "/ray.v1.GcsNode/ListNodes", f"Bearer {token}")[0] == grpc.StatusCode.OK
    state = cluster.gcs.session_dir / "gcs_tokens"
    assert state.stat().st_mode & 0o777 == 0o600
    answer = call(cluster.gcs_address, "/ray.v1.GcsNode/ListNodes", "Bearer one-that-never-was-good")
    assert answer[0] == grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize(
    ("program", "arguments", "word"),
    [
        ("gcs_server", ("--listen", "127.0.0.1:0"), "--auth-token-file"),
        ("gcs_server", ("--listen", "0.0.0.0:0"), "--auth-token-file"),
        ("gcs_server", ("--listen", "0.0.0.0:0", "--auth-mode", "disabled"), "--auth-mode=disabled"),
        ("gcs_server", ("--listen", "[::]:0", "--auth-mode", "disabled"), "--auth-mode=disabled"),
        ("raylet", (*GCS, "--listen", "0.0.0.0:0", "--auth-mode", "disabled"), "--auth-mode=disabled"),
        ("raylet", (*GCS, "--listen", "127.0.0.1:0"), "--auth-token-file"),
        ("raylet", ("--gcs-address", "unix:/x", "--local-mode", "--listen", "127.0.0.1:0"), "local mode"),
    ],
)
def test_open_listeners_are_refused(
    tmp_path: pathlib.Path, program: str, arguments: tuple[str, ...], word: str
) -> None:
    command = [str(CORE / program), "--session-dir", str(tmp_path), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode in (1, 2)
    assert word in done.stderr


def test_loopback_may_do_without_a_token(cluster_of: Callable[..., HandCluster]) -> None:
    cluster = cluster_of(0, "--auth-mode", "disabled")
    code, _ = call(cluster.gcs_address, "/ray.v1.GcsNode/ListNodes", None)
    assert code == grpc.StatusCode.OK


def test_token_file_of_others_is_refused(tmp_path: pathlib.Path) -> None:
    token = tmp_path / "token"
    token.write_text("a-token-that-everybody-can-read")
    token.chmod(0o644)
    done = subprocess.run(
        [
            *(str(CORE / "gcs_server"), "--session-dir", str(tmp_path)),
            *("--listen", "127.0.0.1:0", "--auth-token-file", str(token)),
        ],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 1
    assert "chmod 600" in done.stderr
    assert "a-token-that-everybody-can-read" not in done.stderr


def tls_flags(folder: pathlib.Path, name: str) -> tuple[str, ...]:
    files = {"--tls-cert": f"{name}.pem", "--tls-key": f"{name}.key", "--tls-ca": "ca.pem"}
    return tuple(x for flag, file in files.items() for x in (flag, str(folder / file)))


def test_mutual_tls(cluster_of: Callable[..., HandCluster], tmp_path: pathlib.Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for folder, names in ((ours, ["gcs", "n0", "n1"]), (theirs, ["stranger"])):
        folder.mkdir()
        make_certificates(folder, names)

    cluster = cluster_of(0, *tls_flags(ours, "gcs"))
    cluster.add_raylet(*tls_flags(ours, "n0"))
    cluster.add_raylet(*tls_flags(ours, "n1"))
    cluster.connect()

    @ray.remote(num_cpus=0, resources={"n1": 0.01})
    class Far:
        def node(self) -> str:
            return ray.get_runtime_context().get_node_id()

    assert ray.get(Far.remote().node.remote(), timeout=30) == cluster.node_id(1), "links speak TLS"

    # The right token does not help who has no certificate of ours, or none at all; nor does the certificate without it.
    token = f"Bearer {cluster.token_file.read_text().strip()}"
    address, method = cluster.gcs_address, "/ray.v1.GcsNode/ListNodes"
    assert call(address, method, token)[0] == grpc.StatusCode.UNAVAILABLE
    ca = (ours / "ca.pem").read_bytes()
    for folder, name, shown, expected in (
        (ours, "n0", token, grpc.StatusCode.OK),
        (ours, "n0", f"Bearer {WRONG}", grpc.StatusCode.UNAUTHENTICATED),
        (theirs, "stranger", token, grpc.StatusCode.UNAVAILABLE),
        (ours, None, token, grpc.StatusCode.UNAVAILABLE),
    ):
        pair = ((folder / f"{name}.key").read_bytes(), (folder / f"{name}.pem").read_bytes()) if name else (None, None)
        credentials = grpc.ssl_channel_credentials(ca, *pair)
        with grpc.secure_channel(address, credentials, options=[("grpc.ssl_target_name_override", "gcs")]) as channel:
            try:
                channel.unary_unary(method)(b"", metadata=[("authorization", shown)], timeout=10)
                code = grpc.StatusCode.OK
            except grpc.RpcError as error:
                code = error.code()
        assert code == expected, name
    intruder = cluster.start_raylet(*tls_flags(theirs, "stranger"), "--gcs-connect-timeout", "1s")
    assert intruder.popen.wait(timeout=20) == 1


def test_a_transfer_over_tls_takes_little_memory(
    cluster_of: Callable[..., HandCluster], tmp_path: pathlib.Path
) -> None:
    make_certificates(tmp_path, ["gcs", "n0", "n1"])
    cluster = cluster_of(0, *tls_flags(tmp_path, "gcs"))
    for name in ("n0", "n1"):
        cluster.add_raylet(*tls_flags(tmp_path, name))
    cluster.connect()

    @ray.remote(num_cpus=0, resources={"n1": 0.01})
    class Far:
        def size(self, refs: list[ray.ObjectRef]) -> int:
            return len(ray.get(refs[0]))

    def anonymous() -> int:
        """Bytes of both raylets beside their stores."""
        texts = [pathlib.Path(f"/proc/{raylet.popen.pid}/status").read_text() for raylet in cluster.raylets]
        return sum(int(re.findall(r"^RssAnon:\s+(\d+) kB", text, re.MULTILINE)[0]) << 10 for text in texts)

    far = Far.remote()
    assert ray.get(far.size.remote([ray.put(bytes(1 << 20))]), timeout=30) == 1 << 20
    before, peak = anonymous(), 0
    for _ in range(3):
        ref = ray.put(bytes(40 << 20))
        reply = far.size.remote([ref])
        while not ray.wait([reply], timeout=0.001)[0]:
            peak = max(peak, anonymous() - before)
        assert ray.get(reply) == 40 << 20
        del ref
    assert peak <= 64 << 20
