// TaskTableCore: what becomes of a task that was submitted here: done, run again, or failed.
//
// Rules: one budget of retries (max_retries, -1 without end) for crashes of the worker and for errors of the program that are declared retryable;
// a task handed back unstarted costs nothing; a cancelled task is never run again, whatever its answer, and fails as cancelled unless it had
// finished. An entry lives from submission to its verdict of kComplete, kFail or kCancelled.
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

class TaskTableCore {
 public:
  struct Entry {
    PendingTaskPtr task;
    bool cancelled = false;
    int32_t retries_left = 0;
    uint32_t attempt = 0;
  };

  void Add(const TaskId& id, PendingTaskPtr task, int32_t max_retries);
  // Null: settled or unknown.
  const Entry* Find(const TaskId& id) const;

  struct Answer {
    bool application_error = false, retryable = false, cancelled = false;
  };
  // `*retries_left`, if not null: of the task that is now complete.
  TaskVerdict Answered(const TaskId& id, const Answer& answer, int32_t* retries_left = nullptr);
  // Its worker or connection went away; it may have run in part. `charge`: uses up a retry.
  TaskVerdict Lost(const TaskId& id, bool charge = true);
  // It cannot run (an argument failed, its actor is dead, it is unschedulable).
  TaskVerdict Failed(const TaskId& id);

  // From now on it is cancelled: it is not run again. The caller takes it out of its queue and calls Failed, or tells its worker. False: settled.
  bool Cancel(const TaskId& id);

  // Tasks that `parent` submitted and that are not settled.
  std::vector<PendingTaskPtr> ChildrenOf(const TaskId& parent) const;
  size_t size() const { return entries_.size(); }

 private:
  std::unordered_map<TaskId, Entry, IdHash> entries_;
};

}  // namespace ray::core
