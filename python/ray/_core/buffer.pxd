from ray._core.cpp.core cimport BufferPtr

cdef class StoreBuffer:
    cdef BufferPtr blob        # keeps the bytes alive
    cdef const char* start     # window into blob
    cdef Py_ssize_t size
    cdef object __weakref__

cdef StoreBuffer wrap(const BufferPtr& blob, const char* start, size_t size)
