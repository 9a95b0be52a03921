from libc.stdint cimport uint64_t
from libcpp.vector cimport vector

from ray._core.cpp.core cimport ObjectId, Ref, ValueIn, ValueOut

# A value as the core wants it. The pickled bytes, the exported buffers and the refs live as long as this object.
cdef class Packed:
    cdef ValueIn value
    cdef vector[Ref] refs      # top-level refs of arguments, in the order of their places
    cdef object pickled        # owner of value.data
    cdef list exported         # memoryviews, owners of value.buffers

    cdef size_t total(self)

cdef Packed pack(object value)
cdef Packed pack_args(tuple args, dict kwargs)
cdef Packed pack_error(object error)
# The value, or (where *failed is set) the exception that stands for it. `outer` and `token`: see Core::AddBorrowedRef.
cdef object unpack(const ValueOut& value, const ObjectId& outer, uint64_t token, bint* failed)
