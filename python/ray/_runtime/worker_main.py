"""Main of a worker process, from the zygote's fork (or a start by hand) to its end."""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import os
import sys
from dataclasses import dataclass
from typing import NoReturn

from ray._core import executor as core_executor
from ray._core import gcs
from ray._core.worker import CoreWorker
from ray._runtime import process_groups, runtime_env, system_config
from ray._runtime.executor import Executor, Leave
from ray._runtime.session import Session, core_options, set_session
from ray._runtime.streams import Names, install

_WAIT_MS = 1000  # bounds how late a signal is seen that came just before the wait


@dataclass(frozen=True)
class WorkerArgs:
    """What the launcher says about a new worker."""

    session_dir: str
    worker_id: bytes
    job_id: bytes
    token: int
    log_dir: str


def _adopt_job(session: Session) -> None:
    """Imports work as in the driver: its search path comes after ours; namespace and configuration are the job's."""
    info = session.core.info
    if info["job_known"]:
        session.namespace = info["job_namespace"]
        session.job_config = json.loads(info["job_config_json"] or "{}")
    else:
        for job in gcs.list_jobs(session.core):
            if job["job_id"] == session.job_id.binary():
                session.namespace = job["ray_namespace"]
                session.job_config = json.loads(job["config_json"] or "{}")
                break
    if "logging_config" in session.job_config:
        from ray._runtime.logging_config import LoggingConfig

        LoggingConfig.from_dict(session.job_config["logging_config"]).apply()
    for path in session.job_config.get("sys_path", ()):
        if path not in sys.path:
            sys.path.append(path)


def _connect(args: WorkerArgs) -> Session:
    core = CoreWorker.start(
        is_driver=False,
        session_dir=args.session_dir,
        worker_id=args.worker_id,
        startup_token=args.token,
        job_id=args.job_id,
        log_file=os.path.join(args.log_dir, f"python-core-worker-{args.worker_id.hex()}_{os.getpid()}.log"),
        python_version=".".join(map(str, sys.version_info[:3])),
        **core_options(),
    )
    core.notes_sites = system_config.records_sites({})
    return Session(core, is_driver=False, namespace="", job_config={})


def run(args: WorkerArgs) -> int:
    """Serves tasks until told to leave; the exit code."""
    names = Names()
    streams = install(names)
    env = runtime_env.adopt()
    session = _connect(args)
    session.runtime_env = env
    set_session(session)
    executor = Executor(session, names, streams)
    executor.install_signal_handlers()
    os.environ.setdefault("PYTHONBREAKPOINT", "ray.util.rpdb.set_trace")
    try:
        _adopt_job(session)
        _serve(executor)
    except Leave as leave:
        return _leave(executor, leave)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return _leave(executor, Leave("the worker's main loop failed; see its .err file", intended=False, code=1))


def _serve(executor: Executor) -> NoReturn:
    next_task, core = core_executor.next_task, executor.session.core
    while True:
        run_next = next_task(core, _WAIT_MS)
        if run_next is not None:
            executor.handle(run_next)
            del run_next  # with its arguments, before the wait for the next
            executor.serve_runner()
        if executor.leaving is not None:
            raise executor.leaving


def _leave(executor: Executor, leave: Leave) -> int:
    core = executor.session.core
    with contextlib.suppress(Exception, Leave):
        core_executor.announce_exit(core, leave.reason, leave.intended)
    try:
        executor.stop(leave)
        atexit._run_exitfuncs()
    except Leave:
        pass  # SIGTERM while leaving: faster, then
    except BaseException:
        sys.excepthook(*sys.exc_info())
    with contextlib.suppress(OSError, ValueError, Leave):  # a full disk; user code has closed the stream
        executor.flush()
    with contextlib.suppress(Exception, Leave):
        core.shutdown(leave.reason)
    return leave.code


def main(args: WorkerArgs) -> None:
    """As `run`, and ends the process: the interpreter's own teardown would wait for threads of user code."""
    gc.enable()
    code = 1
    try:
        code = run(args)
    except BaseException:  # no raylet there, for one
        sys.excepthook(*sys.exc_info())
    finally:
        try:
            for stream in (sys.stdout, sys.stderr):
                try:
                    stream.flush()
                except (OSError, ValueError):  # as above
                    pass
                except Exception:  # what user code has put there
                    sys.excepthook(*sys.exc_info())
            process_groups.ask_to_end()
        finally:
            os._exit(code)
