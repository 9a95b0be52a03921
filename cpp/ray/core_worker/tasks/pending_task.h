// PendingTask: a task of ours from submission to its verdict. Made by the CoreWorker, kept alive by the TaskManager's table; queues name it by its
// address, which is valid as long as its entry in the table.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "ray/common/ids.h"
#include "ray/core_worker/submit/lease_pool_core.h"
#include "ray/core_worker/tasks/task_table_core.h"
#include "ray/util/clock.h"
#include "ray/wire/task_spec.h"

namespace ray::core {

struct PendingTask : std::enable_shared_from_this<PendingTask> {
  // Constant after submission, but for the fields named below.
  TaskSpec spec;  // attempt, sequence, epoch: set before each push by the queue that pushes; refs: completed by the resolver
  std::vector<ObjectId> return_ids;
  std::vector<ObjectId> held;  // arguments, top-level, nested and stored: submitted holds until the verdict
  size_t held_refs = 0;        // of `held`, the first that are top-level refs
  Time submitted_at;
  ClassNo cls = 0;  // normal tasks
  bool is_streaming() const { return spec.tmpl->num_returns == kStreamingReturns; }
  uint64_t number() const { return reinterpret_cast<uintptr_t>(this); }
  static PendingTask* FromNumber(uint64_t number) { return reinterpret_cast<PendingTask*>(number); }

  // Arguments not ready yet, plus one while they are being looked at.
  std::atomic<uint32_t> unresolved{0};
  // The lease it was last pushed on; 0: none. Written under the submitter's lock.
  std::atomic<LeaseNo> lease{0};
  // Set before its queue is asked to forget it, so that a queue which takes it after that (a retry, a late argument) sees it.
  std::atomic<bool> cancelled{false};
};

}  // namespace ray::core
