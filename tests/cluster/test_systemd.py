"""The units of the package, run by a systemd of the test's own: what dies is started again, what is stopped drains."""

from __future__ import annotations

import os
import pathlib
import secrets
import signal
import sys
import time
from collections.abc import Iterator

import pytest
from support.actors import Counting
from support.nodes import CORE
from support.processes import free_port, wait_until
from support.service_manager import UNITS, NotPossible, ServiceManager

import ray

GCS, RAYLET = "raycore-gcs.service", "raycore-raylet@one.service"

pytestmark = pytest.mark.timeout(120)


@ray.remote(num_cpus=0, resources={"one": 0.1})
class Counter(Counting):
    pass


@ray.remote(num_cpus=0, resources={"one": 0.1}, max_retries=0)
def waits(folder: pathlib.Path) -> str:
    (folder / "runs").touch()
    while not (folder / "go").exists():
        time.sleep(0.01)
    return "finished"


@pytest.fixture
def manager(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServiceManager]:
    """A GCS and a node run as services; this process is a driver from elsewhere."""
    address = f"127.0.0.1:{free_port()}"
    token = secrets.token_hex(32)
    units = tmp_path / "units"
    units.mkdir()
    (units / "token").touch(mode=0o600)
    (units / "token").write_text(token)
    secured = f"--auth-token-file={UNITS}/token"
    node = f"--python={sys.executable} --num-cpus=1 --object-store-memory=100000000 --resources=one=1"
    flags = {
        GCS: f"GCS_FLAGS=--listen={address} {secured}",
        RAYLET: f"RAYLET_FLAGS=--gcs-address={address} --listen=127.0.0.1:0 {secured} {node}",
    }
    for name in flags:
        unit = name.replace("@one", "@")
        (units / unit).write_text((CORE / "systemd" / unit).read_text())
        # What an administrator sets for a machine; there is no user of its own here.
        (units / f"{name}.env").write_text(f"PATH={CORE}:{os.environ['PATH']}\n{flags[name]}\n")
        (units / f"{name}.d").mkdir()
        (units / f"{name}.d" / "machine.conf").write_text(f"[Service]\nUser=\nEnvironmentFile={UNITS}/{name}.env\n")
    try:
        made = ServiceManager(units)
    except NotPossible as error:
        pytest.skip(str(error))
    try:
        made.systemctl("start", GCS, RAYLET)
        assert [made.systemctl("is-active", name) for name in (GCS, RAYLET)] == ["active"] * 2, made.log.read_text()
        monkeypatch.setenv("RAY_AUTH_TOKEN", token)
        ray.init(f"ray://{address}", namespace="n", logging_level="ERROR")
        yield made
    finally:
        ray.shutdown()
        made.close()


def alive_nodes() -> set[str]:
    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}


def kill(manager: ServiceManager, program: str) -> None:
    """And waits until there is another."""
    before = manager.pid_of(program)
    assert before is not None
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: manager.pid_of(program) not in (None, before), 20, f"another {program}")


def test_what_dies_is_started_again(manager: ServiceManager) -> None:
    actor = Counter.options(name="c", lifetime="detached", max_restarts=1, max_task_retries=1).remote()
    assert ray.get(actor.add.remote(), timeout=30) == 1
    pid = ray.get(actor.pid.remote(), timeout=30)
    for n in (2, 3):
        kill(manager, "gcs_server")
        assert ray.get(ray.get_actor("c").add.remote(), timeout=30) == n
        assert ray.get(Counter.remote().add.remote(), timeout=30) == 1
    assert ray.get(actor.pid.remote(), timeout=30) == pid
    [before] = alive_nodes()
    kill(manager, "raylet")
    wait_until(lambda: alive_nodes() - {before}, 30, "another node in its place")
    assert before not in alive_nodes()
    assert ray.get(actor.add.remote(), timeout=30) == 1, "it was restarted there"


def test_what_the_store_has_no_room_for_goes_to_a_disk(manager: ServiceManager) -> None:
    @ray.remote(num_cpus=0, resources={"one": 0.1})
    def put(n: int) -> list[ray.ObjectRef]:
        return [ray.put(bytes([n]) * 20_000_000)]

    refs = [ray.get(put.remote(n), timeout=30)[0] for n in range(8)]
    folder = pathlib.Path(f"/proc/{manager.pid_of('raylet')}/root/var/cache/raycore/raylet-one")
    assert [path for path in folder.rglob("*") if path.is_file()]
    assert [ray.get(ref, timeout=30)[0] for ref in refs] == list(range(8))


def test_what_is_stopped_drains_and_stays_away(manager: ServiceManager, tmp_path: pathlib.Path) -> None:
    ref = waits.remote(tmp_path)
    wait_until((tmp_path / "runs").exists, 30, "it runs")
    [node] = alive_nodes()
    manager.systemctl("stop", "--no-block", RAYLET)
    wait_until(lambda: [n["State"] for n in ray.nodes() if n["NodeID"] == node] == ["DRAINING"], 20, "it drains")
    (tmp_path / "go").touch()
    assert ray.get(ref, timeout=30) == "finished"
    wait_until(lambda: manager.systemctl("is-active", RAYLET) == "inactive", 30, "it has stopped")
    [gone] = [n for n in ray.nodes() if n["NodeID"] == node]
    assert not gone["Alive"] and "drained (SIGTERM)" in gone["DeathReasonMessage"]
