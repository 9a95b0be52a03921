"""What a driver shows of its workers, and what it says when something cannot go on."""

from __future__ import annotations

from support.processes import run_driver


def test_prints_of_tasks_and_actors_appear_with_their_prefix() -> None:
    out = run_driver(
        """
        import sys, ray
        ray.init(num_cpus=1, logging_level="ERROR")
        @ray.remote
        def speaks():
            print("hello from a task")
            print("to stderr", file=sys.stderr)
        @ray.remote
        class Speaker:
            def speak(self): print("hello from an actor")
        ray.get(speaks.remote())
        s = Speaker.remote()
        ray.get(s.speak.remote())
        ray.shutdown()
        """
    )
    text = out.stdout + out.stderr
    assert "(speaks pid=" in text and "hello from a task" in text
    assert "(Speaker pid=" in text and "hello from an actor" in text
    assert "to stderr" in out.stderr


def test_log_to_driver_false_keeps_them_out() -> None:
    out = run_driver(
        """
        import ray
        ray.init(num_cpus=1, logging_level="ERROR", log_to_driver=False)
        @ray.remote
        def speaks(): print("hello")
        ray.get(speaks.remote())
        ray.shutdown()
        """
    )
    assert "hello" not in out.stdout + out.stderr


def test_a_task_that_can_never_run_says_why() -> None:
    out = run_driver(
        """
        import ray
        ray.init(num_cpus=1, logging_level="ERROR")
        @ray.remote(resources={"unobtainium": 2})
        def f(): pass
        ready, _ = ray.wait([f.remote()], timeout=3)
        assert not ready
        ray.shutdown()
        """
    )
    assert "unobtainium" in out.stdout + out.stderr, out


def test_a_get_blocked_for_long_says_what_it_waits_for() -> None:
    out = run_driver(
        """
        import ray
        ray.init(num_cpus=1)
        @ray.remote(resources={"unobtainium": 2})
        def impossible(): pass
        try:
            ray.get(impossible.remote(), timeout=11)
        except ray.exceptions.GetTimeoutError:
            print("timed out")
        ray.shutdown()
        """
    )
    assert "timed out" in out.stdout
    assert "waiting" in out.stderr and "impossible" in out.stderr, out.stderr


def test_the_name_is_the_repr_that_an_actor_defines() -> None:
    out = run_driver(
        """
        import ray
        ray.init(num_cpus=1, logging_level="ERROR")
        @ray.remote
        class Named:
            def __init__(self, n): self.n = n
            def __repr__(self): return f"Named({self.n})"
            def speak(self): print("hello")
        @ray.remote
        class Broken:
            def __repr__(self): raise ValueError("no")
            def speak(self): print("hello")
        ray.get([Named.remote(7).speak.remote(), Broken.remote().speak.remote()])
        ray.shutdown()
        """,
        RAY_DEDUP_LOGS="0",
    )
    assert "(Named(7) pid=" in out.stdout and "(Broken pid=" in out.stdout, out


def test_last_words_before_shutdown_and_before_an_exit_are_shown() -> None:
    out = run_driver(
        """
        import os, ray
        ray.init(num_cpus=2, logging_level="ERROR")
        @ray.remote
        class Leaves:
            def leave(self):
                print("last words of an actor", end="")
                ray.actor.exit_actor()
        @ray.remote(max_retries=0)
        def dies():
            print("last words of a task", flush=True)
            os._exit(1)
        for ref in (Leaves.remote().leave.remote(), dies.remote()):
            try: ray.get(ref)
            except ray.exceptions.RayError: pass
        @ray.remote
        def many():
            for i in range(5000): print("word", i)
        ray.get(many.remote())
        ray.shutdown()
        """
    )
    assert "last words of an actor" in out.stdout, out
    assert "last words of a task" in out.stdout
    assert [line.split()[-1] for line in out.stdout.splitlines() if "word " in line] == [str(i) for i in range(5000)]


def test_lines_that_many_workers_print_are_folded_unless_told_otherwise() -> None:
    code = """
        import ray
        ray.init(num_cpus=4, logging_level="ERROR")
        @ray.remote
        class Speaker:
            def ready(self): pass
            def speak(self): print("the same line")
        speakers = [Speaker.remote() for _ in range(4)]
        ray.get([s.ready.remote() for s in speakers])
        ray.get([s.speak.remote() for s in speakers])
        ray.shutdown()
        """
    folded = run_driver(code).stdout.splitlines()
    assert len(folded) == 2 and "[repeated 3x across cluster]" in folded[1], folded
    whole = run_driver(code, RAY_DEDUP_LOGS="0").stdout.splitlines()
    assert len(whole) == 4 and all(line.endswith("the same line") for line in whole)


def test_a_task_that_can_never_run_names_demand_and_totals_within_two_seconds() -> None:
    out = run_driver(
        """
        import ray
        ray.init(num_cpus=1, logging_level="ERROR")
        @ray.remote(num_cpus=3)
        def f(): pass
        ray.wait([f.remote()], timeout=2)
        ray.shutdown()
        """
    )
    (line,) = [line for line in out.stderr.splitlines() if "(raylet)" in line]
    assert "CPU" in line and "3" in line and "1" in line, line


def test_a_value_that_nobody_asked_for_is_warned_about() -> None:
    out = run_driver(
        """
        import ray
        ray.init(num_cpus=1, logging_level="ERROR")
        @ray.remote(num_returns=0)
        def returns(): return [1]
        @ray.remote
        def done(): pass
        returns.remote()
        ray.get(done.remote())
        ray.shutdown()
        """
    )
    assert "num_returns=0" in out.stderr and "returns" in out.stderr, out


def test_a_worker_that_cannot_start_is_told_and_fails_its_task() -> None:
    out = run_driver(
        """
        import ray
        ray.init(num_cpus=1, logging_level="ERROR")
        @ray.remote(runtime_env={"env_vars": {"RAY_BACKEND_LOG_LEVEL": "nonsense"}})
        def never(): pass
        @ray.remote
        def works(): return "works"
        try:
            ray.get(never.remote(), timeout=20)
        except ray.exceptions.RaySystemError as error:
            print("error", error)
        print(ray.get(works.remote()))
        ray.shutdown()
        """
    )
    assert "error" in out.stdout and ".err" in out.stdout and "works" in out.stdout, out
    assert "(raylet)" in out.stderr and ".err" in out.stderr
