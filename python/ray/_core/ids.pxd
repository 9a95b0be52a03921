cdef class BaseID:
    # Raw bytes; constant after construction. No kind of id is longer than an object's.
    cdef unsigned char data[28]
    cdef unsigned char length

    cdef bytes raw(self)
    cdef void assign(self, const void* data, size_t length) noexcept
