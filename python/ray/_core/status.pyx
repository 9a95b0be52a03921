# cython: language_level=3, embedsignature=True
"""Turns a Status of the C++ core into the exception that tells the same."""
from ray._core.cpp.core cimport Status, StatusCode

_OBJECT_STORE_FULL = 40
_OUT_OF_DISK = 20
_LOCAL_RAYLET_DIED = 15


cdef object status_error(const Status& status):
    from ray import exceptions  # at call time: `_core` is imported before the exceptions are needed

    cdef StatusCode code = status.code()
    cdef str text = status.message().decode("utf-8", "replace")
    if code == StatusCode.kInvalidArgument or code == StatusCode.kNotFound:
        return ValueError(text)
    if code == StatusCode.kDeadlineExceeded:
        return exceptions.GetTimeoutError(text)
    if code == StatusCode.kResourceExhausted and status.cause() == _OBJECT_STORE_FULL:
        return exceptions.ObjectStoreFullError(text)
    if code == StatusCode.kResourceExhausted and status.cause() == _OUT_OF_DISK:
        return exceptions.OutOfDiskError(text)
    if code == StatusCode.kUnavailable and status.cause() == _LOCAL_RAYLET_DIED:
        return exceptions.LocalRayletDiedError(text)
    return exceptions.RaySystemError(text)


cdef int check(const Status& status) except -1 nogil:
    if status.ok():
        return 0
    with gil:
        raise status_error(status)
