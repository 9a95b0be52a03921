// TaskTableCore: what becomes of a task that was submitted here: done, run again, or failed.
//
// Rules: one budget of retries (max_retries, -1 without end) for crashes of the worker and for errors of the program that are declared retryable;
// a worker ended for want of memory is charged to a budget of its own, which a task has that may be run again at all; a task handed back
// unstarted costs nothing; a cancelled task is never run again, whatever its answer, and fails as cancelled unless it had finished.
// An entry lives from submission to its verdict of kComplete, kFail or kCancelled.
//
// Pure; not thread-safe, the TaskManager holds a lock.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "ray/common/ids.h"

namespace ray::core {

struct PendingTask;
using PendingTaskPtr = std::shared_ptr<PendingTask>;

enum class TaskVerdict : uint8_t {
  kComplete,   // store what came
  kRetry,      // run it again, as the next attempt
  kFail,       // store the error at hand
  kCancelled,  // store that it was cancelled
  kNone,       // it was settled before: nothing to do
};

// How a task's worker went away.
enum class TaskLoss : uint8_t {
  kCrash,
  kOutOfMemory,  // ended by the memory monitor of its node
  kNotRun,       // before the task began
};

class TaskTableCore {
 public:
  // `oom_retries`: how often a task is run again after kOutOfMemory; -1: without end.
  explicit TaskTableCore(int64_t oom_retries = -1) : oom_retries_(oom_retries) {}

  struct Entry {
    PendingTaskPtr task;
    bool cancelled = false;
    int32_t retries_left = 0;
    int64_t oom_retries_left = 0;
    uint32_t attempt = 0;
    uint32_t ooms = 0;  // attempts that ended in kOutOfMemory
  };

  void Add(const TaskId& id, PendingTaskPtr task, int32_t max_retries);
  // Null: settled or unknown.
  const Entry* Find(const TaskId& id) const;

  struct Answer {
    bool application_error = false, retryable = false, cancelled = false;
  };
  // `*retries_left`, if not null: of the task that is now complete.
  TaskVerdict Answered(const TaskId& id, const Answer& answer, int32_t* retries_left = nullptr);
  // Its worker or connection went away; unless kNotRun, it may have run in part.
  TaskVerdict Lost(const TaskId& id, TaskLoss loss);
  // It cannot run (an argument failed, its actor is dead, it is unschedulable).
  TaskVerdict Failed(const TaskId& id);

  // From now on it is cancelled: it is not run again. The caller takes it out of its queue and calls Failed, or tells its worker. False: settled.
  bool Cancel(const TaskId& id);

  // Tasks that `parent` submitted and that are not settled.
  std::vector<PendingTaskPtr> ChildrenOf(const TaskId& parent) const;
  size_t size() const { return entries_.size(); }
  // Up to `max` of those that may be listed; *left_out: how many more there are. In no order.
  std::vector<PendingTaskPtr> Some(size_t max, size_t* left_out) const;

 private:
  // Takes one from the budget that `loss` belongs to. False: there is none.
  static bool Charge(TaskLoss loss, Entry* entry);

  const int64_t oom_retries_;
  std::unordered_map<TaskId, Entry, IdHash> entries_;
};

}  // namespace ray::core
