"""`ray symmetric-run` on machines with addresses of their own, each with a temporary directory of its own."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Callable, Iterator

import pytest
from support.networks import Network
from support.shell import Shell

TOKEN = "0123456789abcdef" * 4
PORT = 6379  # free on a network that was just made

PROGRAM = """
import pathlib, ray, sys
ray.init(logging_level="ERROR")

@ray.remote(num_cpus=1, scheduling_strategy="SPREAD")
def where(path):
    import time
    pathlib.Path(path, ray.get_runtime_context().get_node_id()).touch()
    while len(list(pathlib.Path(path).iterdir())) < 3:
        time.sleep(0.01)

with open(sys.argv[1], "a") as runs:
    print(ray.cluster_resources()["CPU"], len(ray.nodes()), file=runs)
ray.get([where.remote(sys.argv[2]) for _ in range(3)], timeout=60)
print("done by", ray.util.get_node_ip_address())
sys.exit(3)
"""


@pytest.fixture
def machines_of(
    tmp_path: pathlib.Path, network_of: Callable[..., Network]
) -> Iterator[Callable[[int], tuple[list[str], list[Shell]]]]:
    """machines_of(3): three addresses, and for each what runs commands there."""
    made: list[Shell] = []

    def make(size: int) -> tuple[list[str], list[Shell]]:
        network = network_of(size)
        for n in range(size):
            folder = tmp_path / f"machine{n}"
            folder.mkdir()
            made.append(Shell(folder, within=network.within(n), RAY_AUTH_TOKEN=TOKEN))
        return network.hosts, made

    yield make
    for machine in made:
        machine.end()


def test_the_head_runs_the_program_when_all_are_there(
    machines_of: Callable[[int], tuple[list[str], list[Shell]]], tmp_path: pathlib.Path
) -> None:
    hosts, machines = machines_of(3)
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "nodes").mkdir()
    command = [
        *("symmetric-run", f"--address={hosts[0]}:{PORT}", "--min-nodes=3", "--num-cpus=1", "--"),
        *(sys.executable, str(tmp_path / "program.py"), str(tmp_path / "runs"), str(tmp_path / "nodes")),
    ]
    started = [machine.spawn(*command) for machine in reversed(machines)]  # the head comes last
    *others, head = [(process.communicate(timeout=60)[0], process.returncode) for process in started]
    assert head[1] == 3 and f"done by {hosts[0]}" in head[0], head
    for output, code in others:
        assert code == 0 and f"Joined the cluster at {hosts[0]}:{PORT}" in output, output
        assert "done by" not in output
    assert (tmp_path / "runs").read_text() == "3.0 3\n"
    assert len(list((tmp_path / "nodes").iterdir())) == 3
    for machine in machines:
        machine.wait_gone()


def test_who_waits_in_vain_says_for_what(machines_of: Callable[[int], tuple[list[str], list[Shell]]]) -> None:
    hosts, (head, other) = machines_of(2)
    patience = {"RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT": "1"}
    command = ("symmetric-run", f"--address={hosts[0]}:{PORT}", "--min-nodes=2", "--", "true")
    said = other.run(*command, code=1, **patience)
    assert f"No head node came up at {hosts[0]}:{PORT} within 1 s" in said
    said = head.run(*command, code=1, **patience)
    assert "Of 2 nodes only 1 came within 1 s" in said
    head.wait_gone()
    other.wait_gone()
