from ray._core.cpp.core cimport Status

cdef int check(const Status& status) except -1 nogil
cdef object status_error(const Status& status)
