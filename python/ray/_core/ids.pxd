from libcpp.string cimport string

cdef class BaseID:
    # Raw bytes; constant after construction.
    cdef string data

    cdef bytes raw(self)

cdef object id_from(type cls, const string& data)
