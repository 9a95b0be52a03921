"""`ray timeline` on a cluster of `ray start`."""

from __future__ import annotations

import json

from support.shell import Shell

WORK = (
    "import ray; ray.init('auto', logging_level='ERROR'); ray.get(ray.remote(lambda: 7).options(name='seen').remote())"
)


def test_what_other_drivers_ran_is_written(shell: Shell) -> None:
    shell.start_head()
    shell.drive(WORK)
    said = shell.run("timeline")
    [path] = shell.root.glob("ray-timeline-*.json")
    assert str(path) in said
    assert [event["name"] for event in json.loads(path.read_text())] == ["seen"]
