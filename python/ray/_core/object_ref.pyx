# cython: language_level=3, embedsignature=True
"""`ObjectRef`: a counted handle of an object, and how refs travel inside pickled values.

One handle is one local reference in the core, given back when the handle dies. A ref that is pickled while a value is being written (put,
arguments, results) is noted, so that the core keeps it alive on behalf of that value. Pickled at any other time, nobody could know how
long the bytes live: the object is pinned for the life of this process.
"""
import os

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy
from libcpp.vector cimport vector

from ray._core.cpp.core cimport Address, Core, ObjectId, Ref
from ray._core.ids cimport BaseID

from ray._core.ids import JobID, TaskID

cdef extern from *:
    """
    #include <cstdint>
    #include "ray/common/address.h"
    struct RayPickleState { void* nested; const ray::ObjectId* outer; uint64_t token; };
    static thread_local RayPickleState ray_pickle_state = {nullptr, nullptr, 0};
    """
    cdef struct RayPickleState:
        void* nested
        const ObjectId* outer
        uint64_t token
    RayPickleState ray_pickle_state

cdef Core* _core = NULL
cdef object _worker = None       # the CoreWorker that owns *_core
cdef uint32_t _epoch = 0         # number of the present core; refs of an earlier one are no longer counted
cdef Address _address            # own
cdef dict _pinned = {}           # refs that left through other pickles


cdef void _unpack_address(const char* packed, Address* out) noexcept:
    # 56 bytes: node id and worker id.
    memcpy(out.node_id.mutable_data(), packed, 28)
    memcpy(out.worker_id.mutable_data(), packed + 28, 28)


cdef bytes _pack_address(const Address& address):
    return PyBytes_FromStringAndSize(<const char*>address.node_id.data(), 28) + PyBytes_FromStringAndSize(
        <const char*>address.worker_id.data(), 28)


cdef Core* active():
    return _core


cdef object active_or_none():
    return _worker


cdef void activate(object worker, Core* core):
    global _core, _worker, _epoch, _address
    _core = core
    _worker = worker
    _epoch += 1
    _unpack_address(core.info().address.data(), &_address)


cdef void deactivate(Core* core):
    global _core, _worker
    if _core == core:
        _core = NULL
        _worker = None
        _pinned.clear()


def active_worker():
    """The connected CoreWorker. Raises RaySystemError where there is none."""
    if _worker is None:
        from ray.exceptions import RaySystemError

        raise RaySystemError("Ray has not been started yet. You can start Ray with 'ray.init()'.")
    return _worker


def _after_fork():
    # The child has none of the core's threads, and perhaps a mutex that stays locked for ever.
    global _core, _worker
    _core = NULL
    _worker = None


os.register_at_fork(after_in_child=_after_fork)


cdef PickleState state():
    cdef PickleState now
    now.nested, now.outer, now.token = ray_pickle_state.nested, ray_pickle_state.outer, ray_pickle_state.token
    return now


cdef PickleState begin_pickling(list nested):
    cdef PickleState before = state()
    ray_pickle_state.nested = <void*>nested
    return before


cdef PickleState begin_unpickling(const ObjectId* outer, uint64_t token):
    cdef PickleState before = state()
    ray_pickle_state.outer = outer
    ray_pickle_state.token = token
    return before


cdef void end(PickleState before):
    ray_pickle_state.nested, ray_pickle_state.outer, ray_pickle_state.token = before.nested, before.outer, before.token


cdef int to_refs(object refs, vector[Ref]* out) except -1:
    out.reserve(len(refs))
    for item in refs:
        out.push_back((<ObjectRef?>item).ref())
    return 0


cdef uint32_t _groups = 0  # number of the last group


def distinct(list refs not None):
    """Whether all of `refs` are ObjectRefs. Raises ValueError if one occurs twice among them.

    A loop that waits for the rest of the same refs again and again must not pay for hashing them each time. So handles that were found to differ
    keep the number of that call and their place in it: a list of handles with the same number and rising places has no duplicate.
    """
    global _groups
    cdef ObjectRef ref
    cdef uint32_t group = 0
    cdef uint32_t place = 0
    cdef bint known = True
    cdef Py_ssize_t i
    for i in range(len(refs)):
        item = refs[i]
        if type(item) is not ObjectRef and not isinstance(item, ObjectRef):
            return False
        ref = <ObjectRef>item
        if i == 0:
            group = ref.group
        elif ref.group != group or ref.place <= place:
            known = False
        place = ref.place
    if known and group != 0:
        return True
    if len(set(refs)) != len(refs):
        raise ValueError("Wait requires a list of unique ray_waitables.")
    _groups = _groups + 1 if _groups < 0xFFFFFFFFu else 1
    for i in range(len(refs)):
        ref = <ObjectRef>refs[i]
        ref.group = _groups
        ref.place = <uint32_t>i
    return True


cdef ObjectRef adopt(const ObjectId& object_id):
    cdef ObjectRef made = ObjectRef.__new__(ObjectRef)
    made.assign(object_id.data(), 28)
    made.epoch = _epoch
    return made


def note_nested(ObjectRef ref not None):
    """Says that the value being pickled holds `ref`; pinned if no value is being pickled."""
    if ray_pickle_state.nested != NULL:
        (<list>ray_pickle_state.nested).append(ref)
    else:
        _pin(ref)


cdef int _pin(ObjectRef ref) except -1:
    if os.environ.get("RAY_allow_out_of_band_object_ref_serialization", "1") in ("0", "false", "False"):
        from ray.exceptions import OufOfBandObjectRefSerializationException

        raise OufOfBandObjectRefSerializationException(
            f"{ref!r} would be pickled outside of ray.put, task arguments and results, where Ray cannot count it. "
            "Pass it as an argument, or allow this with RAY_allow_out_of_band_object_ref_serialization=1."
        )
    _pinned.setdefault(ref, ref)
    return 0


def borrow(bytes object_id not None, bytes owner not None):
    """Adds a borrowed ref met while reading a value (or out of band), and returns its counted handle."""
    cdef ObjectRef made = ObjectRef.__new__(ObjectRef)
    cdef Ref ref
    cdef ObjectId outer
    if PyBytes_GET_SIZE(object_id) != 28 or PyBytes_GET_SIZE(owner) not in (0, 56):
        raise ValueError("not the parts of an ObjectRef")
    made.assign(PyBytes_AS_STRING(object_id), 28)
    ref.owner = _address
    if PyBytes_GET_SIZE(owner) == 56:
        _unpack_address(PyBytes_AS_STRING(owner), &ref.owner)
    if not (ref.owner == _address):
        made.owner = new Address(ref.owner)
    if _core != NULL:
        ref.id = made.id()
        if ray_pickle_state.outer != NULL:
            outer = ray_pickle_state.outer[0]
        _core.AddBorrowedRef(ref, outer, ray_pickle_state.token)
        made.epoch = _epoch
    return made


def borrow_handle(bytes object_id not None, bytes owner not None):
    """As `borrow`, for the object that counts the handles of an actor; the count is taken over by `adopt_handle`."""
    cdef ObjectRef made = borrow(object_id, owner)
    made.epoch = 0


def adopt_handle(bytes object_id not None):
    """The counted handle of a ref that was counted before for it."""
    cdef ObjectId id
    if PyBytes_GET_SIZE(object_id) != 28:
        raise ValueError("not the id of an object")
    memcpy(id.mutable_data(), PyBytes_AS_STRING(object_id), 28)
    return adopt(id)


cdef int _refuse(ObjectRef ref) except -1:
    # Its owner is gone, and its id may be that of another object by now: ids of jobs begin anew with each session.
    raise ValueError(
        f"{ref!r} is of an earlier Ray session, which ended with ray.shutdown(). Objects do not outlive the session they were made in."
    )


cdef class ObjectRef(BaseID):
    """A reference to an object that exists or will exist. Equal refs name the same object."""

    SIZE = 28

    cdef ObjectId id(self):
        cdef ObjectId made
        memcpy(made.mutable_data(), self.data, 28)
        return made

    cdef Ref ref(self) except *:
        cdef Ref made
        if self.epoch != _epoch and self.epoch != 0 and _core != NULL:
            _refuse(self)
        memcpy(made.id.mutable_data(), self.data, 28)
        if self.owner != NULL:
            made.owner = self.owner[0]
        return made

    def __dealloc__(self):
        if self.epoch != 0 and self.epoch == _epoch and _core != NULL:
            _core.RemoveLocalRef(self.id())
        if self.owner != NULL:
            del self.owner

    @classmethod
    def __class_getitem__(cls, item):
        return cls

    @classmethod
    def from_hex(cls, hex_id):
        if cls is ObjectRef:  # for good, and of Ray's type: a ref is made by who counts it
            raise NotImplementedError("an ObjectRef cannot be made from its id alone: nobody would know its owner")
        return super().from_hex(hex_id)

    def __iter__(self):
        raise TypeError("'ray._raylet.ObjectRef' object is not iterable; use ray.get to have its value")

    def task_id(self):
        return TaskID(self.raw()[:24])

    def job_id(self):
        return JobID(self.raw()[20:24])

    def owner_address(self):
        """The owner's 56 bytes: node id and worker id."""
        return _pack_address(_address if self.owner == NULL else self.owner[0])

    def call_site(self):
        """Where it was made, if the setting record_ref_creation_sites says so; else empty."""
        from ray._core import creation_sites

        return creation_sites.of(self.raw())

    def tensor_transport(self):
        return None

    def __reduce__(self):
        if ray_pickle_state.nested != NULL:
            (<list>ray_pickle_state.nested).append(self)
        else:
            _pin(self)
        cdef Address owner
        if self.owner != NULL:
            owner = self.owner[0]
        elif _core != NULL:
            owner = _core.OwnerOf(self.id())
            if owner.IsNil():
                owner = _address
        return borrow, (self.raw(), _pack_address(owner))

    def __await__(self):
        from ray._core import completion

        return completion.wait_for(self).__await__()

    def as_future(self, _internal=False):
        """An asyncio future of the running loop with the value."""
        from ray._core import completion

        return completion.wait_for(self)

    def future(self):
        """A `concurrent.futures.Future` with the value. Cancelling it does not cancel the task."""
        from ray._core import completion

        return completion.threaded_future(self)

    def _on_completed(self, callback):
        from ray._core import completion

        completion.on_completed(self, callback)

    def _on_ready(self, callback):
        from ray._core import completion

        return completion.on_ready(self, callback)

    async def _ready(self):
        from ray._core import completion

        await completion.wait_ready(self)
