"""Nothing waits by the wall clock: it may jump for hours, ahead and back, and every deadline is kept."""

from __future__ import annotations

import pathlib

import pytest
from support.clocks import WallClock
from support.processes import start_driver

PROGRAM = """
    import os, time
    import ray

    ray.init(num_cpus=2, object_store_memory=100 << 20, logging_level="ERROR", log_to_driver=False)

    @ray.remote(max_restarts=-1, max_task_retries=-1, num_cpus=0)
    class Actor:
        def wall(self):
            return time.time()

        def end(self):
            os._exit(1)

    @ray.remote
    def after(seconds):
        time.sleep(seconds)
        return seconds

    @ray.remote(max_retries=3, retry_exceptions=True)
    def flaky(path):
        if not os.path.exists(path):
            open(path, "w").close()
            raise ValueError("the first time")
        return "done"

    def took(begin):
        return time.monotonic() - begin

    actor = Actor.remote()
    ray.get(actor.wall.remote(), timeout=30)
    slow = after.remote(6)
    print("ready", flush=True)
    for turn in range(2):
        input()  # the clock is about to jump
        begin = time.monotonic()
        late = after.remote(4)
        print("waits", flush=True)
        try:
            ray.get(late, timeout=1)
            raise SystemExit("it came too early")
        except ray.exceptions.GetTimeoutError:
            assert took(begin) >= 1
        begin = time.monotonic()
        assert ray.wait([late], timeout=0.5)[0] == []
        assert took(begin) >= 0.5
        assert abs(ray.get(actor.wall.remote(), timeout=20) - time.time()) < 60, "both live by that clock"
        assert ray.get(flaky.remote(f"{os.environ['TEST_WALL_CLOCK']}-{turn}"), timeout=20) == "done"
        try:  # an actor that is made again
            ray.get(Actor.options(max_task_retries=0).remote().end.remote(), timeout=20)
        except ray.exceptions.RayActorError:
            pass
        assert ray.get(late, timeout=20) == 4
        assert len(ray.get(ray.put(b"x" * 300_000), timeout=20)) == 300_000
        assert all(node["Alive"] for node in ray.nodes())
        print(time.time(), flush=True)
    assert ray.get(slow, timeout=20) == 6
    ray.shutdown()
"""


@pytest.mark.parametrize("hours", [48, -48])
def test_deadlines_are_kept_when_the_wall_clock_jumps(tmp_path: pathlib.Path, hours: int) -> None:
    clock = WallClock(tmp_path)
    driver = start_driver(PROGRAM, **clock.env)
    assert driver.stdin is not None and driver.stdout is not None
    said = []
    try:
        said.append(driver.stdout.readline())
        for offset in (hours * 3600, 0):  # there and back
            driver.stdin.write("\n")
            driver.stdin.flush()
            said.append(driver.stdout.readline())
            clock.jump_to(offset)
            said.append(driver.stdout.readline())
    except BrokenPipeError:
        pass  # it has ended; what it says of that is below
    finally:
        if len(said) < 5 or not said[-1]:
            driver.kill()
        _, errors = driver.communicate(timeout=60)
    assert driver.returncode == 0, errors
    assert [said[0], said[1], said[3]] == ["ready\n", "waits\n", "waits\n"]
    there, back = float(said[2]), float(said[4])
    assert abs(there - back - hours * 3600) < 120
