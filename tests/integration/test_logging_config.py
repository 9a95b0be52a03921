"""`ray.init(logging_config=...)`: lines of the driver and of the workers, as they reach the driver's output."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
import textwrap

PROGRAM = """
    import logging
    import ray

    ray.init(num_cpus=1, logging_config=ray.LoggingConfig(encoding="JSON", log_level="INFO"))

    @ray.remote
    def task():
        logging.getLogger("mine").info("from a task", extra={"key": 5})

    logging.getLogger("mine").info("from the driver")
    ray.get(task.remote())
    ray.shutdown()
"""


def test_records_are_lines_of_json_without_a_prefix(tmp_path: pathlib.Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(PROGRAM))
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, timeout=60, check=True)
    records = {}
    for line in (done.stdout + done.stderr).splitlines():
        if line.startswith("{"):
            record = json.loads(line)
            records[record["message"]] = record
    driver, task = records["from the driver"], records["from a task"]
    assert driver["job_id"] == task["job_id"] and driver["worker_id"] != task["worker_id"]
    assert task["task_name"] == "task" and task["key"] == 5 and task["levelname"] == "INFO"
