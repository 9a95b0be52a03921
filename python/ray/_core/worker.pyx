# cython: language_level=3, embedsignature=True
"""`CoreWorker`: the connection of this process to Ray. Objects, tasks and actors; see `executor` for running tasks and `gcs` for tables.

The GIL stays where the core promises not to block, and for small values, where giving it up costs more than the call and could cost a whole
switch interval to have it back. The core's threads never take it.
"""
cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.string cimport memcpy
from libcpp cimport bool
from libcpp.map cimport map
from libcpp.memory cimport unique_ptr
from libcpp.string cimport string
from libcpp.utility cimport pair
from libcpp.vector cimport vector

from ray._core.cpp.core cimport (
    ActorId,
    ActorOptions,
    CompletionQueue,
    Core,
    CoreInfo,
    CoreOptions,
    GetStatus,
    ObjectId,
    ObjectPlace,
    Ref,
    Status,
    StatusCode,
    TemplateOptions,
    ValueIn,
    ValueOut,
)
from ray._core.object_ref cimport ObjectRef, activate, adopt, deactivate, to_refs
from ray._core.status cimport check
from ray._core.values cimport Packed, pack, pack_args, pack_error, unpack

cdef extern from *:
    """
    #include <chrono>
    static double ray_monotonic() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }
    """
    double ray_monotonic() nogil

cdef Packed _NO_ARGS = Packed.__new__(Packed)
cdef int64_t _KEEP_GIL_BELOW = 100 << 10  # bytes, and below what goes to the store, where a value may wait for room
cdef size_t _keep_gil_below = _KEEP_GIL_BELOW  # of the active core
cdef size_t _LAID_AROUND = 64  # bytes; more than what the core lays around a pickle without buffers
cdef double _SLOW_GET_S = 10.0


cdef bytes to_bytes(const string& data):
    return PyBytes_FromStringAndSize(data.data(), data.size())


cdef str to_str(const string& data):
    return PyBytes_FromStringAndSize(data.data(), data.size()).decode("utf-8", "replace")


cdef string of_str(object text) except *:
    cdef bytes raw = text if isinstance(text, bytes) else (<str?>text).encode()
    cdef string made
    made.assign(PyBytes_AS_STRING(raw), PyBytes_GET_SIZE(raw))
    return made


cdef bint small(const ValueIn& value):
    return value.buffers.empty() and value.size + _LAID_AROUND < _keep_gil_below


cdef int64_t _to_ms(object timeout) except? -2:
    if timeout is None or timeout < 0:
        return -1
    return <int64_t>min(timeout * 1000.0 + 0.999, 9e15)


cdef map[string, string] _labels(dict labels) except *:
    cdef map[string, string] made
    for name, value in labels.items():
        made[of_str(name)] = of_str(value)
    return made


cdef int _fill_template(TemplateOptions* o, dict fields) except -1:
    for key, value in fields.items():
        if key == "type": o.type = value
        elif key == "function_id": o.function_id = of_str(value)
        elif key == "function_name": o.function_name = of_str(value)
        elif key == "method_name": o.method_name = of_str(value)
        elif key == "name": o.name = of_str(value)
        elif key == "runtime_env": o.runtime_env = of_str(value)
        elif key == "concurrency_group": o.concurrency_group = of_str(value)
        elif key == "resources":
            for name, amount in value.items():
                o.resources[of_str(name)] = amount
        elif key == "num_returns": o.num_returns = value
        elif key == "max_retries": o.max_retries = value
        elif key == "retry_exceptions": o.retry_exceptions = value
        elif key == "retry_exception_allowlist": o.retry_exception_allowlist = of_str(value)
        elif key == "max_calls": o.max_calls = value
        elif key == "strategy_kind": o.strategy_kind = value
        elif key == "strategy_node_id": o.strategy_node_id = of_str(value)
        elif key == "strategy_placement_group_id": o.strategy_placement_group_id = of_str(value)
        elif key == "strategy_soft": o.strategy_soft = value
        elif key == "strategy_capture_child_tasks": o.strategy_capture_child_tasks = value
        elif key == "strategy_spill_on_unavailable": o.strategy_spill_on_unavailable = value
        elif key == "strategy_fail_on_unavailable": o.strategy_fail_on_unavailable = value
        elif key == "strategy_bundle_index": o.strategy_bundle_index = value
        elif key == "strategy_selectors":
            for selector in value:
                o.strategy_selectors.push_back(_labels(selector))
        elif key == "strategy_preferred": o.strategy_preferred = _labels(value)
        elif key == "priority": o.priority = value
        elif key == "generator_backpressure": o.generator_backpressure = value
        elif key == "timeout_s": o.timeout_s = value
        elif key == "out_of_order": o.out_of_order = value
        elif key == "retry_timeouts": o.retry_timeouts = value
        elif key == "omit_task_events": o.omit_task_events = value
        elif key == "objects_per_yield": o.objects_per_yield = value
        elif key == "shared_backpressure": o.shared_backpressure = value
        else: raise TypeError(f"a task template has no field {key!r}")
    return 0


cdef int _fill_actor(ActorOptions* o, dict fields) except -1:
    for key, value in fields.items():
        if key == "name": o.name = of_str(value)
        elif key == "ray_namespace": o.ray_namespace = of_str(value)
        elif key == "class_name": o.class_name = of_str(value)
        elif key == "method_table": o.method_table = of_str(value)
        elif key == "detached": o.detached = value
        elif key == "is_async": o.is_async = value
        elif key == "allow_out_of_order": o.allow_out_of_order = value
        elif key == "max_restarts": o.max_restarts = value
        elif key == "max_task_retries": o.max_task_retries = value
        elif key == "max_concurrency": o.max_concurrency = value
        elif key == "max_pending_calls": o.max_pending_calls = value
        elif key == "concurrency_groups":
            for name, limit in value:
                o.concurrency_groups.push_back(pair[string, int32_t](of_str(name), <int32_t>limit))
        elif key == "placement_resources":
            for name, amount in value.items():
                o.placement_resources[of_str(name)] = amount
        else: raise TypeError(f"an actor has no option {key!r}")
    return 0


cdef tuple _split(list refs, vector[Py_ssize_t]* found):
    # The refs at the positions `found`, which ascend, and the others; runs of others are copied as a whole.
    cdef list ready = []
    cdef list rest = None
    cdef Py_ssize_t start = 0
    cdef Py_ssize_t at
    cdef size_t i
    for i in range(found.size()):
        at = found[0][i]
        ready.append(refs[at])
        if at > start:
            if rest is None:
                rest = refs[start:at]
            else:
                rest.extend(refs[start:at])
        start = at + 1
    if rest is None:
        rest = refs[start:]
    elif start < len(refs):
        rest.extend(refs[start:])
    return ready, rest


@cython.final
@cython.no_gc_clear  # the core has to be there for the return of the handle
cdef class Template:
    """What the calls of a function, method or class with the same options share, as its process's core knows it."""

    def __init__(self):
        raise TypeError("made by CoreWorker.register_template")

    def __dealloc__(self):
        if self.worker is not None:
            self.worker.core.get().ReleaseTemplate(self.handle)


cdef class CoreWorker:
    """This process as a member of the cluster. Made by `start`; safe to use from any thread."""

    def __init__(self):
        raise TypeError("use CoreWorker.start")

    @staticmethod
    def start(*, bint is_driver, session_dir, worker_id=b"", uint64_t startup_token=0, job_id=b"", ray_namespace="", entrypoint="",
              job_config_json="", log_file="", log_level="INFO", python_version="", max_inline_bytes=None, lineage_cap_bytes=None, oom_retries=None,
              oom_backoff_ms=None, gcs_timeout_ms=None, max_ended_tasks=None, bint is_observer=False, rpc_faults="", uint64_t rpc_faults_seed=0):
        """Connects to the raylet of `session_dir`. Raises an error of `ray.exceptions` when nobody answers.

        An observer can be asked for tables, and is beside whatever else this process is: refs and `active_worker` stay those of the other core.
        """
        global _keep_gil_below
        cdef CoreWorker made = CoreWorker.__new__(CoreWorker)
        cdef CoreOptions o
        cdef Status status
        o.is_driver = is_driver
        o.is_observer = is_observer
        o.session_dir = of_str(session_dir)
        o.worker_id = of_str(worker_id)
        o.startup_token = startup_token
        o.job_id = of_str(job_id)
        o.ray_namespace = of_str(ray_namespace)
        o.entrypoint = of_str(entrypoint)
        o.job_config_json = of_str(job_config_json)
        o.log_file = of_str(log_file)
        o.log_level = of_str(log_level)
        o.python_version = of_str(python_version)
        o.rpc_faults = of_str(rpc_faults)
        o.rpc_faults_seed = rpc_faults_seed
        if max_inline_bytes is not None:
            o.max_inline_bytes = max_inline_bytes
        if lineage_cap_bytes is not None:
            o.lineage_cap_bytes = lineage_cap_bytes
        if oom_retries is not None:
            o.oom_retries = oom_retries
        if oom_backoff_ms is not None:
            o.oom_backoff_ms = oom_backoff_ms
        if gcs_timeout_ms is not None:
            o.gcs_timeout_ms = gcs_timeout_ms
        if max_ended_tasks is not None:
            o.max_ended_tasks = max_ended_tasks
        with nogil:
            status = Core.Start(o, &made.core)
        check(status)
        cdef const CoreInfo* info = &made.core.get().info()
        made.info = {
            "worker_id": to_bytes(info.worker_id),
            "node_id": to_bytes(info.node_id),
            "job_id": to_bytes(info.job_id),
            "address": to_bytes(info.address),
            "node_ip": to_str(info.node_ip),
            "session_dir": to_str(info.session_dir),
            "session_name": to_str(info.session_name),
            "gcs_address": to_str(info.gcs_address),
            "config_json": to_str(info.config_json),
            "job_known": info.job_known,
            "job_namespace": to_str(info.job_namespace),
            "job_config_json": to_str(info.job_config_json),
        }
        if not is_observer:
            _keep_gil_below = <size_t>min(_KEEP_GIL_BELOW, max(0, o.max_inline_bytes))
            activate(made, made.core.get())
        return made

    def shutdown(self, reason="shutdown"):
        """Leaves the cluster in good order; blocked callers get an error. Idempotent."""
        cdef string text = of_str(reason)
        if self.closed:
            return
        self.closed = True
        deactivate(self.core.get())
        with nogil:
            self.core.get().Shutdown(text)
        told, self.on_shutdown = self.on_shutdown, None
        if told is not None:
            told()

    cdef Core* alive(self) except NULL:
        if self.closed:
            from ray.exceptions import RaySystemError

            raise RaySystemError("Ray was shut down in this process.")
        return self.core.get()

    # --- objects

    def note_site(self, ObjectRef ref not None, str site not None):
        """Where in the program `ref` was made, for those who ask all processes for their refs."""
        self.alive().NoteCreationSite(ref.id(), of_str(site.encode()))

    def put(self, value):
        """Stores a value, owned by this process."""
        return self._put(pack(value))

    def put_error(self, error):
        """Stores a RayTaskError, owned by this process, so that getting it raises."""
        return self._put(pack_error(error))

    cdef ObjectRef _put(self, Packed packed):
        cdef Core* core = self.alive()
        cdef ObjectId object_id
        cdef Status status
        if small(packed.value):
            status = core.Put(packed.value, &object_id)
        else:
            with nogil:
                status = core.Put(packed.value, &object_id)
        check(status)
        return adopt(object_id)

    def get(self, list refs not None, timeout=None):
        """The values of `refs`, in order.

        Raises the first error found among them; GetTimeoutError after `timeout` seconds; TypeError where one is no ref.
        """
        cdef Core* core = self.alive()
        cdef list results = [None] * len(refs)
        cdef vector[Ref] pending
        cdef vector[Py_ssize_t] places
        cdef Py_ssize_t i
        cdef ObjectRef ref
        for i in range(len(refs)):
            item = refs[i]
            if not isinstance(item, ObjectRef):
                raise TypeError(f"Attempting to call `get` on the value {item!r}, which is not a ray.ObjectRef.")
            ref = <ObjectRef>item
            if not self._try(core, ref, i, results):
                pending.push_back(ref.ref())
                places.push_back(i)
        if not pending.empty():
            self._get_blocking(core, &pending, &places, refs, results, timeout)
        return results

    def get_one(self, ObjectRef ref not None, timeout=None):
        """As `get` of one."""
        cdef Core* core = self.alive()
        cdef ValueOut value
        cdef bint failed
        cdef vector[Ref] pending
        cdef vector[Py_ssize_t] places
        cdef list results
        if core.TryGet(ref.ref(), &value):
            result = unpack(value, ref.id(), 0, &failed)
            if failed:
                raise result
            return result
        results = [None]
        pending.push_back(ref.ref())
        places.push_back(0)
        self._get_blocking(core, &pending, &places, [ref], results, timeout)
        return results[0]

    cdef bint _try(self, Core* core, ObjectRef ref, Py_ssize_t i, list results) except -1:
        cdef ValueOut value
        cdef bint failed
        if not core.TryGet(ref.ref(), &value):
            return False
        results[i] = unpack(value, ref.id(), 0, &failed)
        if failed:
            raise results[i]
        return True

    cdef int _get_blocking(self, Core* core, vector[Ref]* pending, vector[Py_ssize_t]* places, list refs, list results, timeout) except -1:
        cdef vector[ValueOut] out
        cdef GetStatus status
        cdef int64_t wait_ms
        cdef size_t before
        cdef double now = ray_monotonic()
        cdef double deadline = now + timeout if timeout is not None and timeout >= 0 else 1e300
        cdef double slow_at = now + _SLOW_GET_S if self.on_slow_get is not None else 1e300
        while not pending.empty():
            wait_ms = -1 if min(deadline, slow_at) == 1e300 else _to_ms(max(0.0, min(deadline, slow_at) - now))
            out.clear()
            with nogil:
                status = core.Get(pending[0], wait_ms, &out)
            if status == GetStatus.kInterrupted:
                PyErr_CheckSignals()
            before = pending.size()
            self._take(pending, places, &out, results)
            now = ray_monotonic()
            if pending.empty():
                break
            self.alive()  # a shutdown wakes whoever waits
            if now >= deadline:
                from ray.exceptions import GetTimeoutError

                raise GetTimeoutError(f"Get timed out: {pending.size()} of {len(refs)} object(s) not ready.")
            if now >= slow_at:
                slow_at = 1e300
                self.on_slow_get([refs[place] for place in places[0]])
            if status == GetStatus.kReady and pending.size() == before:
                from ray.exceptions import RaySystemError

                raise RaySystemError("the core reported objects as ready without their values")
        return 0

    cdef int _take(self, vector[Ref]* pending, vector[Py_ssize_t]* places, vector[ValueOut]* out, list results) except -1:
        # Moves what arrived to `results` and keeps the rest pending.
        cdef size_t i
        cdef size_t kept = 0
        cdef bint failed
        cdef Py_ssize_t place
        for i in range(pending.size()):
            if i < out.size() and not out[0][i].metadata.empty():
                place = places[0][i]
                results[place] = unpack(out[0][i], pending[0][i].id, 0, &failed)
                if failed:
                    raise results[place]
            else:
                if kept != i:
                    pending[0][kept] = pending[0][i]
                    places[0][kept] = places[0][i]
                kept += 1
        pending.resize(kept)
        places.resize(kept)
        return 0

    def try_get(self, ObjectRef ref not None):
        """(ready, value or exception, whether it is an exception), without waiting."""
        cdef Core* core = self.alive()
        cdef ValueOut value
        cdef bint failed = False
        if not core.TryGet(ref.ref(), &value):
            return False, None, False
        result = unpack(value, ref.id(), 0, &failed)
        return True, result, failed

    def wait(self, list refs not None, int32_t num_returns, timeout=None, bint fetch_local=True):
        """Splits `refs` into at most `num_returns` that are ready and the rest, both in their order."""
        cdef Core* core = self.alive()
        cdef vector[Py_ssize_t] found
        cdef vector[Ref] all_refs
        cdef vector[bool] ready
        cdef Py_ssize_t i
        cdef GetStatus status
        cdef int64_t wait_ms
        cdef double deadline
        # Enough of them are ready more often than not, and near the front: then the rest is not looked at.
        for i in range(len(refs)):
            if core.IsReady((<ObjectRef?>refs[i]).id()):
                found.push_back(i)
                if found.size() >= <size_t>num_returns:
                    return _split(refs, &found)
        wait_ms = _to_ms(timeout)
        deadline = ray_monotonic() + timeout if wait_ms >= 0 else 0
        to_refs(refs, &all_refs)
        while True:
            with nogil:
                status = core.Wait(all_refs, num_returns, wait_ms, fetch_local, &ready)
            if status != GetStatus.kInterrupted:
                break
            PyErr_CheckSignals()
            if wait_ms >= 0:
                wait_ms = _to_ms(max(0.0, deadline - ray_monotonic()))
            ready.clear()
        found.clear()
        for i in range(<Py_ssize_t>ready.size()):
            if ready[i]:
                found.push_back(i)
        return _split(refs, &found)

    def get_locations(self, list refs not None, int64_t timeout_ms=-1, bint only_known=False):
        """A list of (node ids, size, spilled); a size of -1 is unknown. `only_known`: without the owners."""
        cdef Core* core = self.alive()
        cdef vector[Ref] all_refs
        cdef vector[ObjectPlace] places
        cdef Status status
        to_refs(refs, &all_refs)
        with nogil:
            status = core.GetLocations(all_refs, timeout_ms, only_known, &places)
        check(status)
        return [([to_bytes(node) for node in place.node_ids], place.size, place.spilled) for place in places]

    # --- tasks and actors

    def register_template(self, dict fields not None):
        """The static part of tasks; see TemplateOptions for the fields."""
        cdef Core* core = self.alive()
        cdef TemplateOptions options
        cdef Template template = Template.__new__(Template)
        _fill_template(&options, fields)
        check(core.RegisterTemplate(options, &template.handle))
        template.worker = self
        return template

    cdef list submit_call(self, bytes actor_id, uint64_t template, tuple args, dict kwargs):
        """The refs of its results. `actor_id`: 16 bytes, or None for a task. Raises PendingCallsLimitExceeded."""
        cdef Core* core = self.alive()
        cdef Packed packed = pack_args(args, kwargs) if args or kwargs else _NO_ARGS
        cdef ActorId actor
        cdef vector[ObjectId] ids
        cdef Status status
        cdef size_t i
        cdef list refs
        if actor_id is not None:
            if PyBytes_GET_SIZE(actor_id) != 16:
                raise ValueError("not the id of an actor")
            memcpy(actor.mutable_data(), PyBytes_AS_STRING(actor_id), 16)
            if small(packed.value):
                status = core.SubmitActorTask(actor, template, packed.value, packed.refs, &ids)
            else:
                with nogil:
                    status = core.SubmitActorTask(actor, template, packed.value, packed.refs, &ids)
        elif small(packed.value):
            status = core.SubmitTask(template, packed.value, packed.refs, &ids)
        else:
            with nogil:
                status = core.SubmitTask(template, packed.value, packed.refs, &ids)
        if not status.ok():
            if status.code() == StatusCode.kResourceExhausted and status.cause() < 0:
                from ray.exceptions import PendingCallsLimitExceeded

                raise PendingCallsLimitExceeded(to_str(status.message()))
            check(status)
        refs = []
        for i in range(ids.size()):
            refs.append(adopt(ids[i]))
        return refs

    def create_actor(self, Template template not None, dict options not None, tuple args not None, dict kwargs not None):
        """Starts an actor and returns its id; its handle ref is counted once. Raises ActorAlreadyExistsError."""
        cdef Core* core = self.alive()
        cdef Packed packed = pack_args(args, kwargs)
        cdef ActorOptions o
        cdef uint64_t handle = template.handle
        cdef string actor_id
        cdef Status status
        if template.worker is not self:
            raise ValueError("the template is of another session")
        _fill_actor(&o, options)
        with nogil:
            status = core.CreateActor(handle, o, packed.value, packed.refs, &actor_id)
        if not status.ok() and status.code() == StatusCode.kAlreadyExists:
            from ray.exceptions import ActorAlreadyExistsError

            raise ActorAlreadyExistsError(to_str(status.message()))
        check(status)
        return to_bytes(actor_id)

    def register_actor_handle(self, bytes actor_id not None, bytes owner not None, dict options not None):
        """Makes an actor known whose handle came from elsewhere."""
        cdef ActorOptions o
        _fill_actor(&o, options)
        self.alive().RegisterActorHandle(of_str(actor_id), of_str(owner), o)

    def kill_actor(self, bytes actor_id not None, bint no_restart=True):
        cdef Core* core = self.alive()
        cdef string actor = of_str(actor_id)
        cdef Status status
        with nogil:
            status = core.KillActor(actor, no_restart)
        check(status)

    def cancel(self, ObjectRef ref not None, bint force=False, bint recursive=True):
        """Cancels the task that makes `ref`. Raises ValueError where that is not possible."""
        cdef Core* core = self.alive()
        cdef Ref target = ref.ref()
        cdef Status status
        with nogil:
            status = core.CancelTask(target, force, recursive)
        check(status)

    # --- streaming generators, consumer side

    def next_generator_item(self, ObjectRef generator not None, timeout=None):
        """(True, ref), or (True, None) at the end of the stream, or (False, None) after `timeout` seconds."""
        cdef Core* core = self.alive()
        cdef ObjectId object_id
        cdef GetStatus status
        cdef int64_t wait_ms = _to_ms(timeout)
        cdef double deadline = ray_monotonic() + timeout if wait_ms >= 0 else 0
        cdef ObjectId generator_id = generator.id()
        while True:
            with nogil:
                status = core.NextGeneratorItem(generator_id, wait_ms, &object_id)
            if status == GetStatus.kReady:
                self.alive()
                return True, None if object_id.IsNil() else adopt(object_id)
            if status == GetStatus.kTimeout:
                return False, None
            PyErr_CheckSignals()
            if wait_ms >= 0:
                wait_ms = _to_ms(max(0.0, deadline - ray_monotonic()))

    def release_generator(self, ObjectRef generator not None):
        """Drops the items nobody took and tells the producer to stop."""
        if not self.closed:
            self.core.get().ReleaseGenerator(generator.id())

    def poll_fd(self):
        """A descriptor that is readable while there is something to read for this process, by `poll` or by whoever else waits."""
        return self.core.get().PollFd()

    def poll(self):
        """Reads what is there for this process, if nobody else does right now."""
        if not self.closed:
            self.core.get().Poll()

    def completion_queue(self):
        """A fresh queue for `watch`."""
        cdef Completions made = Completions.__new__(Completions)
        made.worker = self
        check(self.alive().NewCompletionQueue(&made.queue))
        return made


@cython.no_gc_clear
cdef class Completions:
    """Objects that became ready, as numbers; `fd` is readable when there are some."""

    cdef unique_ptr[CompletionQueue] queue
    cdef CoreWorker worker  # which outlives the queue, also where both are garbage of one cycle

    def fd(self):
        return self.queue.get().fd()

    def watch(self, ObjectRef ref not None, uint64_t token):
        """`token`, which nothing else waits for, comes out once the object is ready or has failed."""
        self.worker.alive()
        self.queue.get().WatchObject(ref.ref(), token)

    def watch_generator(self, ObjectRef generator not None, uint64_t token):
        """The same, once the next item, or the end, is known."""
        self.worker.alive()
        self.queue.get().WatchGenerator(generator.id(), token)

    def unwatch(self, uint64_t token):
        """Forgets what `token` waits for. It may have come all the same."""
        self.queue.get().Unwatch(token)

    def drain(self):
        return list(self.queue.get().Drain())

    def wait_drain(self, int64_t timeout_ms=-1):
        """Blocks; an empty list at the timeout or after `close`."""
        cdef vector[uint64_t] tokens
        with nogil:
            tokens = self.queue.get().WaitDrain(timeout_ms)
        return list(tokens)

    def close(self):
        """Forgets what it waits for, and ends every `wait_drain`."""
        self.queue.get().Close()
