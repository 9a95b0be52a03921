# cython: language_level=3, embedsignature=True
"""The worker's side of the core: what to run next, and what came of it."""
cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals
from libc.signal cimport SIGKILL
from libc.stdint cimport int32_t, int64_t, uint64_t
from libcpp cimport bool
from libcpp.string cimport string
from libcpp.vector cimport vector
from posix.signal cimport kill
from posix.unistd cimport getpid, getppid

from ray._core.cpp.core cimport (
    Core,
    Event,
    ObjectId,
    PrepareProcessTitle,
    SetProcessTitle,
    Status,
    TaskDetails,
    TaskIn,
    TaskOut,
    TemplateOptions,
)
from ray._core.cpp.prctl cimport PR_SET_PDEATHSIG, prctl
from ray._core.status cimport check
from ray._core.values cimport Packed, pack, pack_error, unpack
from ray._core.worker cimport CoreWorker, of_str, small, to_bytes, to_str

cdef extern from *:
    """
    #include <chrono>
    static double ray_perf_counter() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }
    """
    double ray_perf_counter() nogil

from ray._core.call import note_capture

RUN, CANCEL, EXIT = 1, 2, 3
cdef dict _NO_INSTANCES = {}
cdef tuple _NOTHING = ((), {})


class TaskTemplate:
    """The static part of a task, shared by all runs of it; `cached` belongs to the executor."""

    __slots__ = (
        "type", "function_id", "function_name", "method_name", "name", "runtime_env", "concurrency_group", "resources", "num_returns",
        "retry_exceptions", "retry_exception_allowlist", "max_calls", "placement_group_id", "capture_child_tasks", "objects_per_yield", "omit_task_events",
        "title", "cached",
    )


cdef dict _templates = {}  # template_key -> TaskTemplate
cdef Py_ssize_t _MAX_TEMPLATES = 4096  # then all are forgotten: callers may make them without end


cdef object _template(Core* core, TaskIn* task):
    cdef TemplateOptions options
    found = _templates.get(task.template_key)
    if found is not None:
        return found
    if not core.TemplateOf(task.token, &options):
        raise LookupError("a run that has ended")
    made = TaskTemplate()
    made.type = options.type
    made.function_id = to_bytes(options.function_id)
    made.function_name = to_str(options.function_name)
    made.method_name = to_str(options.method_name)
    made.name = to_str(options.name)
    made.runtime_env = to_str(options.runtime_env)
    made.concurrency_group = to_str(options.concurrency_group)
    made.resources = {to_str(item.first): item.second for item in options.resources}
    made.num_returns = options.num_returns
    made.retry_exceptions = options.retry_exceptions
    made.retry_exception_allowlist = to_bytes(options.retry_exception_allowlist)
    made.max_calls = options.max_calls
    made.placement_group_id = to_bytes(options.strategy_placement_group_id)
    made.capture_child_tasks = options.strategy_capture_child_tasks
    if made.capture_child_tasks:
        note_capture()
    made.objects_per_yield = options.objects_per_yield
    made.omit_task_events = options.omit_task_events
    made.title = f"ray::{made.name}".encode()
    made.cached = None
    if len(_templates) >= _MAX_TEMPLATES:
        _templates.clear()
    _templates[task.template_key] = made
    return made


class ArgumentError(Exception):
    """An argument of a task is the error in `cause`, so the task cannot run."""

    def __init__(self, cause):
        super().__init__(cause)
        self.cause = cause


cdef size_t _MAX_SMALL = 1000  # so many small results travel with the reply; of more some may go to the store
cdef Py_ssize_t _MAX_ERROR_TEXT = 2048  # characters: as much as an owner keeps of it, in bytes
cdef bytes _idle_title = b"ray::IDLE"
cdef bytes _title = b""  # what ps shows; a process has one


cdef inline void _show(bytes title):
    global _title
    if title is not _title:
        _title = title
        SetProcessTitle(PyBytes_AS_STRING(title), PyBytes_GET_SIZE(title))


def prepare_titles():
    """From now on ps can show what this process, or one that it forks, runs. Before the process has a second thread."""
    PrepareProcessTitle()


def die_with_parent(int parent):
    """This process gets SIGKILL when its parent ends; at once if it has already."""
    prctl(PR_SET_PDEATHSIG, SIGKILL)
    if getppid() != parent:
        kill(getpid(), SIGKILL)  # not an exit code: it has not failed to start


def outlive_parent():
    """Takes back what `die_with_parent` said."""
    prctl(PR_SET_PDEATHSIG, 0)


def set_idle_title(title):
    """What ps shows while nothing runs: the class, in an actor's process."""
    global _idle_title
    _idle_title = title.encode()


@cython.final
cdef class TaskRun:
    """One thing to do. Exactly one of `finish`, `finish_error` and `finish_cancelled` is called for each run of kind RUN."""

    cdef TaskIn task
    cdef readonly CoreWorker worker
    cdef readonly object template
    cdef double started
    cdef dict _details

    @property
    def kind(self):
        return self.task.kind

    @property
    def token(self):
        return self.task.token

    @property
    def task_id(self):
        return PyBytes_FromStringAndSize(<const char*>self.task.task_id.data(), 24)

    cdef dict details(self):
        cdef TaskDetails d
        if self._details is None:
            self.worker.core.get().DetailsOf(self.task, &d)
            self._details = {
                "actor_id": to_bytes(d.actor_id),
                "job_id": to_bytes(d.job_id),
                "ray_namespace": to_str(d.ray_namespace),
                "caller_address": to_bytes(d.caller_address),
                "was_restarted": d.was_restarted,
                "instances": {to_str(item.first): [(one.first, one.second) for one in item.second] for item in d.instances},
            }
            if self.task.is_actor_creation:
                self._details["actor_options"] = {
                    "name": to_str(d.actor.name),
                    "ray_namespace": to_str(d.actor.ray_namespace),
                    "class_name": to_str(d.actor.class_name),
                    "method_table": to_bytes(d.actor.method_table),
                    "is_async": d.actor.is_async,
                    "allow_out_of_order": d.actor.allow_out_of_order,
                    "max_task_retries": d.actor.max_task_retries,
                    "max_concurrency": d.actor.max_concurrency,
                    "max_pending_calls": d.actor.max_pending_calls,
                    "concurrency_groups": {to_str(item.first): item.second for item in d.actor.concurrency_groups},
                }
        return self._details

    @property
    def actor_id(self):
        return self.details()["actor_id"]

    @property
    def job_id(self):
        return self.details()["job_id"]

    @property
    def ray_namespace(self):
        return self.details()["ray_namespace"]

    @property
    def caller_address(self):
        return self.details()["caller_address"]

    @property
    def exit_reason(self):
        return to_str(self.task.exit_reason)

    @property
    def attempt(self):
        return self.task.attempt

    @property
    def num_returns(self):
        """Number of results to store: what the caller asked for, 1 for dynamic and streaming tasks."""
        return self.task.n_returns

    @property
    def is_actor_creation(self):
        return self.task.is_actor_creation

    @property
    def was_restarted(self):
        return self.details()["was_restarted"]

    @property
    def actor_options(self):
        """Options of the actor being created."""
        return self.details()["actor_options"]

    @property
    def instances(self):
        """Resource -> [(index, amount)] of those with numbered instances."""
        return self.details()["instances"] if self.task.has_instances else _NO_INSTANCES

    def load_args(self):
        """The arguments as (args, kwargs). Raises ArgumentError where a ref among them holds an error."""
        cdef bint failed = False
        cdef size_t i
        cdef ObjectId no_outer
        self.started = ray_perf_counter()
        if not self.task.has_args:
            return _NOTHING
        loaded = unpack(self.task.args, no_outer, self.task.token, &failed)
        self.task.args.blob.reset()  # what needs it holds it
        if failed:
            raise loaded
        if self.task.ref_values.empty():
            return loaded
        args, kwargs, places = loaded
        positional = list(args)
        for i in range(self.task.ref_values.size()):
            value = unpack(self.task.ref_values[i], self.task.refs[i].id, self.task.token, &failed)
            if failed:
                raise ArgumentError(value)
            place = places[i]
            if type(place) is int:
                positional[place] = value
            else:
                kwargs[place] = value
        self.task.ref_values.clear()
        return positional, kwargs

    def set_current(self):
        """The calling thread runs this task from now on."""
        self.worker.core.get().SetCurrentTask(&self.task)

    def is_cancelled(self):
        return self.worker.core.get().IsCancelled(self.task)

    def finish(self, results, *, bint worker_exiting=False, int64_t generator_items=0, repr_name="", bint more_follows=False):
        """Sends results: a sequence with one value for each return id.

        `more_follows`: another call of the same template is about to run on this thread; the reply may leave with that one's.
        """
        cdef TaskOut out
        cdef Packed packed
        cdef list keep = []
        cdef bint all_small = True
        for value in results:
            packed = pack(value)
            keep.append(packed)  # owns the bytes that `out` points to
            all_small = all_small and small(packed.value)
            out.returns.push_back(packed.value)
        all_small = all_small and out.returns.size() <= _MAX_SMALL
        out.worker_exiting = worker_exiting
        out.generator_items = generator_items
        out.more_follows = more_follows
        if repr_name:
            out.repr_name = of_str(repr_name)
        self._send(&out, all_small)

    def finish_one(self, result):
        """As `finish([result])`."""
        cdef TaskOut out
        cdef Packed packed = pack(result)
        out.returns.push_back(packed.value)
        self._send(&out, small(packed.value))

    def finish_error(self, error, *, before=(), bint retryable=False, bint worker_exiting=False, int64_t generator_items=0):
        """Sends a RayTaskError as the value of every return id, but for the first ones where there is something `before` it.

        What cannot be pickled raises, and nothing was sent.
        """
        cdef TaskOut out
        cdef Packed packed
        cdef list keep = []
        for value in before:
            packed = pack(value)
            keep.append(packed)  # owns the bytes that `out` points to
            out.returns.push_back(packed.value)
        packed = pack_error(error)
        out.returns.push_back(packed.value)
        out.is_application_error = True
        out.error_text = of_str(str(error)[-_MAX_ERROR_TEXT:].encode("utf-8", "replace"))
        out.is_retryable_error = retryable
        out.worker_exiting = worker_exiting
        out.generator_items = generator_items
        self._send(&out, False)

    def finish_cancelled(self, error=None, *, int64_t generator_items=0):
        """`error`: a RayTaskError that tells where it was; None: it had not begun."""
        cdef TaskOut out
        cdef Packed packed
        out.cancelled = True
        out.generator_items = generator_items
        if error is not None:
            packed = pack_error(error)
            out.returns.push_back(packed.value)
        self._send(&out, True)

    cdef int _send(self, TaskOut* out, bint keep_gil) except -1:
        cdef Core* core = self.worker.core.get()
        cdef Status status
        if self.started != 0:
            out.run_ns = <uint64_t>((ray_perf_counter() - self.started) * 1e9)
        if keep_gil and self.task.attempt == 0:  # a retry waits for the store to drop what an earlier attempt left
            status = core.FinishTask(self.task, out[0])
        else:
            with nogil:
                status = core.FinishTask(self.task, out[0])
        check(status)
        return 0

    def report_item(self, int64_t index, value):
        """Sends one item of a streaming task; waits while the consumer is behind. Returns whether to stop."""
        cdef Core* core = self.worker.core.get()
        cdef Packed packed = pack(value)
        cdef bool stop = False
        cdef Status status
        with nogil:
            status = core.ReportGeneratorItem(self.task.token, index, packed.value, &stop)
        check(status)
        return stop


def next_task(CoreWorker worker not None, int64_t timeout_ms=-1):
    """The next TaskRun, at once if there is one; None when nothing came in time or a signal arrived."""
    cdef Core* core = worker.core.get()
    cdef TaskRun run = TaskRun.__new__(TaskRun)
    cdef bool ok
    while True:
        if core.TryNextTask(&run.task):
            if not run.task.unprepared:
                break
            with nogil:
                ok = core.PrepareTask(&run.task)
            if ok:
                break
            run = TaskRun.__new__(TaskRun)
            continue
        if timeout_ms == 0:
            return None
        _show(_idle_title)
        with nogil:
            ok = core.WaitForTask(timeout_ms)
        if not ok:
            PyErr_CheckSignals()
            return None
    run.worker = worker
    if run.task.kind == 1:
        run.template = template = _template(core, &run.task)
        _show(template.title)
    return run


def also_wait_for(CoreWorker worker not None, int fd):
    """From now on `next_task` also returns, with None, when something happens at `fd`; see `take_fd_event`."""
    check(worker.alive().AlsoWaitFor(fd))


def take_fd_event(CoreWorker worker not None):
    """Whether something happened at the descriptor of `also_wait_for` since the last call."""
    return worker.core.get().TakeFdEvent()


def clear_current(CoreWorker worker not None):
    """The calling thread runs no task any more."""
    worker.core.get().SetCurrentTask(NULL)


def set_interrupt_thread(CoreWorker worker not None):
    """Cancelled normal tasks interrupt the calling thread with SIGINT."""
    worker.core.get().SetInterruptThread()


def announce_exit(CoreWorker worker not None, reason, bint intended):
    """Tells raylet and GCS that this process leaves; intended: the actor is not restarted."""
    cdef string text = of_str(reason)
    with nogil:
        worker.core.get().AnnounceExit(text, intended)


def next_event(CoreWorker worker not None, int64_t timeout_ms=-1):
    """The next event for the driver as a dict; None at the timeout or after shutdown."""
    cdef Event event
    cdef bool found
    cdef bint failed = False
    cdef ObjectId no_outer
    with nogil:
        found = worker.core.get().NextEvent(timeout_ms, &event)
    if not found:
        return None
    return {
        "kind": event.kind,
        "name": to_str(event.name),
        "text": to_str(event.text),
        "node_ip": to_str(event.node_ip),
        "message_kind": to_str(event.message_kind),
        "pid": event.pid,
        "is_stderr": event.is_stderr,
        "error": unpack(event.error, no_outer, 0, &failed) if event.error.blob else None,
    }
