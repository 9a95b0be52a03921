# cython: language_level=3, embedsignature=True
"""Read-only windows into stored objects. What Python makes of them (numpy, arrow) points straight into shared memory."""
from cpython.buffer cimport Py_buffer, PyBuffer_FillInfo

from ray._core.cpp.core cimport BufferPtr


cdef StoreBuffer wrap(const BufferPtr& blob, const char* start, size_t size):
    cdef StoreBuffer made = StoreBuffer.__new__(StoreBuffer)
    made.blob = blob
    made.start = start
    made.size = size
    return made


cdef class StoreBuffer:
    """Part of a stored object, exported by the buffer protocol and held in memory as long as anything uses it."""

    def __getbuffer__(self, Py_buffer* view, int flags):
        PyBuffer_FillInfo(view, self, <void*>self.start, self.size, 1, flags)

    def __len__(self):
        return self.size

