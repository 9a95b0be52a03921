# cython: language_level=3, embedsignature=True
"""Faults on purpose: what the raylet of a node is asked for `ray.util.chaos`. All of these calls wait for it, without the GIL."""
from libcpp cimport bool
from libcpp.string cimport string
from libcpp.vector cimport vector

from ray._core.cpp.core cimport ChaosTargetFields, Core, Status
from ray._core.status cimport check
from ray._core.worker cimport CoreWorker, of_str, to_bytes, to_str


cdef dict _target(ChaosTargetFields& t):
    return {
        "lease_id": to_bytes(t.lease_id), "worker_id": to_bytes(t.worker_id), "running": to_str(t.running), "actor_id": to_bytes(t.actor_id),
        "class_name": to_str(t.class_name), "actor_name": to_str(t.actor_name), "ray_namespace": to_str(t.ray_namespace),
        "pid": t.pid, "held_ms": t.held_ms, "actor_alive": t.actor_alive,
    }


def list_targets(CoreWorker worker not None, node_id):
    """Workers of a node that are leased for something of this job."""
    cdef Core* core = worker.alive()
    cdef string c_node = of_str(node_id)
    cdef vector[ChaosTargetFields] rows
    cdef Status status
    with nogil:
        status = core.ListChaosTargets(c_node, &rows)
    check(status)
    return [_target(rows[i]) for i in range(rows.size())]


def kill_worker(CoreWorker worker not None, node_id, lease_id, running, reason):
    """SIGKILL to the holder of a lease, if it has it still and (unless empty) runs `running`; whether that was so."""
    cdef Core* core = worker.alive()
    cdef string c_node = of_str(node_id), c_lease = of_str(lease_id), c_running = of_str(running), c_reason = of_str(reason)
    cdef bool killed = False
    cdef Status status
    with nogil:
        status = core.KillLeasedWorker(c_node, c_lease, c_running, c_reason, &killed)
    check(status)
    return killed


def kill_node(CoreWorker worker not None, node_id, reason):
    """Has a raylet end itself with SIGKILL; it is on its way then, or was dead before."""
    cdef Core* core = worker.alive()
    cdef string c_node = of_str(node_id), c_reason = of_str(reason)
    cdef Status status
    with nogil:
        status = core.KillNode(c_node, c_reason)
    check(status)
