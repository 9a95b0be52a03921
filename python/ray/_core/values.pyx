# cython: language_level=3, embedsignature=True
"""Python values as the core stores them, and back.

The smallest values, which most arguments and results are, are written as pickles and read again right here: the C pickler takes 4 KiB for each, and
what it leaves behind is a hole between the objects that stay. Other built-in scalars and small containers of them go through the C pickler at
once. All other values take the pickler that `ray._serialization` registers here, with buffers out of band.
"""
import pickle

from cpython.buffer cimport Py_buffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_Size
from cpython.float cimport PyFloat_AS_DOUBLE
from cpython.long cimport PyLong_AsLongAndOverflow
from cpython.memoryview cimport PyMemoryView_FromMemory, PyMemoryView_GET_BUFFER
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from cpython.tuple cimport PyTuple_GET_ITEM, PyTuple_GET_SIZE
from cpython.unicode cimport PyUnicode_1BYTE_DATA, PyUnicode_DecodeUTF8, PyUnicode_GET_LENGTH
from libc.stdint cimport uint64_t
from libc.string cimport memcpy
from libcpp.string cimport string
from libcpp.vector cimport vector

from ray._core.buffer cimport wrap
from ray._core.cpp.core cimport BufferPtr, ErrorFields, ObjectId, ParseError, ParsePythonBlob, Ref, Span, Status, ValueIn, ValueOut
from ray._core.object_ref cimport ObjectRef, PickleState, begin_pickling, begin_unpickling, end
from ray._core.status cimport check

cdef extern from "Python.h":
    bint PyUnicode_IS_ASCII(object text)

cdef object _dumps = pickle.dumps
cdef object _loads = pickle.loads
cdef object _slow_dumps = None   # (value, buffer_callback) -> bytes
cdef object _make_error = None   # (fields: dict, object id hex) -> exception
cdef object _load_failed = None  # (exception) -> exception
cdef object _load_error_failed = None  # (exception, pickle, buffers) -> exception, for errors of tasks

cdef string _RAW = b"RAW"
cdef string _PYTHON = b"PYTHON"
cdef string _TASK_ERROR = b"3"
cdef Py_ssize_t _COPY_LIMIT = 4096  # pickles up to this are copied: cheaper than a memoryview


def register(slow_dumps, make_error, load_failed, load_error_failed):
    """Sets how `ray._serialization` pickles what is not plain, and how errors are made."""
    global _slow_dumps, _make_error, _load_failed, _load_error_failed
    _slow_dumps, _make_error, _load_failed, _load_error_failed = slow_dumps, make_error, load_failed, load_error_failed


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


cdef enum:
    _TINY = 256  # bytes
    _TINY_DEPTH = 16  # tuples in each other

cdef extern from *:
    """
    #include <cstdint>
    #include <cstring>
    static inline void ray_put_double(double value, char* out) {
      uint64_t bits;
      std::memcpy(&bits, &value, 8);
      bits = __builtin_bswap64(bits);
      std::memcpy(out, &bits, 8);
    }
    static inline double ray_get_double(const char* in) {
      uint64_t bits;
      double value;
      std::memcpy(&bits, in, 8);
      bits = __builtin_bswap64(bits);
      std::memcpy(&value, &bits, 8);
      return value;
    }
    """
    void ray_put_double(double value, char* out)
    double ray_get_double(const char* input)


cdef int _write_tiny(object value, char* out, int at, int depth) except -2:
    # Appends the opcodes of `value` at `at` and returns their end; -1 where it is not one of the smallest values, or in `depth` tuples.
    cdef type cls = type(value)
    cdef int overflow = 0
    cdef long number
    cdef Py_ssize_t length
    cdef const char* text
    if at > _TINY - 16:
        return -1
    if value is None:
        out[at] = b"N"
        return at + 1
    if cls is bool:
        out[at] = <char>(0x88 if value is True else 0x89)
        return at + 1
    if cls is int:
        number = PyLong_AsLongAndOverflow(value, &overflow)
        if overflow != 0 or number > 0x7FFFFFFF or number < -0x80000000:
            return -1
        if 0 <= number < 256:
            out[at] = b"K"
            out[at + 1] = <char>number
            return at + 2
        out[at] = b"J"
        memcpy(out + at + 1, &number, 4)
        return at + 5
    if cls is float:
        out[at] = b"G"
        ray_put_double(PyFloat_AS_DOUBLE(value), out + at + 1)
        return at + 9
    if cls is str:
        if not PyUnicode_IS_ASCII(value):
            return -1
        length = PyUnicode_GET_LENGTH(value)
        if length > _TINY - 16 - at:
            return -1
        out[at] = <char>0x8C
        out[at + 1] = <char>length
        text = <const char*>PyUnicode_1BYTE_DATA(value)
        memcpy(out + at + 2, text, length)
        return at + 2 + <int>length
    if cls is dict:
        if PyDict_Size(value) != 0:
            return -1
        out[at] = b"}"
        return at + 1
    if cls is tuple:
        length = PyTuple_GET_SIZE(value)
        if length > 3 or depth == _TINY_DEPTH:
            return -1
        for i in range(length):
            at = _write_tiny(<object>PyTuple_GET_ITEM(value, i), out, at, depth + 1)
            if at < 0:
                return -1
        if at > _TINY - 16:
            return -1
        out[at] = b")" if length == 0 else <char>(0x84 + length)
        return at + 1
    return -1


cdef object _pickle_tiny(object value):
    # The pickle, or None where the pickler is needed.
    cdef char out[_TINY]
    cdef int end
    out[0] = <char>0x80
    out[1] = 5
    end = _write_tiny(value, out, 2, 0)
    if end < 0:
        return None
    out[end] = b"."
    return PyBytes_FromStringAndSize(out, end + 1)


cdef bint _read_tiny(const char* data, size_t size, PyObject** out) except -1:
    # Reads a pickle of one scalar. False: the unpickler is needed.
    cdef unsigned char code
    cdef int number
    if size < 4 or size > _TINY or <unsigned char>data[0] != 0x80 or data[size - 1] != b".":
        return False
    code = <unsigned char>data[2]
    if size == 4:
        if code == c"N":
            value = None
        elif code == 0x88:
            value = True
        elif code == 0x89:
            value = False
        else:
            return False
    elif code == c"K" and size == 5:
        value = <int><unsigned char>data[3]
    elif code == c"J" and size == 8:
        memcpy(&number, data + 3, 4)
        value = number
    elif code == c"G" and size == 12:
        value = ray_get_double(data + 3)
    elif code == 0x8C and <size_t><unsigned char>data[3] + 5 == size:
        value = PyUnicode_DecodeUTF8(data + 4, size - 5, NULL)
    else:
        return False
    Py_INCREF(value)
    out[0] = <PyObject*>value
    return True


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
    pickled = _pickle_tiny(value)
    if pickled is not None:
        _set_data(packed, pickled)
        return packed
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
                refs.reserve(len(args) - i)
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
    cdef PyObject* tiny = NULL
    if value.buffers.empty() and _read_tiny(span.first, span.second, &tiny):
        result = <object>tiny
        Py_DECREF(result)
        return result
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
        "node_ip": f.node_ip.decode("utf-8", "replace"),
        "argument_of": f.argument_of.decode("utf-8", "replace"),
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
    return _load_task_error(value, outer, 0)


cdef object _load_task_error(const ValueOut& value, const ObjectId& outer, uint64_t token):
    try:
        return _load_pickle(value, outer, token)
    except Exception as error:
        data = PyBytes_FromStringAndSize(value.pickle.first, value.pickle.second)
        buffers = [wrap(value.blob, value.buffers[i].first, value.buffers[i].second) for i in range(value.buffers.size())]
        return _load_error_failed(error, data, buffers)


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
            from ray.exceptions import RaySystemError

            failed[0] = True
            return RaySystemError("the core reported an object as ready without its value")
        return PyBytes_FromStringAndSize(<const char*>value.blob.get().data(), value.blob.get().size())
    failed[0] = True
    if value.metadata == _TASK_ERROR:
        return _load_task_error(value, outer, token).as_instanceof_cause()
    object_id = "" if outer.IsNil() else PyBytes_FromStringAndSize(<const char*>outer.data(), 28).hex()
    return _make_error(_error_fields(value), object_id)
