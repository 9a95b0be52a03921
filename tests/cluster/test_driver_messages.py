"""What workers on other nodes print, and messages of the cluster, reach the driver."""

from __future__ import annotations

import pathlib
import subprocess
import threading

from support.processes import start_driver

SCRIPT = """
import sys, ray
from ray.cluster_utils import Cluster
cluster = Cluster()
cluster.add_node(num_cpus=1)
cluster.add_node(num_cpus=1, resources={"guest": 1}, node_ip_address="127.0.0.2")
ray.init(cluster.address, logging_level="ERROR")
%s
sys.stdin.readline()
ray.shutdown()
cluster.shutdown()
"""

PRINTS = """
@ray.remote(num_cpus=0, resources={"guest": 1})
class Speaker:
    def __init__(self):
        print("first line")
        print("on stderr", file=sys.stderr)
        print("last line")
speaker = Speaker.remote()
"""

INFEASIBLE = """
@ray.remote(num_cpus=0, resources={"nowhere": 1})
class Stuck: pass
stuck = Stuck.remote()
"""


def until(driver: subprocess.Popen[str], wanted: str) -> str:
    """What the driver prints, up to the line that has `wanted`."""
    watchdog = threading.Timer(40, driver.kill)
    watchdog.start()
    seen = ""
    try:
        for line in driver.stdout:
            seen += line
            if wanted in line:
                break
    finally:
        watchdog.cancel()
    assert wanted in seen, seen
    return seen


def end(driver: subprocess.Popen[str]) -> str:
    """Lets the driver end; what else it printed."""
    output, errors = driver.communicate("\n", timeout=30)
    assert driver.returncode == 0, output + errors
    return output + errors


def test_lines_of_other_nodes_carry_their_address(tmp_path: pathlib.Path) -> None:
    driver = start_driver(SCRIPT % PRINTS, RAY_TMPDIR=str(tmp_path))
    try:
        seen = until(driver, "last line")
        errors = end(driver)
    finally:
        driver.kill()
    assert "(Speaker pid=" in seen and ", ip=127.0.0.2) first line" in seen
    assert seen.index("first line") < seen.index("last line")
    assert "on stderr" in errors


def test_a_message_of_the_gcs_reaches_the_driver(tmp_path: pathlib.Path) -> None:
    driver = start_driver("import os; os.dup2(1, 2)\n" + SCRIPT % INFEASIBLE, RAY_TMPDIR=str(tmp_path))
    try:
        seen = until(driver, "nowhere")
        end(driver)
    finally:
        driver.kill()
    assert "(raylet)" in seen


LAST_WORDS = """
@ray.remote(num_cpus=0, resources={"guest": 1})
class Speaker:
    def speak(self):
        for i in range(100): print("word", i)
        print("last words")
speaker = Speaker.remote()
ray.get(speaker.speak.remote())
ray.shutdown()
cluster.shutdown()
sys.exit()
"""


def test_a_driver_that_leaves_at_once_shows_what_was_printed_before(tmp_path: pathlib.Path) -> None:
    driver = start_driver(SCRIPT % LAST_WORDS, RAY_TMPDIR=str(tmp_path), RAY_DEDUP_LOGS="0")
    output, errors = driver.communicate(timeout=60)
    assert driver.returncode == 0, errors
    assert output.count(") word ") == 100 and output.rstrip().endswith("last words"), output[-2000:] + errors
