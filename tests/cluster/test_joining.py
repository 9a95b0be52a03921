"""Who may join: tokens, TLS, versions; and how a driver gets to a cluster."""

from __future__ import annotations

import json
import pathlib
import subprocess

import pytest
from support.processes import free_port
from support.shell import Shell

INIT = (
    "import json, ray, sys\n"
    "try:\n"
    "    c = ray.init(sys.argv[1], logging_level='ERROR')\n"
    "except Exception as e:\n"
    "    print(json.dumps([type(e).__name__, str(e)]))\n"
    "    sys.exit()\n"
)
ABOUT = INIT + (
    "nodes = ray.nodes()\n"
    "print(json.dumps({\n"
    "    'class': type(c).__name__,\n"
    "    'answer': ray.get(ray.put(41)) + 1,\n"
    "    'node': c.address_info['node_id'],\n"
    "    'address': c.address_info['gcs_address'],\n"
    "    'session': ray.get_runtime_context().get_session_name(),\n"
    "    'nodes': len([n for n in nodes if n['Alive']]),\n"
    "    'cpus': ray.cluster_resources().get('CPU'),\n"
    "    'python': c.python_version,\n"
    "}))\n"
)


@pytest.fixture
def elsewhere(shell: Shell, tmp_path: pathlib.Path):
    """Another user's view, as it were: it shares no temporary directory and no home with `shell`."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    made = Shell(folder)
    yield made
    made.end()


def test_a_driver_attaches_to_the_raylet_on_its_machine(shell: Shell, elsewhere: Shell) -> None:
    address = shell.start_head()
    (head,) = shell.raylets()
    token = shell.run("get-auth-token")
    for where, env in ((shell, {}), (elsewhere, {"RAY_AUTH_TOKEN": token})):
        about = json.loads(where.drive(ABOUT, address, **env))
        assert about == {
            "class": "RayContext",
            "answer": 42,
            "node": head.node_id,
            "address": address,
            "session": shell.session_dir().name,
            "nodes": 1,
            "cpus": 1.0,
            "python": about["python"],
        }


def test_a_remote_driver_brings_a_raylet_that_offers_nothing(shell: Shell, elsewhere: Shell) -> None:
    address = shell.start_head()
    token = shell.run("get-auth-token")
    for where, env in ((shell, {}), (elsewhere, {"RAY_AUTH_TOKEN": token})):
        about = json.loads(where.drive(ABOUT, f"ray://{address}", **env))
        assert about["class"] == "ClientContext"
        assert about["answer"] == 42
        assert about["node"] not in [record.node_id for record in shell.raylets()]
        assert about["cpus"] == 1.0
        assert about["session"] == shell.session_dir().name
        assert not where.pids() or where is shell
    assert len(shell.raylets()) == 1 and not elsewhere.raylets()


def test_names_of_rays_client(shell: Shell) -> None:
    address = shell.start_head()
    script = (
        "import ray, sys, warnings\n"
        "warnings.simplefilter('ignore')\n"
        "client = ray.util.client\n"
        "print(client.ray.is_connected())\n"
        "ray.util.connect(sys.argv[1], namespace='here')\n"
        "print(client.ray.is_connected(), client.num_connected_contexts(), ray.get_runtime_context().namespace)\n"
        "print(client.ray.get(client.ray.put(3)))\n"
        "ray.util.disconnect()\n"
        "print(ray.is_initialized())\n"
        "with ray.client(sys.argv[1]).namespace('there').connect() as context:\n"
        "    print(type(context).__name__, ray.get_runtime_context().namespace)\n"
        "print(ray.is_initialized())\n"
        "ray.init('ray://' + sys.argv[1], allow_multiple=False, _credentials=None)\n"
        "print(ray.is_initialized())\n"
    )
    said = shell.drive(script, address, RAY_LOGGER_LEVEL="error").splitlines()
    assert said == ["False", "True 1 here", "3", "False", "ClientContext there", "False", "True"]


@pytest.mark.parametrize("token", ["", "wrong-token-of-16"])
def test_without_the_token_nobody_gets_in(shell: Shell, elsewhere: Shell, token: str) -> None:
    address = shell.start_head()
    env = {"RAY_AUTH_TOKEN": token} if token else {}
    kind, text = json.loads(elsewhere.drive(ABOUT, address, **env))
    assert kind == "AuthenticationError"
    assert "RAY_AUTH_TOKEN" in text and "~/.ray/auth_token" in text and "wrong-token" not in text
    said = elsewhere.run("start", f"--address={address}", code=1, **env)
    assert "AuthenticationError" in said
    assert "AuthenticationError" in elsewhere.run("status", f"--address={address}", code=1, **env)
    assert not elsewhere.pids()


def test_a_node_joins_with_the_token_from_any_place(shell: Shell, elsewhere: Shell) -> None:
    address = shell.start_head()
    token = shell.run("get-auth-token")
    (elsewhere.folder / ".ray").mkdir()
    (elsewhere.folder / ".ray" / "auth_token").write_text(token)
    (elsewhere.folder / ".ray" / "auth_token").chmod(0o600)
    elsewhere.run("start", f"--address={address}", "--num-cpus=2")
    assert "3.0 CPU" in shell.run("status")
    # Its own directory holds the session of the cluster, and a bare driver there finds it.
    assert elsewhere.session_dir().name == shell.session_dir().name
    about = json.loads(elsewhere.drive(ABOUT, "auto"))
    assert about["node"] == elsewhere.raylets()[0].node_id
    elsewhere.run("stop")
    elsewhere.wait_gone()
    assert len(shell.raylets()) == 1


def test_the_token_of_the_environment_is_the_clusters(shell: Shell, elsewhere: Shell) -> None:
    address = shell.start_head(RAY_AUTH_TOKEN="a-token-of-our-own")
    assert "1.0 CPU" in elsewhere.run("status", f"--address={address}", RAY_AUTH_TOKEN="a-token-of-our-own")
    script = (
        INIT + "import os\n"
        "seen = ray.get(ray.remote(lambda: [n for n in os.environ if 'TOKEN' in n]).remote())\n"
        "print(json.dumps(seen))\n"
    )
    assert json.loads(shell.drive(script, address)) == []  # user code never sees it


def test_without_authentication_only_loopback_is_served(shell: Shell, elsewhere: Shell) -> None:
    address = shell.start_head(RAY_AUTH_MODE="disabled")
    assert not (shell.session_dir() / "auth_token").exists()
    assert json.loads(shell.drive(ABOUT, address))["answer"] == 42
    assert json.loads(elsewhere.drive(ABOUT, f"ray://{address}", RAY_AUTH_MODE="disabled"))["answer"] == 42
    said = shell.run("start", "--head", "--port=0", "--node-ip-address=0.0.0.0", code=1, RAY_AUTH_MODE="disabled")
    assert "loopback" in said


def test_another_python_is_refused_with_both_versions(shell: Shell) -> None:
    shell.start_head()
    (head,) = shell.raylets()
    fields = json.loads(head.path.read_text())
    head.path.write_text(json.dumps({**fields, "python": "2.7.18"}))
    kind, text = json.loads(shell.drive(ABOUT, "auto"))
    assert kind == "RuntimeError"
    assert "2.7.18" in text and "this process Python 3." in text


def test_nobody_there_is_a_connection_error(shell: Shell) -> None:
    port = free_port()
    for address in (f"127.0.0.1:{port}", f"ray://127.0.0.1:{port}"):
        kind, _ = json.loads(shell.drive(ABOUT, address, RAY_AUTH_TOKEN="x" * 16))
        assert kind == "ConnectionError"


def test_mutual_tls_by_the_environment(shell: Shell, elsewhere: Shell, tmp_path: pathlib.Path) -> None:
    env = certificates(tmp_path)
    address = shell.start_head(**env)
    shell.run("start", f"--address={address}", "--num-cpus=2", **env)
    assert "3.0 CPU" in shell.run("status", **env)
    token = shell.run("get-auth-token")
    assert json.loads(elsewhere.drive(ABOUT, f"ray://{address}", RAY_AUTH_TOKEN=token, **env))["answer"] == 42
    elsewhere.run("status", f"--address={address}", code=1, RAY_AUTH_TOKEN=token)  # in the clear


def certificates(folder: pathlib.Path) -> dict[str, str]:
    """An authority and a certificate for this host, as RAY_TLS_* want them."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=ca")
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem", "-out", "node.csr", "-subj", "/CN=localhost")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    openssl(
        *("x509", "-req", "-in", "node.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"),
        *("-extfile", "names", "-out", "cert.pem"),
    )
    (folder / "key.pem").chmod(0o600)
    names = {"RAY_TLS_SERVER_CERT": "cert.pem", "RAY_TLS_SERVER_KEY": "key.pem", "RAY_TLS_CA_CERT": "ca.pem"}
    return {"RAY_USE_TLS": "1", **{variable: str(folder / name) for variable, name in names.items()}}
