"""Runs what the core hands to a worker: functions, and the constructor and methods of the one actor that may live here.

Normal tasks and plain actors run on the main thread. Threaded actors have pools (`thread_actor`), async actors event
loops (`async_actor`); there the main thread only passes calls on.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterable
from types import FrameType, GeneratorType
from typing import TYPE_CHECKING, Any, Protocol

from ray._core import executor as core_executor
from ray._core.executor import TaskRun, TaskTemplate
from ray._core.generator import DynamicObjectRefGenerator
from ray._runtime import accelerators, blas, shutdown_hook
from ray._runtime.session import Session, current_task
from ray._runtime.streams import NamedStream, Names
from ray._runtime.task_context import ActorState, TaskContext
from ray._runtime.task_errors import cancelled_error, may_retry, task_error
from ray.exceptions import AsyncioActorExit, RayTaskError

if TYPE_CHECKING:
    from ray._core.object_ref import ObjectRef

DYNAMIC, STREAMING = -1, -2
_NO_ACCELERATORS: dict[str, list[Any]] = {}


class NumReturnsWarning(UserWarning):
    """A task returned something although its caller asked for nothing."""


class PartOfResults(BaseException):
    """A generator gave fewer values than the task has returns, then ended or raised `error`; these values count."""

    def __init__(self, values: list[Any], error: BaseException) -> None:
        super().__init__(values, error)
        self.values = values
        self.error = error


class Leave(BaseException):
    """The worker is to end.

    Attributes:
        intended: an actor that left on purpose, not to be restarted.
        code: of the process.
        drain: after the calls that were handed over.
    """

    def __init__(self, reason: str, *, intended: bool, code: int = 0, drain: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.intended = intended
        self.code = code
        self.drain = drain


class ActorRunner(Protocol):
    """How an actor that is not plain runs its methods."""

    def submit(self, run: TaskRun) -> None:
        """Starts the call, on another thread."""

    def cancel(self, task_id: bytes) -> None:
        """Cancels the running call, if it can be."""

    def serve(self) -> None:
        """Hands out calls until the process is to leave, and raises Leave; or returns at once: the main loop does."""

    def stop(self) -> None:
        """Waits for the calls that run, and ends the threads."""


class Executor:
    """The main loop's hands. Everything but `run_here` and the `finish*` helpers is used on the main thread only."""

    def __init__(self, session: Session, names: Names, streams: list[NamedStream]) -> None:
        self.session = session
        self.actor: ActorState | None = None
        self.interruptible: TaskRun | None = None  # what runs on the main thread and SIGINT may end
        self._names = names
        self._streams = streams
        self._runner: ActorRunner | None = None
        self._runs: dict[Any, int] = {}  # template -> runs, where max_calls is set
        self._template: TaskTemplate | None = None  # of the normal task that ran last
        self._set_threads = "OMP_NUM_THREADS" not in os.environ  # else it is the user's
        self._threads = 1  # of the libraries that are loaded
        self._visibility = accelerators.Visibility()
        self._actor_accelerators = _NO_ACCELERATORS
        self._context: TaskContext | None = None  # of what runs on the main thread: made once, filled for each run
        self.leaving: Leave | None = None  # set by other threads: the main loop is to end
        self.wake: Callable[[], None] = _interrupt_main  # makes it look

    def handle(self, run: TaskRun) -> None:
        """Does one thing that the core asked for. Raises Leave where the process is to end."""
        if run.kind == core_executor.EXIT:
            raise Leave(run.exit_reason, intended=True, drain=True)
        if run.kind == core_executor.CANCEL:
            if self._runner is not None:
                self._runner.cancel(run.task_id)
        elif self._runner is not None:
            self._runner.submit(run)
        elif run.is_actor_creation:
            self._create_actor(run)
        else:
            self._run_on_main(run)

    # --- normal tasks and methods of plain actors

    def _run_on_main(self, run: TaskRun) -> None:
        actor, session = self.actor, self.session
        accelerator_ids = self._actor_accelerators
        if actor is None:
            if run.template is not self._template:
                self._adopt(run.template)
            instances = run.instances
            accelerator_ids = accelerators.ids_of(instances) if instances else _NO_ACCELERATORS
            self._visibility.apply(accelerator_ids)
        # Nothing else runs on this thread, so the context that threads of user code see is its own, too.
        context = self._context
        if context is None:
            context = self._context = TaskContext(run, actor, accelerator_ids)
        else:
            context.begin(run, actor, accelerator_ids)
        session.default_task = context
        run.set_current()
        try:
            self.run_here(run, run.template.max_calls > 0 and self._count_run(run))
        finally:
            core_executor.clear_current(session.core)
            if actor is None:
                session.default_task = None
            for stream in self._streams:
                if stream.dirty:
                    stream.flush_if_dirty()

    def _adopt(self, template: TaskTemplate) -> None:
        """Another function than the last one is to run here."""
        self._template = template
        self._names.current = template.name
        if self._set_threads:  # numeric libraries would start a thread for each core of the machine
            self._use_threads(template.resources)

    def _use_threads(self, resources: dict[str, float]) -> None:
        count = max(1, int(resources.get("CPU", 0)))
        os.environ["OMP_NUM_THREADS"] = str(count)
        if count != self._threads:
            self._threads = count
            blas.set_threads(count)

    def _count_run(self, run: TaskRun) -> bool:
        """Whether this is the last run that max_calls allows."""
        template = run.template
        count = self._runs[template] = self._runs.get(template, 0) + 1
        return bool(count >= template.max_calls)

    def run_here(self, run: TaskRun, last: bool = False) -> None:
        """Runs a task that is not a coroutine on the calling thread and reports how it ended."""
        items = 0
        try:
            if self._runner is None:
                self.interruptible = run
            try:
                if self.actor is None and run.is_cancelled():  # since it was taken: that signal found nothing to end
                    raise KeyboardInterrupt
                function = self.function_of(run)
                args, kwargs = run.load_args()
                result = function(*args, **kwargs)
                del args, kwargs
                wanted = run.template.num_returns
                if wanted == 1 and type(result) is not GeneratorType:
                    results = None
                elif wanted == STREAMING:
                    for item in self.items_of(run, self._iterate(result)):
                        if run.report_item(items, item):
                            break
                        items += 1
                        del item
                    results = [None]
                else:
                    results = self.shape_results(run, result)
            finally:
                self.interruptible = None
            if results is None and not last:
                run.finish_one(result)
            else:
                run.finish([result] if results is None else results, worker_exiting=last, generator_items=items)
        except BaseException as error:
            self.finish_failed(run, error, last=last, items=items)
        if last:
            raise Leave("max_calls reached", intended=True)

    def function_of(self, run: TaskRun) -> Callable[..., Any]:
        """What to call for `run`: the task's function, or the bound method of the actor."""
        template = run.template
        if self.actor is not None:
            name = template.method_name
            if name in _IMPLICIT and not hasattr(type(self.actor.instance), name):
                implicit = _IMPLICIT[name]
                return lambda *args, **kwargs: implicit(self.actor, *args, **kwargs)
            return getattr(self.actor.instance, name)  # type: ignore[no-any-return]
        if template.cached is None:
            template.cached = self.session.functions.fetch(template.function_id)
        return template.cached  # type: ignore[no-any-return]

    @staticmethod
    def _iterate(result: Any) -> Iterable[Any]:
        if not hasattr(result, "__iter__"):
            raise ValueError(f"A streaming task must return a generator or an iterable, not {type(result).__name__}.")
        return result  # type: ignore[no-any-return]

    @staticmethod
    def items_of(run: TaskRun, yielded: Iterable[Any]) -> Iterable[Any]:
        """The items of a stream: what is yielded, or the parts of it where `_num_objects_per_yield` is given."""
        wanted = run.template.objects_per_yield
        return yielded if wanted == 0 else _parts(yielded, wanted)

    def shape_results(self, run: TaskRun, result: Any) -> list[Any]:
        """One value for each return id. Raises where the count is wrong: ValueError, TypeError, PartOfResults."""
        wanted = run.template.num_returns
        if wanted == 1 and type(result) is not GeneratorType:
            return [result]
        if wanted == 0:
            if result is not None:
                name = run.template.name
                warnings.warn(
                    f"Task {name!r} has num_returns=0 but returned a {type(result).__name__}, which is dropped.",
                    NumReturnsWarning,
                    stacklevel=1,
                )
            return []
        if wanted == DYNAMIC:
            return [self._put_each(run, self._iterate(result))]
        if not hasattr(result, "__iter__"):
            raise TypeError(f"Task returned a {type(result).__name__}, but num_returns={wanted}.")
        if not hasattr(result, "__len__"):
            return self._first_of(result, wanted)
        results = list(result)
        if len(results) != wanted:
            raise ValueError(f"Task returned {len(results)} objects, but num_returns={wanted}.")
        return results

    def _put_each(self, run: TaskRun, items: Iterable[Any]) -> DynamicObjectRefGenerator:
        """The refs of all items. Those before an error stay usable; the error is behind one more."""
        refs: list[ObjectRef] = []
        try:
            for item in items:
                refs.append(self.session.put(item))
        except Exception as error:
            if may_retry(error, run):
                raise
            refs.append(self.session.core.put_error(task_error(error, run, self.actor, self.session.node_ip)))
        return DynamicObjectRefGenerator(refs)

    @staticmethod
    def _first_of(generator: Iterable[Any], wanted: int) -> list[Any]:
        """What it yields first, one value for each return id; the rest is not asked for."""
        results: list[Any] = []
        try:
            for item in itertools.islice(generator, wanted):
                results.append(item)
        except BaseException as error:
            raise PartOfResults(results, error) from error
        if len(results) != wanted:
            short = ValueError(f"Task returned {len(results)} objects, but num_returns={wanted}.")
            raise PartOfResults(results, short)
        return results

    def finish_failed(self, run: TaskRun, error: BaseException, *, last: bool = False, items: int = 0) -> None:
        """Reports that `run` raised `error`. Raises Leave where `error` means that the process is to end."""
        before: list[Any] = []
        if isinstance(error, PartOfResults):
            before, error = error.values, error.error
        if isinstance(error, Leave):
            raise error
        if isinstance(error, (SystemExit, AsyncioActorExit)):
            raise self.leave_for(error)
        if isinstance(error, KeyboardInterrupt) and not run.is_actor_creation:  # one of its own making, too
            self.finish_cancelled(run, error, items=items)
            return
        if os.environ.get("RAY_DEBUG_POST_MORTEM"):
            self._stop_for_debugger(error)
        retryable = may_retry(error, run)
        made: RayTaskError = task_error(error, run, self.actor, self.session.node_ip)
        # Frames hold the task's arguments; they must not outlive it.
        error.__traceback__ = None
        run.finish_error(made, before=before, retryable=retryable, worker_exiting=last, generator_items=items)

    def finish_cancelled(self, run: TaskRun, error: BaseException, *, items: int = 0) -> None:
        """Reports that `run` was cancelled; `error` is what interrupted it."""
        made = cancelled_error(error, run, self.actor, self.session.node_ip)
        error.__traceback__ = None  # its frames hold the task's arguments
        run.finish_cancelled(made, generator_items=items)

    @staticmethod
    def _stop_for_debugger(error: BaseException) -> None:
        from ray.util import rpdb

        if rpdb.post_mortem_wanted():
            rpdb._post_mortem(error.__traceback__)

    def leave_for(self, error: BaseException) -> Leave:
        """What exit_actor(), sys.exit() and os-level ends inside user code mean for the process.

        An actor may leave with the code 0; with any other it has failed, and is restarted as after a crash.
        """
        code = getattr(error, "code", 0)
        number = code if isinstance(code, int) else (0 if code is None else 1)
        if self.actor is None:
            return Leave(f"sys.exit({code!r}) was called in a task", intended=False, code=number)
        if isinstance(code, int) and code == 0:
            return Leave("exit_actor() or sys.exit(0) was called in the actor", intended=True)
        return Leave(f"sys.exit({code!r}) was called in the actor", intended=False, code=number)

    # --- actors

    def _create_actor(self, run: TaskRun) -> None:
        self.actor = actor = ActorState(run)
        self._names.current = actor.options["class_name"]
        core_executor.set_idle_title(f"ray::{actor.options['class_name']}")
        if self._set_threads:
            self._use_threads(actor.resources)
        self._actor_accelerators = accelerators.ids_of(actor.instances) if actor.instances else _NO_ACCELERATORS
        self._visibility.apply(self._actor_accelerators)
        context = TaskContext(run, actor, self._actor_accelerators)
        self.session.default_task = context
        current_task.set(context)
        run.set_current()
        try:
            cls = self.session.functions.fetch(run.template.function_id)
            args, kwargs = run.load_args()
            if actor.options["is_async"]:
                from ray._runtime import blocking_get
                from ray._runtime.async_actor import AsyncRunner

                blocking_get.warn_once(self.session)

                runner = AsyncRunner(self, actor)  # user constructors may need the loop
                actor.instance = runner.construct(functools.partial(cls, *args, **kwargs), context)
                self._runner = runner
            else:
                actor.instance = cls(*args, **kwargs)
                if actor.options["max_concurrency"] > 1 or actor.options["concurrency_groups"]:
                    from ray._runtime.thread_actor import ThreadRunner

                    self._runner = ThreadRunner(self, actor)
            del args, kwargs
            if cls.__repr__ is not object.__repr__:
                with contextlib.suppress(Exception):  # what the user's code shows of itself is not worth an actor
                    actor.repr_name = self._names.current = repr(actor.instance)
            run.finish([None] * run.num_returns, repr_name=actor.repr_name)
        except (SystemExit, AsyncioActorExit) as error:
            raise self.leave_for(error) from None
        except BaseException as error:
            self.finish_failed(run, error)
            raise Leave("the actor's constructor failed", intended=True) from None
        finally:
            core_executor.clear_current(self.session.core)
            current_task.set(None)
            for stream in self._streams:
                stream.flush_if_dirty()

    def context_of(self, run: TaskRun) -> TaskContext:
        """The context of a method call."""
        return TaskContext(run, self.actor, self._actor_accelerators)

    def flush(self) -> None:
        """Writes out what was printed so far."""
        for stream in self._streams:
            stream.flush_if_dirty()

    def request_leave(self, leave: Leave) -> None:
        """Ends the main loop, which may be waiting in the core. From any thread; the first one counts."""
        if self.leaving is None:
            self.leaving = leave
        self.wake()

    def serve_runner(self) -> None:
        """Lets an actor with an event loop on the main thread run it. Raises Leave at its end."""
        if self._runner is not None:
            self._runner.serve()

    def stop(self, leave: Leave) -> None:
        """At the end: lets calls finish if `leave` says so, then runs `__ray_shutdown__`."""
        if self._runner is not None and leave.drain:
            self._runner.stop()
        instance = self.actor.instance if self.actor is not None else None
        shutdown_hook.run(instance)

    def on_sigint(self, signum: int, frame: FrameType | None) -> None:
        """The core sends SIGINT to a task that is cancelled or out of time; one that comes too late means nothing."""
        run = self.interruptible
        if run is not None and run.is_cancelled():
            self.interruptible = None
            raise KeyboardInterrupt

    def install_signal_handlers(self) -> None:
        """SIGINT cancels, SIGTERM leaves in good order; whatever was inherited."""
        signal.signal(signal.SIGINT, self.on_sigint)
        signal.signal(signal.SIGTERM, _on_sigterm)
        signal.signal(signal.SIGUSR2, _on_wake)
        core_executor.set_interrupt_thread(self.session.core)


def _parts(yielded: Iterable[Any], wanted: int) -> Iterable[Any]:
    for item in yielded:
        parts = list(item) if hasattr(item, "__iter__") else None
        if parts is None or len(parts) != wanted:
            got = f"{len(parts)} objects" if parts is not None else f"a {type(item).__name__}"
            raise ValueError(f"Task yielded {got}, but _num_objects_per_yield={wanted}.")
        yield from parts


def sigterm(signum: int) -> Leave:
    """What SIGTERM means for a worker."""
    return Leave("SIGTERM", intended=False, code=128 + signum)


def _on_sigterm(signum: int, frame: FrameType | None) -> None:
    raise sigterm(signum)


def _interrupt_main() -> None:
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR2)


def _on_wake(signum: int, frame: FrameType | None) -> None:
    """Only makes a wait in the core return."""


def _terminate(actor: ActorState) -> None:
    raise Leave("__ray_terminate__ was called", intended=True, drain=True)


# Methods that every actor has. The class may define its own.
_IMPLICIT: dict[str, Callable[..., Any]] = {
    "__ray_ready__": lambda actor: True,
    "__ray_terminate__": _terminate,
    "__ray_call__": lambda actor, function, *args, **kwargs: function(actor.instance, *args, **kwargs),
}

__all__ = ["ActorRunner", "Executor", "Leave"]
