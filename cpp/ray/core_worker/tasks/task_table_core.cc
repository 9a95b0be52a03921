#include "ray/core_worker/tasks/task_table_core.h"

#include <algorithm>

#include "ray/core_worker/tasks/pending_task.h"

namespace ray::core {

void TaskTableCore::Add(const TaskId& id, PendingTaskPtr task, int32_t max_retries) {
  entries_.try_emplace(id, Entry{std::move(task), false, max_retries, max_retries == 0 ? 0 : oom_retries_, 0, 0});
}

const TaskTableCore::Entry* TaskTableCore::Find(const TaskId& id) const {
  auto it = entries_.find(id);
  return it == entries_.end() ? nullptr : &it->second;
}

TaskVerdict TaskTableCore::Answered(const TaskId& id, const Answer& answer, int32_t* retries_left) {
  auto it = entries_.find(id);
  if (it == entries_.end()) return TaskVerdict::kNone;
  Entry& entry = it->second;
  if (answer.cancelled) {
    entries_.erase(it);
    return TaskVerdict::kCancelled;
  }
  // One that came to its end all the same, by a value or by an error of its own, did so before the cancellation reached it or in spite of it.
  if (answer.application_error && answer.retryable && !entry.cancelled && entry.retries_left != 0) {
    if (entry.retries_left > 0) --entry.retries_left;
    if (retries_left != nullptr) *retries_left = entry.retries_left;
    ++entry.attempt;
    return TaskVerdict::kRetry;
  }
  if (retries_left != nullptr) *retries_left = entry.retries_left;
  entries_.erase(it);
  return TaskVerdict::kComplete;
}

TaskVerdict TaskTableCore::Lost(const TaskId& id, TaskLoss loss) {
  auto it = entries_.find(id);
  if (it == entries_.end()) return TaskVerdict::kNone;
  Entry& entry = it->second;
  if (entry.cancelled) {
    entries_.erase(it);
    return TaskVerdict::kCancelled;
  }
  if (loss != TaskLoss::kNotRun && !Charge(loss, &entry)) {
    entries_.erase(it);
    return TaskVerdict::kFail;
  }
  ++entry.attempt;
  return TaskVerdict::kRetry;
}

bool TaskTableCore::Charge(TaskLoss loss, Entry* entry) {
  if (loss == TaskLoss::kOutOfMemory) {
    if (entry->oom_retries_left == 0) return false;
    if (entry->oom_retries_left > 0) --entry->oom_retries_left;
    ++entry->ooms;
    return true;
  }
  if (entry->retries_left == 0) return false;
  if (entry->retries_left > 0) --entry->retries_left;
  return true;
}

TaskVerdict TaskTableCore::Failed(const TaskId& id) {
  auto it = entries_.find(id);
  if (it == entries_.end()) return TaskVerdict::kNone;
  bool cancelled = it->second.cancelled;
  entries_.erase(it);
  return cancelled ? TaskVerdict::kCancelled : TaskVerdict::kFail;
}

bool TaskTableCore::Cancel(const TaskId& id) {
  auto it = entries_.find(id);
  if (it == entries_.end()) return false;
  it->second.cancelled = true;
  return true;
}

std::vector<PendingTaskPtr> TaskTableCore::ChildrenOf(const TaskId& parent) const {
  std::vector<PendingTaskPtr> children;
  for (const auto& [id, entry] : entries_) {
    if (entry.task->spec.parent_task_id == parent) children.push_back(entry.task);
  }
  return children;
}

std::vector<PendingTaskPtr> TaskTableCore::Some(size_t max, size_t* left_out) const {
  std::vector<PendingTaskPtr> some;
  some.reserve(std::min(max, entries_.size()));
  *left_out = 0;
  for (const auto& [id, entry] : entries_) {
    if (entry.task->spec.tmpl->omit_task_events) continue;
    if (some.size() < max) {
      some.push_back(entry.task);
    } else {
      ++*left_out;
    }
  }
  return some;
}

}  // namespace ray::core
