# cython: language_level=3, embedsignature=True
"""Tables of the cluster: key-value store, nodes, jobs and actors. All of these calls wait for the GCS, without the GIL."""
from libc.stdint cimport int64_t
from libcpp cimport bool
from libcpp.string cimport string
from libcpp.vector cimport vector

from ray._core.cpp.core cimport ActorFields, Core, JobFields, NodeFields, Status, StatusCode
from ray._core.status cimport check
from ray._core.worker cimport CoreWorker, of_str, to_bytes, to_str


def kv_get(CoreWorker worker not None, ns, key):
    """The value, or None."""
    cdef Core* core = worker.alive()
    cdef string c_ns = of_str(ns), c_key = of_str(key), value
    cdef bool found = False
    cdef Status status
    with nogil:
        status = core.KvGet(c_ns, c_key, &found, &value)
    check(status)
    return to_bytes(value) if found else None


def kv_put(CoreWorker worker not None, ns, key, value, bint overwrite=True, bint of_job=False):
    """Whether the key is new. `of_job`: it goes with the last job that has put it."""
    cdef Core* core = worker.alive()
    cdef string c_ns = of_str(ns), c_key = of_str(key), c_value = of_str(value)
    cdef bool added = False
    cdef Status status
    with nogil:
        status = core.KvPut(c_ns, c_key, c_value, overwrite, of_job, &added)
    check(status)
    return added


def kv_del(CoreWorker worker not None, ns, key, bint by_prefix=False):
    """The number of keys deleted."""
    cdef Core* core = worker.alive()
    cdef string c_ns = of_str(ns), c_key = of_str(key)
    cdef int64_t deleted = 0
    cdef Status status
    with nogil:
        status = core.KvDel(c_ns, c_key, by_prefix, &deleted)
    check(status)
    return deleted


def kv_exists(CoreWorker worker not None, ns, key):
    cdef Core* core = worker.alive()
    cdef string c_ns = of_str(ns), c_key = of_str(key)
    cdef bool exists = False
    cdef Status status
    with nogil:
        status = core.KvExists(c_ns, c_key, &exists)
    check(status)
    return exists


def kv_keys(CoreWorker worker not None, ns, prefix):
    cdef Core* core = worker.alive()
    cdef string c_ns = of_str(ns), c_prefix = of_str(prefix)
    cdef vector[string] keys
    cdef Status status
    with nogil:
        status = core.KvKeys(c_ns, c_prefix, &keys)
    check(status)
    return [to_bytes(key) for key in keys]


cdef dict _actor(ActorFields& a):
    return {
        "actor_id": to_bytes(a.actor_id), "class_name": to_str(a.class_name), "name": to_str(a.name),
        "ray_namespace": to_str(a.ray_namespace), "method_table": to_bytes(a.method_table), "function_id": to_bytes(a.function_id),
        "job_id": to_bytes(a.job_id), "node_id": to_bytes(a.node_id), "owner": to_bytes(a.owner), "repr_name": to_str(a.repr_name),
        "state": a.state, "pid": a.pid, "node_ip": to_str(a.node_ip), "num_restarts": a.num_restarts, "max_task_retries": a.max_task_retries,
        "max_pending_calls": a.max_pending_calls, "max_concurrency": a.max_concurrency, "detached": a.detached, "is_async": a.is_async,
        "allow_out_of_order": a.allow_out_of_order,
    }


def get_named_actor(CoreWorker worker not None, name, ray_namespace):
    """The actor's fields, or None."""
    cdef Core* core = worker.alive()
    cdef string c_name = of_str(name), c_namespace = of_str(ray_namespace)
    cdef ActorFields fields
    cdef Status status
    with nogil:
        status = core.GetNamedActor(c_name, c_namespace, &fields)
    if not status.ok() and status.code() == StatusCode.kNotFound:
        return None
    check(status)
    return _actor(fields)


def list_actors(CoreWorker worker not None, bint named_only=False, bint all_namespaces=True, ray_namespace=""):
    cdef Core* core = worker.alive()
    cdef string c_namespace = of_str(ray_namespace)
    cdef vector[ActorFields] rows
    cdef Status status
    with nogil:
        status = core.ListActors(named_only, all_namespaces, c_namespace, &rows)
    check(status)
    return [_actor(rows[i]) for i in range(rows.size())]


cdef dict _node(NodeFields& n):
    return {
        "node_id": to_bytes(n.node_id), "node_name": to_str(n.node_name), "ip": to_str(n.ip), "hostname": to_str(n.hostname),
        "raylet_socket": to_str(n.raylet_socket), "store_socket": to_str(n.store_socket), "death_reason": to_str(n.death_reason),
        "alive": n.alive, "is_head": n.is_head, "port": n.port, "driver_only": n.driver_only, "draining": n.draining,
        "drain_reason": to_str(n.drain_reason), "drain_deadline_ms": n.drain_deadline_ms, "death_kind": n.death_kind,
        "start_time_ms": n.start_time_ms, "end_time_ms": n.end_time_ms,
        "total": {to_str(item.first): item.second for item in n.total},
        "available": {to_str(item.first): item.second for item in n.available},
        "labels": {to_str(item.first): to_str(item.second) for item in n.labels},
    }


def list_nodes(CoreWorker worker not None):
    """All nodes, dead ones too."""
    cdef Core* core = worker.alive()
    cdef vector[NodeFields] rows
    cdef Status status
    with nogil:
        status = core.ListNodes(&rows)
    check(status)
    return [_node(rows[i]) for i in range(rows.size())]


cdef dict _job(JobFields& j):
    return {
        "job_id": to_bytes(j.job_id), "ray_namespace": to_str(j.ray_namespace), "entrypoint": to_str(j.entrypoint),
        "config_json": to_str(j.config_json), "driver_pid": j.driver_pid, "start_time_ms": j.start_time_ms, "end_time_ms": j.end_time_ms,
    }


def list_jobs(CoreWorker worker not None):
    cdef Core* core = worker.alive()
    cdef vector[JobFields] rows
    cdef Status status
    with nogil:
        status = core.ListJobs(&rows)
    check(status)
    return [_job(rows[i]) for i in range(rows.size())]


def node_stats(CoreWorker worker not None, bytes node_id not None=b"", int64_t timeout_ms=5000):
    """The state of a node's raylet, as JSON text; of this node's without an id, and then without a time-out."""
    cdef Core* core = worker.alive()
    cdef string text
    cdef string node = of_str(node_id)
    cdef Status status
    with nogil:
        status = core.NodeStats(node, timeout_ms, &text)
    check(status)
    return to_str(text)
