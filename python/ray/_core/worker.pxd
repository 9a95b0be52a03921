from libc.stdint cimport int32_t, uint64_t
from libcpp.memory cimport unique_ptr
from libcpp.string cimport string
from libcpp.vector cimport vector

from ray._core.cpp.core cimport Core, ObjectId, Ref, Status, ValueIn, ValueOut
from ray._core.object_ref cimport ObjectRef
from ray._core.values cimport Packed

cdef class Template:
    cdef CoreWorker worker
    cdef uint64_t handle

cdef class CoreWorker:
    # Freed with this object, which every caller inside holds; shutdown only stops it.
    cdef unique_ptr[Core] core
    cdef readonly object info        # dict of CoreInfo; constant
    cdef readonly bint closed
    cdef public object on_shutdown  # called once, when it has stopped; may be None
    # Called with the list of refs that a get has waited for 10 s, or None.
    cdef public object on_slow_get
    cdef public bint notes_sites     # where refs are made is recorded; set before the first call

    cdef Core* alive(self) except NULL
    cdef ObjectRef _put(self, Packed packed)
    cdef list submit_call(self, bytes actor_id, uint64_t template, tuple args, dict kwargs)
    cdef bint _try(self, Core* core, ObjectRef ref, Py_ssize_t i, list results) except -1
    cdef int _get_blocking(self, Core* core, vector[Ref]* pending, vector[Py_ssize_t]* places, list refs, list results, timeout) except -1
    cdef int _take(self, vector[Ref]* pending, vector[Py_ssize_t]* places, vector[ValueOut]* out, list results) except -1

cdef bytes to_bytes(const string& data)
cdef str to_str(const string& data)
cdef string of_str(object text) except *
cdef bint small(const ValueIn& value)
