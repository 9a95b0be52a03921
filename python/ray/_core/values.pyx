# cython: language_level=3, embedsignature=True
"""Python values as the core stores them, and back.

Built-in scalars and small containers of them go through the C pickler at once, which is what most arguments and results are. All other
values take the pickler that `ray._serialization` registers here, with buffers out of band.
"""
import pickle

from cpython.buffer cimport Py_buffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.memoryview cimport PyMemoryView_FromMemory, PyMemoryView_GET_BUFFER
from libc.stdint cimport uint64_t
from libcpp.string cimport string
from libcpp.vector cimport vector

from ray._core.buffer cimport wrap
from ray._core.cpp.core cimport BufferPtr, ErrorFields, ObjectId, ParseError, ParsePythonBlob, Ref, Span, Status, ValueIn, ValueOut
from ray._core.object_ref cimport ObjectRef, PickleState, begin_pickling, begin_unpickling, end
from ray._core.status cimport check

cdef object _dumps = pickle.dumps
cdef object _loads = pickle.loads
cdef object _slow_dumps = None   # (value, buffer_callback) -> bytes
cdef object _make_error = None   # (fields: dict, object id hex) -> exception
cdef object _load_failed = None  # (exception) -> exception

cdef string _RAW = b"RAW"
cdef string _PYTHON = b"PYTHON"
cdef string _TASK_ERROR = b"3"
cdef Py_ssize_t _COPY_LIMIT = 4096  # pickles up to this are copied: cheaper than a memoryview


def register(slow_dumps, make_error, load_failed):
    """Sets how `ray._serialization` pickles what is not plain, and how errors are made."""
    global _slow_dumps, _make_error, _load_failed
    _slow_dumps, _make_error, _load_failed = slow_dumps, make_error, load_failed


cdef bint _plain(object value, int* budget):
    # Whether the C pickler alone gives the right bytes: only exact built-in types, and few of them, since looking costs too.
    cdef type cls = type(value)
    budget[0] -= 1
    if budget[0] < 0:
        return False
    if cls is int or cls is float or cls is str or cls is bool or value is None or cls is bytes:
        return True
    if cls is tuple:
        for item in <tuple>value:
            if not _plain(item, budget):
                return False
        return True
    if cls is list:
        for item in <list>value:
            if not _plain(item, budget):
                return False
        return True
    if cls is dict:
        for key, item in (<dict>value).items():
            if not _plain(key, budget) or not _plain(item, budget):
                return False
        return True
    return False


cdef class Packed:
    """A value ready to be stored or sent."""

    cdef size_t total(self):
        cdef size_t size = self.value.size
        for i in range(self.value.buffers.size()):
            size += self.value.buffers[i].second
        return size

    @property
    def metadata(self):
        return self.value.metadata.decode()

    @property
    def data(self):
        return self.pickled

    @property
    def buffers(self):
        return self.exported or []

    def nested_ids(self):
        return [
            PyBytes_FromStringAndSize(<const char*>self.value.nested[i].id.data(), 28) for i in range(self.value.nested.size())
        ]


cdef int _set_data(Packed packed, object pickled) except -1:
    packed.pickled = pickled
    packed.value.data = PyBytes_AS_STRING(pickled)
    packed.value.size = PyBytes_GET_SIZE(pickled)
    return 0


cdef Packed _pack_pickled(object value, const string& metadata):
    cdef Packed packed = Packed.__new__(Packed)
    cdef int budget = 32
    cdef list nested, views
    cdef PickleState before
    cdef Py_buffer* view
    packed.value.metadata = metadata
    if _plain(value, &budget):
        _set_data(packed, _dumps(value, 5))
        return packed
    nested = []
    views = []
    before = begin_pickling(nested)
    try:
        _set_data(packed, _slow_dumps(value, views))
    finally:
        end(before)
    if views:
        packed.exported = views
        packed.value.buffers.reserve(len(views))
        for item in views:
            view = PyMemoryView_GET_BUFFER(item)
            packed.value.buffers.push_back(Span(<const char*>view.buf, view.len))
    for item in nested:
        packed.value.nested.push_back((<ObjectRef>item).ref())
    return packed


cdef Packed pack(object value):
    cdef Packed packed
    if type(value) is bytes:
        packed = Packed.__new__(Packed)
        packed.value.metadata = _RAW
        _set_data(packed, value)
        return packed
    return _pack_pickled(value, _PYTHON)


cdef Packed pack_error(object error):
    """`error` is a RayTaskError."""
    return _pack_pickled(error, _TASK_ERROR)


cdef Packed pack_args(tuple args, dict kwargs):
    """Top-level refs leave the arguments; their places follow as a third entry: indices, and names of keywords."""
    cdef Packed packed
    cdef list places = None
    cdef list positional = None
    cdef vector[Ref] refs
    cdef Py_ssize_t i
    if not args and not kwargs:
        return Packed.__new__(Packed)
    for i in range(len(args)):
        item = args[i]
        if isinstance(item, ObjectRef):
            if places is None:
                places = []
            if positional is None:
                positional = list(args)
            places.append(i)
            positional[i] = None
            refs.push_back((<ObjectRef>item).ref())
    if positional is not None:
        args = tuple(positional)
    if kwargs:
        named = kwargs
        for key, item in kwargs.items():
            if isinstance(item, ObjectRef):
                if places is None:
                    places = []
                if named is kwargs:
                    named = dict(kwargs)
                places.append(key)
                named[key] = None
                refs.push_back((<ObjectRef>item).ref())
        kwargs = named
    if places is None:
        return _pack_pickled((args, kwargs), _PYTHON)
    packed = _pack_pickled((args, kwargs, places), _PYTHON)
    packed.refs.swap(refs)
    return packed


def serialize(value):
    """The value as the core would store it."""
    return pack(value)


def deserialize(Packed packed not None):
    """The inverse of `serialize` within one process, for tests; refs inside are counted anew."""
    if packed.value.metadata == _RAW:
        return packed.pickled
    return _loads(packed.pickled, buffers=packed.exported or ())


cdef object _load_pickle(const ValueOut& value, const ObjectId& outer, uint64_t token):
    cdef Span span = value.pickle
    cdef PickleState before
    cdef list buffers
    if <Py_ssize_t>span.second <= _COPY_LIMIT:
        data = PyBytes_FromStringAndSize(span.first, span.second)
    else:
        data = PyMemoryView_FromMemory(<char*>span.first, span.second, 0x100)  # PyBUF_READ; used only while `value` lives
    before = begin_unpickling(&outer, token)
    try:
        if value.buffers.empty():
            return _loads(data)
        buffers = [wrap(value.blob, value.buffers[i].first, value.buffers[i].second) for i in range(value.buffers.size())]
        return _loads(data, buffers=buffers)
    finally:
        end(before)


cdef dict _error_fields(const ValueOut& value):
    cdef ErrorFields f
    cdef ValueOut cause
    check(ParseError(value, &f))
    init_error = None
    if not f.cause.empty():
        # The blob of the failed constructor's RayTaskError, copied so that its buffers need nobody else.
        init_error = _load_blob(f.cause)
    return {
        "error_type": f.error_type,
        "message": f.message.decode("utf-8", "replace"),
        "actor_id": f.actor_id,
        "init_error": init_error,
        "class_name": f.class_name.decode("utf-8", "replace"),
        "actor_name": f.actor_name.decode("utf-8", "replace"),
        "ray_namespace": f.ray_namespace.decode("utf-8", "replace"),
        "owner_address": f.owner_address,
        "task_id": f.task_id,
        "actor_init_failed": f.actor_init_failed,
        "never_ran": f.never_ran,
        "preempted": f.preempted,
        "pid": f.pid,
        "task_name": f.task_name.decode("utf-8", "replace"),
        "timeout_s": f.timeout_s,
    }


cdef extern from *:
    """
    #include "ray/common/buffer.h"
    static ray::BufferPtr ray_copy_blob(const std::string& bytes) { return ray::HeapBuffer::CopyOf(bytes); }
    """
    BufferPtr ray_copy_blob(const string& bytes)


cdef object _load_blob(const string& blob):
    cdef ValueOut value
    cdef ObjectId outer
    value.metadata = _TASK_ERROR
    value.blob = ray_copy_blob(blob)
    check(ParsePythonBlob(&value))
    try:
        return _load_pickle(value, outer, 0)
    except Exception as error:
        return _load_failed(error)


cdef object unpack(const ValueOut& value, const ObjectId& outer, uint64_t token, bint* failed):
    failed[0] = False
    if value.metadata == _PYTHON:
        try:
            return _load_pickle(value, outer, token)
        except Exception as error:
            failed[0] = True
            return _load_failed(error)
    if value.metadata == _RAW:
        if value.blob.get() == NULL:
            return b""
        return PyBytes_FromStringAndSize(<const char*>value.blob.get().data(), value.blob.get().size())
    failed[0] = True
    if value.metadata == _TASK_ERROR:
        try:
            return _load_pickle(value, outer, token).as_instanceof_cause()
        except Exception as error:
            return _load_failed(error)
    object_id = "" if outer.IsNil() else PyBytes_FromStringAndSize(<const char*>outer.data(), 28).hex()
    return _make_error(_error_fields(value), object_id)
