from libc.stdint cimport uint32_t, uint64_t
from libcpp cimport bool
from libcpp.string cimport string
from libcpp.vector cimport vector

from ray._core.cpp.core cimport Core, Ref
from ray._core.ids cimport BaseID

cdef class ObjectRef(BaseID):
    cdef string owner         # 56 bytes; empty: this process
    cdef uint32_t epoch       # of the core that counts this handle; 0: not counted
    cdef uint64_t seen        # number of the last call of `distinct` that met this handle
    cdef uint64_t group       # number of a call of `distinct` that found all handles of this group to differ; 0: none
    cdef object __weakref__

    cdef Ref ref(self)

# A counted handle of a ref that the core has already counted once for it.
cdef ObjectRef adopt(const string& object_id)

# The core that counts refs; NULL when there is none. Only read or set with the GIL.
cdef Core* active()
cdef void activate(object worker, Core* core)
cdef void deactivate(Core* core)

# Brackets around pickling and unpickling of a value: refs met in between are in-band. They nest; the token restores the state before.
cdef struct PickleState:
    void* nested              # list of the refs met; NULL: not pickling a value
    const string* outer       # id of the object being read; NULL: not reading a value
    uint64_t token            # of the task whose arguments are read

cdef PickleState begin_pickling(list nested)
cdef PickleState begin_unpickling(const string* outer, uint64_t token)
cdef void end(PickleState before)
cdef PickleState state()
cdef int to_refs(object refs, vector[Ref]* out) except -1
