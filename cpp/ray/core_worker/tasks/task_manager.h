// TaskManager: shell of the TaskTableCore. Keeps what the tasks need alive, stores their results with the ObjectService when they are settled, and
// keeps the streams of generators.
//
// Owned by the CoreWorker. Thread-safe; nothing is called with the lock held.
#pragma once

#include <functional>
#include <string>

#include "ray/core_worker/objects/object_service.h"
#include "ray/core_worker/recovery/recovery_service.h"
#include "ray/core_worker/tasks/generator_streams.h"
#include "ray/core_worker/tasks/pending_task.h"
#include "ray/util/mutex.h"
#include "ray/v1/worker_task.pb.h"
#include "ray/wire/error_detail.h"

namespace ray::core {

// Text of a worker's sudden end, and the error value of it.
ErrorValue WorkerDiedError(const std::string& detail);
ErrorValue NodeDiedError(const NodeId& node, const std::string& detail);
ErrorValue CancelledError(const TaskId& task);

class TaskManager {
 public:
  // What the user is told of a task that failed and runs again: a text, and the error of the user's own code, if that was the cause.
  using RetryNews = std::function<void(std::string text, BufferPtr error)>;
  // `oom_retries`: see TaskTableCore. `on_retry` may be null; it is called from any thread.
  TaskManager(ObjectService* objects, GeneratorStreams* streams, RecoveryService* recovery, int64_t oom_retries = -1,
              RetryNews on_retry = nullptr)
      : objects_(objects), streams_(streams), recovery_(recovery), on_retry_(std::move(on_retry)), table_(oom_retries) {}

  // The returns become pending objects of ours with one handle each, the held arguments are counted.
  void Add(const PendingTaskPtr& task);
  // One that was done, to bring back what it made: what it needs is held already, its returns are pending or need nothing.
  void AddAgain(const PendingTaskPtr& task, int32_t retries_left);

  // The answer of an executor on `executor_node`. kRetry: the caller submits the task again, everything else is done here.
  TaskVerdict Answered(const PendingTaskPtr& task, const v1::PushTaskReply& reply, const PartList& parts, const Address& executor);
  // Its worker is gone, `why` for people. kFail: the caller calls StoreFailure. kRetry: *ooms is how often it was lost for want of memory.
  TaskVerdict Lost(const PendingTaskPtr& task, TaskLoss loss, const std::string& why, uint32_t* ooms = nullptr);
  // It was lost on another node, whose store may have results of it that nobody will ever be told of.
  void DropCopies(const PendingTask& task, const NodeId& node);
  // It cannot run: settles it with that error (or as cancelled).
  void Fail(const PendingTask& task, const ErrorValue& error);
  // Stores `error` as all results of a task whose verdict was kFail.
  void StoreFailure(const PendingTask& task, const ErrorValue& error);

  // Marks it cancelled. Null: settled or not ours.
  PendingTaskPtr Cancel(const TaskId& id);
  PendingTaskPtr Find(const TaskId& id) const;
  std::vector<PendingTaskPtr> ChildrenOf(const TaskId& parent) const;
  bool IsCancelled(const TaskId& id) const;
  size_t size() const;

 private:
  void TellRetry(const PendingTask& task, int32_t retries_left, const std::string& why, BufferPtr error);

  ObjectService* const objects_;
  GeneratorStreams* const streams_;
  RecoveryService* const recovery_;
  const RetryNews on_retry_;
  mutable Mutex mu_;
  TaskTableCore table_ GUARDED_BY(mu_);
};

// One return or item of a message; in_store ones are on the executor's node. `next_part` moves on.
ReturnValue ReturnFromProto(const v1::ReturnObject& message, const PartList& parts, size_t* next_part, const Address& executor);

}  // namespace ray::core
