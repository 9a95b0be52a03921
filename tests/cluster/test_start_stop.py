"""`ray start`, `ray stop`, `ray status`: what they do, say and leave behind."""

from __future__ import annotations

import os
import pathlib
import signal
import stat
import sys

import pytest
from support.processes import free_port, listening_tcp, start_driver, wait_until
from support.shell import Shell

JOIN = "import ray, sys; ray.init(*sys.argv[1:], logging_level='ERROR')\n"
NODES = JOIN + "print(sorted(n['Resources'].get('CPU', 0) for n in ray.nodes() if n['Alive']))"
WORK = JOIN + "print(ray.get(ray.remote(lambda: 7).remote()))"


def test_a_head_and_a_worker_are_one_cluster(shell: Shell) -> None:
    said = shell.run("start", "--head", "--port=0", "--node-ip-address=127.0.0.1", "--num-cpus=1")
    address = shell.address()
    assert f"ray start --address='{address}'" in said
    assert "Ray runtime started." in said and "ray stop" in said
    shell.run("start", f"--address={address}", "--num-cpus=2", "--resources", '{"second": 3}', "--labels=colour=blue")
    assert shell.drive(NODES, address) == "[1.0, 2.0]"
    status = shell.run("status", "--address", address)
    assert "3.0 CPU" in status and "3.0 second" in status
    assert "colour=blue" in shell.run("status", "-v")
    assert shell.run("health-check") == ""
    assert shell.run("stop") == "Stopped all 3 Ray processes.\n"
    shell.wait_gone()
    assert not (shell.root / "ray_current_cluster").exists()
    assert not list(shell.session_dir().glob("node_*")) and not (shell.session_dir() / "sockets").exists()
    assert shell.run("stop") == "Did not find any active Ray processes.\n"
    shell.run("health-check", "--address", address, code=1)


def test_a_bare_driver_joins_and_does_not_end_the_cluster(shell: Shell) -> None:
    address = shell.start_head()
    assert shell.drive("import ray; print(ray.init(logging_level='ERROR').address_info['gcs_address'])") == address
    assert shell.drive(WORK, "auto") == "7"
    assert shell.drive(WORK, RAY_ADDRESS=address) == "7"
    assert len(shell.raylets()) == 1


def test_a_cluster_in_a_folder_of_its_own_is_found(shell: Shell, tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "scratch"
    address = shell.start_head("--temp-dir", os.path.relpath(folder))
    assert (folder / "session_latest").is_dir()
    shell.run("start", "--address=auto", "--num-cpus=2", "--temp-dir", str(folder))
    assert "3.0 CPU" in shell.run("status")
    assert shell.drive(NODES) == "[1.0, 2.0]" and shell.drive(NODES, address) == "[1.0, 2.0]"
    assert shell.run("stop") == "Stopped all 3 Ray processes.\n"
    shell.wait_gone()
    assert not list(shell.root.iterdir()) and not (folder / "ray_current_cluster").exists()
    assert shell.run("stop") == "Did not find any active Ray processes.\n"


def test_what_keeps_a_node_from_starting_is_told_in_its_own_words(shell: Shell) -> None:
    said = shell.run("start", "--head", "--port=0", f"--object-store-memory={1 << 50}", code=1)
    [line] = said.splitlines()
    assert "raylet could not start: mapping" in line and line.endswith("raylet.out.")
    shell.wait_gone()


def test_a_node_listens_on_one_port_and_the_head_on_one_more(shell: Shell) -> None:
    address = shell.start_head()
    shell.run("start", f"--address={address}", "--num-cpus=1", "--resources", '{"second": 1}')
    program = """
        import os, sys, ray
        ray.init({!r}, logging_level="ERROR")

        @ray.remote(num_cpus=0)
        class A:
            def pid(self):
                return os.getpid()

        actors = [A.remote(), A.options(resources={{"second": 0.1}}).remote()]
        print(*ray.get([a.pid.remote() for a in actors]), flush=True)
        sys.stdin.readline()
    """
    drivers = [start_driver(program.format(where), **shell.env) for where in (address, f"ray://{address}")]
    for driver in drivers:
        assert driver.stdout is not None
        assert set(map(int, driver.stdout.readline().split())) < set(shell.pids())
    assert listening_tcp(shell.pids()) == 3, "two raylets and the GCS; no driver, no worker, no raylet of a driver"
    for driver in drivers:
        driver.communicate(input="\n", timeout=30)


def test_sizes_cannot_be_given_for_a_cluster_that_runs(shell: Shell) -> None:
    address = shell.start_head()
    script = (
        "import ray, sys\n"
        "for arguments in ({'address': sys.argv[1]}, {}):\n"
        "    try: ray.init(num_cpus=1, **arguments)\n"
        "    except ValueError as e: print('num_cpus' in str(e))\n"
        "print(ray.init('local', num_cpus=1, logging_level='ERROR').address_info['address'].startswith('unix:'))\n"
    )
    assert shell.drive(script, address).split() == ["True", "True", "True"]


def test_stop_leaves_other_clusters_alone(shell: Shell, tmp_path: pathlib.Path) -> None:
    other = Shell(tmp_path / "other")
    other.folder.mkdir()
    try:
        other.start_head()
        shell.start_head()
        assert shell.run("stop") == "Stopped all 2 Ray processes.\n"
        shell.wait_gone()
        assert len(other.raylets()) == 1
        assert "1.0 CPU" in other.run("status")
        assert other.run("stop", "--force") == "Stopped all 2 Ray processes.\n"
        other.wait_gone()
    finally:
        other.end()


def test_stop_ends_nodes_that_are_busy(shell: Shell) -> None:
    shell.start_head()
    script = (
        JOIN + "import os, time\n"
        "@ray.remote\n"
        "class A:\n"
        "    def pid(self): return os.getpid()\n"
        "a = A.options(name='a', lifetime='detached').remote()\n"
        "ray.get(a.pid.remote())\n"
    )
    shell.drive(script, "auto")
    assert shell.run("stop") == "Stopped all 2 Ray processes.\n"
    shell.wait_gone(3)


def test_a_taken_address_is_a_connection_error(shell: Shell) -> None:
    port = shell.start_head().rpartition(":")[2]
    said = shell.run("start", "--head", f"--port={port}", "--node-ip-address=127.0.0.1", code=1)
    assert "ConnectionError" in said and port in said
    assert len(shell.servers()) == 1


@pytest.mark.parametrize("victim", ["raylet", "gcs_server"])
def test_stop_cleans_up_the_rest(shell: Shell, victim: str) -> None:
    shell.start_head()
    shell.run("start", "--address=auto", "--num-cpus=1")
    (server,) = shell.servers()
    head = next(record for record in shell.raylets() if record.head)
    os.kill(server.pid if victim == "gcs_server" else head.pid, signal.SIGKILL)
    left = 2 if victim == "gcs_server" else 1
    wait_until(lambda: len(shell.raylets()) == left, 10, "the other nodes live")
    assert shell.run("stop") == "Stopped all 2 Ray processes.\n"
    shell.wait_gone()


def test_nodes_end_when_their_gcs_does_not_come_back(shell: Shell) -> None:
    patience = {"RAY_gcs_rpc_server_reconnect_timeout_s": "1"}
    shell.start_head(**patience)
    shell.run("start", "--address=auto", "--num-cpus=1", **patience)
    (server,) = shell.servers()
    os.kill(server.pid, signal.SIGKILL)
    shell.wait_gone(10)
    assert shell.run("stop") == "Did not find any active Ray processes.\n"


def test_block_ends_with_code_1_when_a_component_dies(shell: Shell) -> None:
    blocking = shell.spawn("start", "--head", "--port=0", "--node-ip-address=127.0.0.1", "--num-cpus=1", "--block")
    wait_until(lambda: len(shell.raylets()) == 1, 30, "the node is up")
    (raylet,) = shell.raylets()
    os.kill(raylet.pid, signal.SIGKILL)
    output, _ = blocking.communicate(timeout=20)
    assert blocking.returncode == 1, output
    log = (shell.session_dir() / "logs" / "ray_process_exit.log").read_text()
    assert f"raylet (pid {raylet.pid}) ended unexpectedly: signal SIGKILL" in log
    shell.wait_gone()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_block_ends_with_code_0_when_told_to(shell: Shell, number: signal.Signals) -> None:
    blocking = shell.spawn("start", "--head", "--port=0", "--node-ip-address=127.0.0.1", "--num-cpus=1", "--block")
    wait_until(lambda: len(shell.raylets()) == 1, 30, "the node is up")
    wait_until((shell.root / "ray_current_cluster").exists, 10, "it says so")
    blocking.send_signal(number)
    output, _ = blocking.communicate(timeout=20)
    assert blocking.returncode == 0, output
    shell.wait_gone()
    assert not (shell.session_dir() / "logs" / "ray_process_exit.log").exists()


def test_sigterm_to_a_blocking_start_drains_the_node(shell: Shell, tmp_path: pathlib.Path) -> None:
    address = shell.start_head()
    guest = shell.spawn("start", f"--address={address}", "--num-cpus=1", "--resources", '{"guest": 1}', "--block")
    wait_until(lambda: len(shell.raylets()) == 2, 30, "the node is up")
    program = f"""
        import pathlib, time, ray
        ray.init({address!r}, logging_level="ERROR")

        @ray.remote(resources={{"guest": 1}}, max_retries=0)
        def waits():
            pathlib.Path({str(tmp_path)!r}, "runs").touch()
            while not pathlib.Path({str(tmp_path)!r}, "go").exists():
                time.sleep(0.01)
            return "finished"

        print(ray.get(waits.remote(), timeout=60), flush=True)
    """
    driver = start_driver(program, **shell.env)
    wait_until((tmp_path / "runs").exists, 30, "the task runs")
    guest.send_signal(signal.SIGTERM)
    wait_until(lambda: "(draining)" in shell.run("status"), 20, "it drains")
    assert guest.poll() is None
    (tmp_path / "go").touch()
    output, _ = driver.communicate(timeout=60)
    assert output == "finished\n"
    output, _ = guest.communicate(timeout=20)
    assert guest.returncode == 0 and "Draining the node: running work may go on for 30 s." in output, output
    assert len(shell.raylets()) == 1 and "(no failures)" in shell.run("status")


def test_stop_ends_a_blocking_start_in_order(shell: Shell) -> None:
    blocking = shell.spawn("start", "--head", "--port=0", "--node-ip-address=127.0.0.1", "--num-cpus=1", "--block")
    wait_until(lambda: len(shell.raylets()) == 1, 30, "the node is up")
    shell.run("stop")
    output, _ = blocking.communicate(timeout=20)
    assert blocking.returncode == 0, output
    shell.wait_gone()


def test_nothing_is_left_when_a_blocking_start_is_killed(shell: Shell) -> None:
    blocking = shell.spawn("start", "--head", "--port=0", "--node-ip-address=127.0.0.1", "--num-cpus=1", "--block")
    wait_until(lambda: len(shell.raylets()) == 1, 30, "the node is up")
    blocking.kill()
    blocking.communicate(timeout=10)
    shell.wait_gone(5)


def test_flags_of_ray_that_have_no_effect_are_taken(shell: Shell) -> None:
    shell.start_head(
        "--include-dashboard=false",
        "--ray-client-server-port=10001",
        "--dashboard-agent-listen-port=1",
        "--min-worker-port=0",
        "--max-worker-port=0",
        "--disable-usage-stats",
        "--no-monitor",
        "--plasma-directory=/tmp",
        "--log-style=record",
        "--log-color=false",
        "-v",
    )
    assert shell.drive(WORK, "auto") == "7"
    assert "Stopped all 2" in shell.run("stop", "--log-style=pretty", "--log-color=auto", "--verbose")


def test_symmetric_run_runs_the_program_once_and_ends_the_cluster(shell: Shell, tmp_path: pathlib.Path) -> None:
    script = tmp_path / "program" / "program.py"
    script.parent.mkdir()
    script.write_text(
        "import ray, sys\nray.init(logging_level='ERROR')\nprint('cpus', ray.cluster_resources()['CPU'])\nsys.exit(3)\n"
    )
    said = shell.run(
        "symmetric-run", f"--address=127.0.0.1:{free_port()}", "--num-cpus=2", "--", sys.executable, str(script), code=3
    )
    assert "cpus 2.0" in said
    shell.wait_gone()


def test_the_token_of_a_head_is_for_its_user_only(shell: Shell) -> None:
    shell.start_head()
    token = shell.session_dir() / "auth_token"
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert shell.run("get-auth-token") == token.read_text().strip()
