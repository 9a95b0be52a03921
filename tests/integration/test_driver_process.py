"""What `ray.init` does to a driver's process, and what the environment has it record."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

from support.processes import session_processes, wait_until


def script(code: str) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(code)]


def run(code: str, **env: str) -> str:
    done = subprocess.run(
        script(code), env={**os.environ, **env}, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_descriptors_crash_traces_and_breakpoints(own_tmpdir: Path) -> None:
    code = """
        import faulthandler, os, resource
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, 5000))
        import ray
        ray.init("local", num_cpus=1, logging_level="ERROR")
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (5000, 5000)
        assert faulthandler.is_enabled()
        print(os.environ["PYTHONBREAKPOINT"])
    """
    assert run(code).strip() == "ray.util.rpdb.set_trace"


def test_sigterm_ends_a_driver_in_good_order(own_tmpdir: Path) -> None:
    code = """
        import atexit, time
        import ray
        atexit.register(print, "left", flush=True)
        ray.init("local", num_cpus=1, logging_level="ERROR")
        print("ready", flush=True)
        ray.get(ray.remote(time.sleep).remote(60))
    """
    driver = subprocess.Popen(script(code), stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    assert driver.stdout.readline() == "ready\n"
    driver.send_signal(signal.SIGTERM)
    assert driver.communicate(timeout=30)[0] == "left\n"
    assert driver.returncode == signal.SIGTERM
    wait_until(lambda: not session_processes(str(own_tmpdir)), 20, "nothing of the cluster is left")


def test_a_program_keeps_its_own_handler(own_tmpdir: Path) -> None:
    code = """
        import signal
        import ray
        mine = lambda *_: None
        signal.signal(signal.SIGTERM, mine)
        ray.init("local", num_cpus=1, logging_level="ERROR")
        assert signal.getsignal(signal.SIGTERM) is mine
    """
    run(code)


def test_where_refs_were_made(own_tmpdir: Path) -> None:
    code = """
        import ray
        ray.init("local", num_cpus=1, logging_level="ERROR")

        @ray.remote
        def task():
            return 1

        @ray.remote
        class Actor:
            def call(self):
                return 1

        def make():
            return [task.remote(), ray.put(1), Actor.remote().call.remote(), *task.options(num_returns=2).remote()]

        for ref in make():
            print(ref.call_site())
    """
    lines = run(code, RAY_record_ref_creation_sites="1").splitlines()
    assert len(lines) == 5 and all(line.startswith("<string>:") and line.endswith(" in make") for line in lines)
    assert run(code).strip() == ""
