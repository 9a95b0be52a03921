"""The commands of docs/user/clusters.md do what it says, in its order."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys

from support.processes import free_port, wait_until
from support.shell import Shell

GUIDE = pathlib.Path(__file__).parents[2] / "docs" / "user" / "clusters.md"
BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_guide_works_as_written(shell: Shell, tmp_path: pathlib.Path) -> None:
    port = free_port()
    text = GUIDE.read_text().replace("10.0.0.1", "127.0.0.1").replace("6379", str(port))
    blocks = BLOCK.findall(text)
    assert len(blocks) >= 7
    env = {**shell.env, "PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"}
    outputs = []
    for language, code in blocks:
        command = ["bash", "-euc", code] if language == "sh" else [sys.executable, "-c", code]
        done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=90, check=False)
        assert done.returncode == 0, code + done.stdout + done.stderr
        outputs.append(done.stdout)
    everything = "\n".join(outputs)
    assert "Ray runtime started." in everything
    assert "2.0 special" in everything and "zone=west" in everything
    assert len((tmp_path / "token_for_the_others").read_text()) == 64
    assert "Stopped all 3 Ray processes." in everything
    wait_until(lambda: not shell.pids(), 10, "no process is left")
