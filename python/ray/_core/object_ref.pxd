from libc.stdint cimport uint32_t, uint64_t
from libcpp.vector cimport vector

from ray._core.cpp.core cimport Address, Core, ObjectId, Ref
from ray._core.ids cimport BaseID

cdef class ObjectRef(BaseID):
    cdef Address* owner       # NULL: this process
    cdef uint32_t epoch       # of the core that counts this handle; 0: not counted
    cdef uint32_t group       # number of a call of `distinct` that found all handles of its list to differ; 0: none
    cdef uint32_t place       # in that list
    cdef object __weakref__

    cdef ObjectId id(self)
    cdef Ref ref(self) except *  # ValueError: of an earlier session

# A counted handle of a ref that the core has already counted once for it.
cdef ObjectRef adopt(const ObjectId& object_id)

# The core that counts refs; NULL when there is none. Only read or set with the GIL.
cdef Core* active()
# Its CoreWorker, or None.
cdef object active_or_none()
cdef void activate(object worker, Core* core)
cdef void deactivate(Core* core)

# Brackets around pickling and unpickling of a value: refs met in between are in-band. They nest; the token restores the state before.
cdef struct PickleState:
    void* nested              # list of the refs met; NULL: not pickling a value
    const ObjectId* outer     # id of the object being read; NULL: not reading a value
    uint64_t token            # of the task whose arguments are read

cdef PickleState begin_pickling(list nested)
cdef PickleState begin_unpickling(const ObjectId* outer, uint64_t token)
cdef void end(PickleState before)
cdef PickleState state()
cdef int to_refs(object refs, vector[Ref]* out) except -1
