# cython: language_level=3, embedsignature=True
"""Identifiers as Python values: fixed-size bytes, compared and hashed by value. Nil is all 0xff."""
import os

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint64_t
from libc.string cimport memcmp, memcpy


cdef class BaseID:
    """Common behaviour of all ids."""

    SIZE = 0

    def __init__(self, bytes binary not None):
        if PyBytes_GET_SIZE(binary) != self.SIZE:
            raise ValueError(f"{type(self).__name__} has {self.SIZE} bytes, got {len(binary)}")
        self.assign(PyBytes_AS_STRING(binary), PyBytes_GET_SIZE(binary))

    cdef void assign(self, const void* data, size_t length) noexcept:
        memcpy(self.data, data, length)
        self.length = <unsigned char>length

    cdef bytes raw(self):
        return PyBytes_FromStringAndSize(<const char*>self.data, self.length)

    @classmethod
    def from_binary(cls, binary):
        return cls(binary)

    @classmethod
    def from_hex(cls, hex_id):
        return cls(bytes.fromhex(hex_id.decode() if isinstance(hex_id, bytes) else hex_id))

    @classmethod
    def from_random(cls):
        return cls(os.urandom(cls.SIZE))

    @classmethod
    def nil(cls):
        return cls(b"\xff" * cls.SIZE)

    @classmethod
    def size(cls):
        return cls.SIZE

    def binary(self):
        return self.raw()

    def hex(self):
        return self.raw().hex()

    def is_nil(self):
        return self.raw() == b"\xff" * <Py_ssize_t>self.length

    def redis_shard_hash(self):
        return hash(self)

    def __hash__(self):
        # Random ids need no mixing, but ids of one stream differ in a few bytes only: fold all words.
        cdef uint64_t folded = 0x9E3779B97F4A7C15u
        cdef uint64_t word
        cdef size_t at = 0
        while at < self.length:
            word = 0
            memcpy(&word, self.data + at, min(<size_t>8, self.length - at))
            folded = (folded ^ word) * <uint64_t>0xFF51AFD7ED558CCDu
            folded ^= folded >> 32
            at += 8
        return <Py_hash_t>(folded >> 2)

    def __eq__(self, other):
        if not isinstance(other, BaseID) or type(self) is not type(other):
            return NotImplemented
        return self.length == (<BaseID>other).length and memcmp(self.data, (<BaseID>other).data, self.length) == 0

    def __lt__(self, other):
        if not isinstance(other, BaseID) or type(self) is not type(other):
            return NotImplemented
        return memcmp(self.data, (<BaseID>other).data, min(self.length, (<BaseID>other).length)) < 0

    def __repr__(self):
        return f"{type(self).__name__}({self.hex()})"

    def __str__(self):
        return self.__repr__()

    def __reduce__(self):
        return type(self), (self.raw(),)


class UniqueID(BaseID):
    SIZE = 28


class NodeID(UniqueID):
    pass


class WorkerID(UniqueID):
    pass


class FunctionID(UniqueID):
    pass


class ClusterID(UniqueID):
    pass


class ActorClassID(UniqueID):
    pass


class JobID(BaseID):
    SIZE = 4

    @classmethod
    def from_int(cls, value):
        return cls(value.to_bytes(4, "little"))

    def int(self):
        return int.from_bytes(self.binary(), "little")


class ActorID(BaseID):
    SIZE = 16

    @classmethod
    def of(cls, job_id):
        """A fresh id of an actor of that job."""
        return cls(os.urandom(12) + job_id.binary())

    @property
    def job_id(self):
        """Of a task it is a method: both are Ray's."""
        return JobID(self.binary()[12:])


class PlacementGroupID(BaseID):
    SIZE = 18

    @classmethod
    def of(cls, job_id):
        """A fresh id of a placement group of that job."""
        return cls(os.urandom(14) + job_id.binary())


def _unique(parent_task_id, parent_task_counter):
    import hashlib  # a start of Ray does without

    return hashlib.sha256(parent_task_id.binary() + parent_task_counter.to_bytes(8, "little")).digest()[:8]


class TaskID(BaseID):
    SIZE = 24

    # Ids of the shape of those that the core makes: the same arguments give the same id, and never that of a task.

    @classmethod
    def for_actor_creation_task(cls, actor_id):
        return cls(b"\xff" * 8 + actor_id.binary())

    @classmethod
    def for_actor_task(cls, job_id, parent_task_id, parent_task_counter, actor_id):
        return cls(_unique(parent_task_id, parent_task_counter) + actor_id.binary())

    @classmethod
    def for_normal_task(cls, job_id, parent_task_id, parent_task_counter):
        return cls(_unique(parent_task_id, parent_task_counter) + b"\xff" * 12 + job_id.binary())

    @classmethod
    def for_driver_task(cls, job_id):
        return cls(b"\xff" * 20 + job_id.binary())

    @classmethod
    def for_fake_task(cls, job_id):
        return cls(os.urandom(8) + b"\xff" * 12 + job_id.binary())

    def actor_id(self):
        binary = self.binary()[8:]
        return ActorID.nil() if binary[:12] == b"\xff" * 12 else ActorID(binary)

    def job_id(self):
        return JobID(self.binary()[20:])
