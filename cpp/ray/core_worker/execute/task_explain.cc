// Of the TaskReceiver: what it tells of the tasks that were sent to this process.
#include "ray/core_worker/execute/task_receiver.h"
#include "ray/wire/convert.h"
#include "ray/wire/wait_fact.h"

namespace ray::core {

bool TaskReceiver::Explain(const TaskId& id, v1::WaitFact* out) {
  ReceivedTaskPtr found;
  bool running = false;
  std::vector<TaskId> before;  // that run now
  size_t unstarted = 0;
  {
    MutexLock lock(&mu_);
    for (const auto& [token, task] : runs_) {
      if (task->spec.task_id == id) {
        found = task;
        running = task->running;
      } else if (task->running) {
        before.push_back(task->spec.task_id);
      }
    }
    unstarted = queue_.unstarted();
  }
  if (found == nullptr) return false;
  const Time now = deps_.loop->clock().Now();
  SetSubject(v1::SUBJECT_KIND_TASK, id.View(), v1::WAIT_STATE_RUNNING, out);
  out->set_name(found->spec.tmpl->DisplayName());
  out->set_node_id(deps_.self.node_id.Binary());
  out->set_worker_id(deps_.self.worker_id.Binary());
  out->set_pid(deps_.pid);
  out->set_attempt(found->spec.attempt);
  ToProto(found->spec.owner, out->mutable_owner());
  if (running) {
    SetAge(found->started.load(std::memory_order_relaxed), now, out);
    if (deps_.objects->BlockedOn(id, out)) {
      out->set_state(v1::WAIT_STATE_BLOCKED);
      out->set_detail("it is blocked in ray.get or ray.wait");
    }
    return true;
  }
  if (found->unfetched.load() > 0) {
    out->set_state(v1::WAIT_STATE_WAITING_FOR_ARGUMENTS);
    out->set_detail("its worker fetches its arguments");
    for (const TaskArg& arg : found->spec.refs) {
      if (arg.value == nullptr && !deps_.objects->IsLocal(arg.ref.id)) {
        AddPointer(v1::SUBJECT_KIND_OBJECT, arg.ref.id.View(), deps_.self, out);
      }
    }
    return true;
  }
  out->set_state(v1::WAIT_STATE_QUEUED_AT_WORKER);
  out->set_ahead(static_cast<int64_t>(before.size() + unstarted) - 1);
  out->set_detail("its worker runs " + std::to_string(before.size()) + " other task(s), and has " + std::to_string(unstarted) +
                  " that it has not begun, this one among them");
  for (const TaskId& other : before) AddPointer(v1::SUBJECT_KIND_TASK, other.View(), deps_.self, out);
  return true;
}

void TaskReceiver::AddRows(const TaskId& only, RowRoom* room, std::vector<v1::WaitFact>* out) {
  std::vector<std::pair<ReceivedTaskPtr, bool>> found;  // and whether it runs
  {
    MutexLock lock(&mu_);
    for (const auto& [token, task] : runs_) {
      if (!task->spec.tmpl->omit_task_events && (only.IsNil() || task->spec.task_id == only)) found.emplace_back(task, task->running);
    }
  }
  for (const auto& [task, running] : found) {
    const TaskSpec& spec = task->spec;
    const Time started = task->started.load(std::memory_order_relaxed);
    const BlockedCalls::Call call = running ? deps_.objects->BlockedCallOf(spec.task_id) : BlockedCalls::Call::kNone;
    const v1::WaitState state = call != BlockedCalls::Call::kNone ? v1::WAIT_STATE_BLOCKED
                                : running                         ? v1::WAIT_STATE_RUNNING
                                : task->unfetched.load() > 0      ? v1::WAIT_STATE_WAITING_FOR_ARGUMENTS
                                                                  : v1::WAIT_STATE_QUEUED_AT_WORKER;
    v1::WaitFact fact;
    v1::TaskRow* row = SetTask(*spec.tmpl, spec.task_id, spec.parent_task_id, spec.attempt, state, &fact);
    if (running && !started.is_infinite()) row->set_started_at_ms(times_.Millis(started));
    row->set_in_wait(call == BlockedCalls::Call::kWait);
    fact.set_node_id(deps_.self.node_id.Binary());
    fact.set_worker_id(deps_.self.worker_id.Binary());
    fact.set_pid(deps_.pid);
    if (room->Take(fact)) out->push_back(std::move(fact));
  }
}

}  // namespace ray::core
