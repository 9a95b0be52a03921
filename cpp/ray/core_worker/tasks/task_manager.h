// TaskManager: shell of the TaskTableCore. Keeps what the tasks need alive, stores their results with the ObjectService when they are settled, keeps the
// streams of generators, and notes how attempts end.
//
// Owned by the CoreWorker. Thread-safe; nothing is called with the lock held.
#pragma once

#include <functional>
#include <string>

#include "ray/core_worker/objects/object_service.h"
#include "ray/core_worker/recovery/recovery_service.h"
#include "ray/core_worker/tasks/generator_streams.h"
#include "ray/core_worker/tasks/pending_task.h"
#include "ray/core_worker/tasks/task_history.h"
#include "ray/util/mutex.h"
#include "ray/v1/worker_task.pb.h"
#include "ray/wire/error_detail.h"

namespace ray::core {

// Text of a worker's sudden end, and the error value of it.
ErrorValue WorkerDiedError(const std::string& detail);
// `reason`: why the node died, or why it ended the task's worker before it left. The text names the node itself.
ErrorValue NodeDiedError(const NodeId& node, const std::string& reason);
ErrorValue CancelledError(const TaskId& task);

// The tasks of an owner at one moment, but for those that are not to be listed (omit_task_events).
struct TaskList {
  std::vector<PendingTaskPtr> live;
  size_t left_out = 0;  // that are live, too
  std::vector<EndedTask> ended;
  uint64_t forgotten_finished = 0, forgotten_failed = 0;
};

class TaskManager {
 public:
  // What the user is told of a task that failed and runs again: a text, and the error of the user's own code, if that was the cause.
  using RetryNews = std::function<void(std::string text, BufferPtr error)>;
  struct Deps {
    ObjectService* objects = nullptr;
    GeneratorStreams* streams = nullptr;
    RecoveryService* recovery = nullptr;
    const Clock* clock = nullptr;
    int64_t oom_retries = -1;        // see TaskTableCore
    RetryNews on_retry;              // may be null; called from any thread
    size_t max_ended_tasks = 10000;  // see TaskHistory
  };
  explicit TaskManager(Deps deps) : deps_(std::move(deps)), table_(deps_.oom_retries), history_(deps_.max_ended_tasks) {}

  // The returns become pending objects of ours with one handle each, the held arguments are counted.
  void Add(const PendingTaskPtr& task);
  // One that was done, to bring back what it made: what it needs is held already, its returns are pending or need nothing.
  void AddAgain(const PendingTaskPtr& task, int32_t retries_left);

  // It runs, and is past an item of its stream that was lost: has it begin again, for one retry, as soon as it makes or is held back behind an item.
  Begun BeginAgain(const TaskId& id);
  // The answer of an executor. kRetry: the caller submits the task again, everything else is done here.
  TaskVerdict Answered(const PendingTaskPtr& task, const v1::PushTaskReply& reply, const PartList& parts, const TaskWorker& executor);
  struct Loss {
    TaskLoss kind;
    std::string why;       // for people
    uint32_t attempt = 0;  // that was lost
    TaskWorker worker;     // where it was sent
  };
  // Its worker is gone. kFail: the caller calls StoreFailure. kRetry: *ooms is how often it was lost for want of memory.
  TaskVerdict Lost(const PendingTaskPtr& task, const Loss& loss, uint32_t* ooms = nullptr);
  // It was lost on another node, whose store may have results of it that nobody will ever be told of.
  void DropCopies(const PendingTask& task, const NodeId& node);
  // It cannot run: settles it with that error (or as cancelled). `worker`: where it was sent all the same.
  void Fail(const PendingTask& task, const ErrorValue& error, const TaskWorker& worker = {});
  // Stores `error` as all results of a task whose verdict was kFail.
  void StoreFailure(const PendingTask& task, const ErrorValue& error, const TaskWorker& worker = {});
  // The attempt with that number to create an actor of ours has ended, well or by `error`. The task is not in the table: the GCS has it run.
  void NoteCreation(const PendingTask& task, uint32_t number, const TaskWorker& worker, const v1::ErrorDetail* error);

  // Marks it cancelled. Null: settled or not ours.
  PendingTaskPtr Cancel(const TaskId& id);
  PendingTaskPtr Find(const TaskId& id) const;
  std::vector<PendingTaskPtr> ChildrenOf(const TaskId& parent) const;
  bool IsCancelled(const TaskId& id) const;
  size_t size() const;
  // Attempts at `only` (nil: at all tasks); of those that are live at most so many.
  TaskList List(const TaskId& only, size_t max_live) const;

 private:
  void TellRetry(const PendingTask& task, int32_t retries_left, const std::string& why, BufferPtr error);

  TaskAttempt AttemptOf(const PendingTask& task, const TaskWorker& worker) const {
    return {task.spec, task.spec.attempt, worker, task.submitted_at, deps_.clock->Now()};
  }
  void NoteAnswerLocked(const PendingTask& task, const v1::PushTaskReply& reply, const TaskWorker& executor) REQUIRES(mu_);

  const Deps deps_;
  mutable Mutex mu_;
  TaskTableCore table_ GUARDED_BY(mu_);
  TaskHistory history_ GUARDED_BY(mu_);
};

// One return or item of a message; in_store ones are on the executor's node. `next_part` moves on.
ReturnValue ReturnFromProto(const v1::ReturnObject& message, const PartList& parts, size_t* next_part, const Address& executor);

}  // namespace ray::core
