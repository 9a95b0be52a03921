#include "ray/core_worker/tasks/task_manager.h"

#include <algorithm>
#include <iterator>

#include "ray/wire/convert.h"
#include "ray/wire/value_layout.h"

namespace ray::core {

ErrorValue WorkerDiedError(const std::string& detail) {
  return MakeErrorValue(ErrorType::kWorkerDied, "The worker died unexpectedly while executing this task: " + detail);
}

ErrorValue NodeDiedError(const NodeId& node, const std::string& reason) {
  return MakeErrorValue(ErrorType::kNodeDied,
                        "Task failed because the node it was running on is dead or unavailable: " + reason + ". Node ID: " + node.Hex());
}

ErrorValue CancelledError(const TaskId& task) {
  v1::ErrorDetail detail;
  detail.set_error_type(static_cast<int32_t>(ErrorType::kTaskCancelled));
  detail.set_message("the task was cancelled");
  detail.set_task_id(task.Binary());
  return MakeErrorValue(detail);
}

namespace {

BufferPtr NoneBlob() {
  constexpr std::string_view kPickledNone = "\x80\x05N.";
  auto blob = std::make_shared<HeapBuffer>(PythonBlobSize(kPickledNone.size(), {}));
  WritePythonBlob(kPickledNone, {}, blob->mutable_data());
  return blob;
}

}  // namespace

ReturnValue ReturnFromProto(const v1::ReturnObject& message, const PartList& parts, size_t* next_part, const Address& executor) {
  ReturnValue value;
  value.id = ObjectId::FromBinaryOrNil(message.object_id());
  value.metadata = message.metadata();
  value.in_store = message.in_store();
  value.size = message.size();
  if (value.in_store) {
    value.node_id = executor.node_id;
  } else if (*next_part < parts.size()) {
    value.blob = parts[(*next_part)++];
    value.size = value.blob->size();
  } else {
    ErrorValue error = MakeErrorValue(ErrorType::kObjectLost, "the value of a result was missing in its message");
    value.metadata = error.metadata;
    value.blob = error.blob;
  }
  if (message.nested_size() > 0) value.nested = RefsFromProto(message.nested(), executor);
  value.sender = executor.worker_id;
  return value;
}

void TaskManager::Add(const PendingTaskPtr& task) {
  deps_.objects->AddOwned(task->return_ids);
  if (!task->held.empty()) deps_.objects->AddSubmitted(task->held);
  if (task->is_streaming())
    deps_.streams->Create(task->spec.task_id, task->spec.tmpl->shared_backpressure > 0 ? 1 : task->spec.tmpl->generator_backpressure);
  MutexLock lock(&mu_);
  table_.Add(task->spec.task_id, task, task->spec.tmpl->max_retries);
}

void TaskManager::AddAgain(const PendingTaskPtr& task, int32_t retries_left) {
  if (task->is_streaming()) deps_.streams->BeginReplay(task->spec.task_id);
  MutexLock lock(&mu_);
  table_.Add(task->spec.task_id, task, retries_left);
}

Begun TaskManager::BeginAgain(const TaskId& id) {
  if (!deps_.streams->IsOpen(id)) return Begun::kAgain;  // nothing holds it back: its end says what is to be done
  {
    MutexLock lock(&mu_);
    const auto* entry = table_.Find(id);
    if (entry == nullptr || entry->cancelled || !entry->task->is_streaming())
      return Begun::kAgain;  // its end is near, and says what is to be done
    if (entry->retries_left == 0) return entry->task->spec.tmpl->max_retries == 0 ? Begun::kNever : Begun::kNoRetries;
  }
  deps_.streams->BeginAgain(id);
  return Begun::kAgain;
}

void TaskManager::NoteAnswerLocked(const PendingTask& task, const v1::PushTaskReply& reply, const TaskWorker& executor) {
  TaskAttempt attempt = AttemptOf(task, executor);
  attempt.run = Duration(static_cast<int64_t>(reply.run_ns()));
  // One whose argument turned out to be an error at its worker has failed as well, although its code was not run.
  const bool is_error = reply.returns_size() > 0 && IsErrorMetadata(reply.returns(0).metadata());
  if (reply.has_system_error()) {
    history_.Failed(attempt, reply.system_error().error_type(), reply.system_error().message());
  } else if (is_error) {
    history_.Failed(attempt, ErrorTypeOfMetadata(reply.returns(0).metadata()), reply.error_text());
  } else if (reply.is_application_error()) {
    history_.Failed(attempt, static_cast<int32_t>(ErrorType::kTaskExecutionException), reply.error_text());
  } else {
    history_.Finished(attempt);
  }
}

TaskVerdict TaskManager::Answered(const PendingTaskPtr& task, const v1::PushTaskReply& reply, const PartList& parts,
                                  const TaskWorker& executor) {
  TaskVerdict verdict;
  int32_t retries_left = 0;
  {
    MutexLock lock(&mu_);
    verdict =
        table_.Answered(task->spec.task_id, {reply.is_application_error(), reply.is_retryable_error(), reply.cancelled()}, &retries_left);
    // Ahead of the results, so that whoever has one finds its task in a list. What StoreFailure stores is noted there.
    if (verdict == TaskVerdict::kRetry || (verdict == TaskVerdict::kComplete && !reply.has_system_error()))
      NoteAnswerLocked(*task, reply, executor);
  }
  if (verdict != TaskVerdict::kComplete || reply.has_system_error()) {
    // Nobody reads these values: what came with them goes back. Copies in the store have the ids of the next attempt's, which replaces them.
    size_t part = 0;
    BufferPtr error;  // what was raised; values that were there before it may stand ahead of it
    for (const auto& returned : reply.returns()) {
      ReturnValue value = ReturnFromProto(returned, parts, &part, executor.address);
      value.attempt = task->spec.attempt;
      if (error == nullptr && IsErrorMetadata(value.metadata) && HasPythonLayout(value.metadata)) error = value.blob;
      if (verdict == TaskVerdict::kRetry) value.in_store = false;
      deps_.objects->Discard(value);
    }
    if (verdict == TaskVerdict::kRetry && deps_.on_retry != nullptr && error != nullptr)
      TellRetry(*task, retries_left, "", std::move(error));
  }
  if (verdict == TaskVerdict::kRetry && task->is_streaming()) deps_.recovery->OnAgain(task->spec.task_id);
  if (verdict == TaskVerdict::kNone || verdict == TaskVerdict::kRetry) return verdict;
  if (verdict == TaskVerdict::kCancelled) {
    StoreFailure(*task, reply.has_system_error() ? MakeErrorValue(reply.system_error()) : CancelledError(task->spec.task_id), executor);
    return verdict;
  }
  if (reply.has_system_error()) {
    StoreFailure(*task, MakeErrorValue(reply.system_error()), executor);
    return verdict;
  }
  size_t part = 0;
  bool stream_failed = task->is_streaming() && reply.is_application_error();
  bool could_be_lost = task->is_streaming() || task->spec.attempt > 0;  // these may have left values in the store before
  for (int i = 0; i < reply.returns_size(); ++i) {
    ReturnValue value = ReturnFromProto(reply.returns(i), parts, &part, executor.address);
    value.attempt = task->spec.attempt;
    could_be_lost = could_be_lost || value.in_store;
    if (stream_failed && i == 0) {
      deps_.streams->Fail(task->spec.task_id, reply.generator_items(), {value.metadata, value.blob});
      // The error is the last item; the generator itself has completed.
      value.metadata = kMetadataPython;
      value.blob = NoneBlob();
    }
    deps_.objects->StoreReturn(value);
  }
  if (task->is_streaming() && !stream_failed) deps_.streams->End(task->spec.task_id, reply.generator_items());
  if (could_be_lost) {
    if (task->is_streaming()) deps_.streams->EndReplay(task->spec.task_id);
    // One that was told to stop might have given more.
    const bool all = task->is_streaming() && !stream_failed && !reply.generator_stopped();
    deps_.recovery->OnDone(*task, retries_left, all ? reply.generator_items() : -1);
  }
  if (!task->held.empty()) deps_.objects->RemoveSubmitted(task->held);
  return verdict;
}

void TaskManager::TellRetry(const PendingTask& task, int32_t retries_left, const std::string& why, BufferPtr error) {
  const std::string left = retries_left < 0 ? "infinite" : std::to_string(retries_left + 1);  // with the one that begins
  deps_.on_retry("Task " + task.spec.tmpl->DisplayName() + " failed. There are " + left +
                     " retries remaining, so the task will be retried. Error: " + why,
                 std::move(error));
}

TaskVerdict TaskManager::Lost(const PendingTaskPtr& task, const Loss& loss, uint32_t* ooms) {
  TaskVerdict verdict;
  int32_t retries_left = 0;
  {
    MutexLock lock(&mu_);
    verdict = table_.Lost(task->spec.task_id, loss.kind);
    if (const auto* entry = table_.Find(task->spec.task_id); entry != nullptr) {
      retries_left = entry->retries_left;
      if (ooms != nullptr) *ooms = entry->ooms;
    }
    if (verdict == TaskVerdict::kRetry && loss.kind != TaskLoss::kNotRun) {
      const ErrorType type = loss.kind == TaskLoss::kOutOfMemory             ? ErrorType::kOutOfMemory
                             : task->spec.tmpl->type == TaskType::kActorTask ? ErrorType::kActorUnavailable
                                                                             : ErrorType::kWorkerDied;
      TaskAttempt attempt = AttemptOf(*task, loss.worker);
      attempt.attempt = loss.attempt;
      history_.Failed(attempt, static_cast<int32_t>(type), loss.why);
    }
  }
  if (verdict == TaskVerdict::kRetry && task->is_streaming()) deps_.recovery->OnAgain(task->spec.task_id);
  // What is ended for want of memory is told by the node.
  if (verdict == TaskVerdict::kRetry && loss.kind == TaskLoss::kCrash && deps_.on_retry != nullptr)
    TellRetry(*task, retries_left, loss.why, nullptr);
  if (verdict == TaskVerdict::kCancelled) StoreFailure(*task, CancelledError(task->spec.task_id), loss.worker);
  return verdict;
}

void TaskManager::DropCopies(const PendingTask& task, const NodeId& node) {
  for (const ObjectId& id : task.return_ids) {
    StoredValue known;  // of an earlier run, and still good
    if (deps_.objects->Lookup(id, &known) && std::find(known.node_ids.begin(), known.node_ids.end(), node) != known.node_ids.end())
      continue;
    deps_.objects->FreeCopy({id, task.spec.attempt}, node);
  }
}

void TaskManager::Fail(const PendingTask& task, const ErrorValue& error, const TaskWorker& worker) {
  TaskVerdict verdict;
  PendingTaskPtr keep;
  {
    MutexLock lock(&mu_);
    if (const auto* entry = table_.Find(task.spec.task_id)) keep = entry->task;
    verdict = table_.Failed(task.spec.task_id);
  }
  if (verdict == TaskVerdict::kNone) return;
  StoreFailure(task, verdict == TaskVerdict::kCancelled ? CancelledError(task.spec.task_id) : error, worker);
}

void TaskManager::StoreFailure(const PendingTask& task, const ErrorValue& error, const TaskWorker& worker) {
  {
    const Result<v1::ErrorDetail> detail =
        error.blob == nullptr ? Status::NotFound("a value without a text") : ParseErrorValue(error.metadata, error.blob->view());
    MutexLock lock(&mu_);
    history_.Failed(AttemptOf(task, worker), ErrorTypeOfMetadata(error.metadata), detail.ok() ? detail->message() : "");
  }
  if (task.is_streaming()) {
    deps_.streams->Fail(task.spec.task_id, -1, error);
    deps_.streams->EndReplay(task.spec.task_id);
  }
  for (const ObjectId& id : task.return_ids) deps_.objects->StoreError(id, error.metadata, error.blob);
  if (task.spec.attempt > 0) {
    // An earlier attempt may have left copies in the store, of no use unless it was a run that completed and they are known.
    std::vector<ObjectId> left;
    for (const ObjectId& id : task.return_ids) {
      StoredValue value;
      if (!deps_.objects->Lookup(id, &value) || !value.in_store) left.push_back(id);
    }
    if (!left.empty()) deps_.objects->store()->Free(left);
  }
  if (task.is_streaming() || task.spec.attempt > 0) deps_.recovery->OnFailed(task, error);
  if (!task.held.empty()) deps_.objects->RemoveSubmitted(task.held);
}

PendingTaskPtr TaskManager::Cancel(const TaskId& id) {
  MutexLock lock(&mu_);
  const auto* entry = table_.Find(id);
  if (entry == nullptr) return nullptr;
  PendingTaskPtr task = entry->task;
  table_.Cancel(id);
  task->cancelled = true;
  return task;
}

PendingTaskPtr TaskManager::Find(const TaskId& id) const {
  MutexLock lock(&mu_);
  const auto* entry = table_.Find(id);
  return entry == nullptr ? nullptr : entry->task;
}

std::vector<PendingTaskPtr> TaskManager::ChildrenOf(const TaskId& parent) const {
  MutexLock lock(&mu_);
  return table_.ChildrenOf(parent);
}

bool TaskManager::IsCancelled(const TaskId& id) const {
  MutexLock lock(&mu_);
  const auto* entry = table_.Find(id);
  return entry != nullptr && entry->cancelled;
}

size_t TaskManager::size() const {
  MutexLock lock(&mu_);
  return table_.size();
}

void TaskManager::NoteCreation(const PendingTask& task, uint32_t number, const TaskWorker& worker, const v1::ErrorDetail* error) {
  TaskAttempt attempt = AttemptOf(task, worker);
  attempt.attempt = number;
  MutexLock lock(&mu_);
  if (error == nullptr) {
    history_.Finished(attempt);
  } else {
    history_.Failed(attempt, error->error_type(), error->message());
  }
}

TaskList TaskManager::List(const TaskId& only, size_t max_live) const {
  TaskList list;
  const auto add_ended = [&list, &only](const std::vector<EndedTask>& ended) {
    if (only.IsNil()) {
      list.ended.insert(list.ended.end(), ended.begin(), ended.end());
      return;
    }
    std::ranges::copy_if(ended, std::back_inserter(list.ended), [&only](const EndedTask& entry) { return entry.id == only; });
  };
  MutexLock lock(&mu_);
  list.forgotten_finished = history_.forgotten_finished();
  list.forgotten_failed = history_.forgotten_failed();
  if (only.IsNil()) {
    list.live = table_.Some(max_live, &list.left_out);
  } else if (const auto* entry = table_.Find(only)) {
    list.live.push_back(entry->task);
  }
  add_ended(history_.finished());
  add_ended(history_.failed());
  return list;
}

}  // namespace ray::core
