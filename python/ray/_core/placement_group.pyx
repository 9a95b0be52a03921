# cython: language_level=3, embedsignature=True
"""Placement groups: what `ray.util.placement_group` is made of. Calls that wait for the GCS do so without the GIL."""
import time

from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport int64_t
from libcpp cimport bool
from libcpp.string cimport string
from libcpp.vector cimport vector

from ray._core.cpp.core cimport BundleFields, Core, GetStatus, ObjectId, PlacementGroupFields, Status, StatusCode
from ray._core.object_ref cimport adopt
from ray._core.status cimport check
from ray._core.values cimport Packed, pack
from ray._core.worker cimport CoreWorker, of_str, to_bytes, to_str


def create(CoreWorker worker not None, *, list bundles not None, list selectors not None, int strategy, name="", ray_namespace="",
           creator_actor_id=b"", bint detached=False, soft_target_node_id=b"", topology_label=""):
    """Asks for a group; its id. `bundles` are resources by name, `selectors` as many label selectors. Raises ValueError for a taken name."""
    cdef Core* core = worker.alive()
    cdef PlacementGroupFields fields
    cdef BundleFields bundle
    cdef string made
    cdef Status status
    fields.name = of_str(name)
    fields.ray_namespace = of_str(ray_namespace)
    fields.creator_actor_id = of_str(creator_actor_id)
    fields.soft_target_node_id = of_str(soft_target_node_id)
    fields.topology_label = of_str(topology_label)
    fields.strategy = strategy
    fields.detached = detached
    for resources, selector in zip(bundles, selectors, strict=True):
        bundle.resources.clear()
        bundle.label_selector.clear()
        for key, amount in resources.items():
            bundle.resources[of_str(key)] = amount
        for key, value in selector.items():
            bundle.label_selector[of_str(key)] = of_str(value)
        fields.bundles.push_back(bundle)
    if fields.name.empty():
        status = core.CreatePlacementGroup(fields, &made)
    else:
        with nogil:
            status = core.CreatePlacementGroup(fields, &made)
    if not status.ok() and status.code() == StatusCode.kAlreadyExists:
        raise ValueError(to_str(status.message()))
    check(status)
    return to_bytes(made)


def remove(CoreWorker worker not None, bytes group_id not None):
    """Removes a group, and ends what runs in it. Does not wait."""
    worker.alive().RemovePlacementGroup(of_str(group_id))


def wait(CoreWorker worker not None, bytes group_id not None, timeout=None):
    """Whether the group is placed, at the latest after `timeout` seconds."""
    cdef Core* core = worker.alive()
    cdef string group = of_str(group_id)
    cdef bool placed = False
    cdef GetStatus status
    cdef double deadline = time.monotonic() + timeout if timeout is not None and timeout >= 0 else 1e300
    cdef int64_t wait_ms
    while True:
        wait_ms = -1 if deadline == 1e300 else <int64_t>min(max(0.0, deadline - time.monotonic()) * 1000.0 + 0.999, 9e15)
        with nogil:
            status = core.WaitPlacementGroup(group, wait_ms, &placed)
        if status != GetStatus.kInterrupted:
            worker.alive()  # a shutdown wakes whoever waits
            return placed
        PyErr_CheckSignals()


def ready_ref(CoreWorker worker not None, bytes group_id not None, value):
    """A ref that becomes `value` once the group is placed, and an error should it be removed before."""
    cdef Core* core = worker.alive()
    cdef Packed packed = pack(value)
    cdef ObjectId object_id
    check(core.PlacementGroupReady(of_str(group_id), packed.value, &object_id))
    return adopt(object_id)


cdef dict _fields(PlacementGroupFields& g):
    cdef list bundles = []
    cdef size_t i
    for i in range(g.bundles.size()):
        bundles.append({
            "resources": {to_str(item.first): item.second for item in g.bundles[i].resources},
            "label_selector": {to_str(item.first): to_str(item.second) for item in g.bundles[i].label_selector},
            "node_id": to_bytes(g.bundles[i].node_id),
        })
    return {
        "id": to_bytes(g.id), "name": to_str(g.name), "ray_namespace": to_str(g.ray_namespace), "job_id": to_bytes(g.job_id),
        "creator_actor_id": to_bytes(g.creator_actor_id), "strategy": g.strategy, "state": g.state, "detached": g.detached,
        "bundles": bundles, "created_at_ms": g.created_at_ms, "placed_at_ms": g.placed_at_ms, "attempts": g.attempts,
        "highest_retry_delay_ms": g.highest_retry_delay_ms, "infeasible": g.infeasible,
        "topology_label": to_str(g.topology_label),
    }


def find(CoreWorker worker not None, bytes group_id=b"", name="", ray_namespace=""):
    """The fields of a group by id, or by name where there is no id; None if there is none."""
    cdef Core* core = worker.alive()
    cdef string c_id = of_str(group_id), c_name = of_str(name), c_namespace = of_str(ray_namespace)
    cdef PlacementGroupFields fields
    cdef Status status
    with nogil:
        status = core.GetPlacementGroup(c_id, c_name, c_namespace, &fields)
    if not status.ok() and status.code() == StatusCode.kNotFound:
        return None
    check(status)
    return _fields(fields)


def list_all(CoreWorker worker not None):
    """The fields of all groups, removed ones too."""
    cdef Core* core = worker.alive()
    cdef vector[PlacementGroupFields] rows
    cdef Status status
    with nogil:
        status = core.ListPlacementGroups(&rows)
    check(status)
    return [_fields(rows[i]) for i in range(rows.size())]
