# cython: language_level=3, embedsignature=True
"""Questions to processes of the cluster: what they know of where something stands. See protos/ray/v1/explain.proto."""
from libc.stdint cimport int64_t
from libcpp.map cimport map
from libcpp.string cimport string
from libcpp.utility cimport move
from libcpp.vector cimport vector

from ray._core.cpp.core cimport Core, TaskRowFields, TaskTotalsFields, WaitAnswer, WaitFactFields, WaitQuestion
from ray._core.worker cimport CoreWorker, of_str, to_bytes, to_str


cdef dict _amounts(map[string, double]& amounts):
    return {to_str(item.first): item.second for item in amounts}


cdef dict _labels(map[string, string]& labels):
    return {to_str(item.first): to_str(item.second) for item in labels}


cdef dict _row(TaskRowFields& r):
    return {
        "owned": r.owned, "in_wait": r.in_wait, "type": r.type, "error_type": r.error_type, "submitted_at_ms": r.submitted_at_ms,
        "started_at_ms": r.started_at_ms, "ended_at_ms": r.ended_at_ms, "function_name": to_str(r.function_name),
        "parent_task_id": to_bytes(r.parent_task_id), "error_message": to_str(r.error_message), "runtime_env": to_str(r.runtime_env),
        "placement_group_id": to_bytes(r.placement_group_id),
        "label_selectors": [_labels(r.label_selectors[i]) for i in range(r.label_selectors.size())],
    }


cdef dict _totals(TaskTotalsFields& t):
    return {"forgotten_finished": t.forgotten_finished, "forgotten_failed": t.forgotten_failed, "left_out": t.left_out, "silent": t.silent}


cdef dict _fact(WaitFactFields& f):
    made = {
        "kind": f.kind, "state": f.state, "id": to_bytes(f.id), "name": to_str(f.name), "detail": to_str(f.detail),
        "node_id": to_bytes(f.node_id), "worker_id": to_bytes(f.worker_id), "owner": to_bytes(f.owner), "age_ms": f.age_ms,
        "ahead": f.ahead, "pid": f.pid, "attempt": f.attempt, "more": f.more, "need": _amounts(f.need),
        "available": _amounts(f.available), "total": _amounts(f.total),
        "local": f.local, "submitted": f.submitted, "contained": f.contained, "borrowers": f.borrowers, "size": f.size,
        "owned": f.owned, "in_store": f.in_store, "by_driver": f.by_driver, "site": to_str(f.site),
        "next": [(to_bytes(f.next[i].address), f.next[i].kind, to_bytes(f.next[i].id)) for i in range(f.next.size())],
    }
    if f.has_row:
        made["row"] = _row(f.row)
    if f.has_totals:
        made["totals"] = _totals(f.totals)
    return made


def ask(CoreWorker worker not None, list questions not None, int64_t timeout_ms):
    """Asks each of (packed address or b"", kind, id, of_node) at once; for each (facts, "") or ([], why there is no answer)."""
    cdef Core* core = worker.alive()
    cdef vector[WaitQuestion] asked
    cdef vector[WaitAnswer] answers
    cdef WaitQuestion question
    cdef size_t i, j
    for address, kind, subject, of_node in questions:
        question.address = of_str(<bytes?>address)
        question.kind = kind
        question.id = of_str(<bytes?>subject)
        question.of_node = of_node
        asked.push_back(question)
    with nogil:
        core.Explain(asked, timeout_ms, &answers)
    made = []
    for i in range(answers.size()):
        facts = [_fact(answers[i].facts[j]) for j in range(answers[i].facts.size())]
        made.append((facts, "" if answers[i].status.ok() else to_str(answers[i].status.message()) or "no answer"))
    return made
