#include "ray/core_worker/execute/task_receiver.h"

#include <signal.h>

#include <algorithm>
#include <utility>

#include "ray/util/logging.h"
#include "ray/wire/convert.h"
#include "ray/wire/error_detail.h"
#include "ray/wire/value_layout.h"

namespace ray::core {
namespace {

constexpr uint32_t kMaxCorked = 16;

struct Current {
  TaskId task;
  int64_t depth = -1;
};
thread_local Current current;
// The receiver whose WaitForWork woke this thread, until it calls TryNext.
thread_local const void* expected_by = nullptr;

// What a task that was cancelled while it ran becomes at its owner; `error` is the RayTaskError that tells where it was.
void SetInterrupted(const TaskSpec& spec, const ValueView& error, v1::PushTaskReply* reply) {
  v1::ErrorDetail* detail = reply->mutable_system_error();
  detail->set_error_type(static_cast<int32_t>(ErrorType::kTaskCancelled));
  detail->set_message("the task was cancelled");
  detail->set_task_id(spec.task_id.Binary());
  std::string* blob = detail->mutable_cause();
  blob->resize(PythonBlobSize(error.data.size(), error.buffers));
  WritePythonBlob(error.data, error.buffers, reinterpret_cast<uint8_t*>(blob->data()));
}

// A stream that ended since it is to begin again, for a retry. Where it cannot, it was cancelled meanwhile.
void SetBeginsAgain(const TaskSpec& spec, v1::PushTaskReply* reply) {
  reply->set_is_application_error(true);
  reply->set_is_retryable_error(true);
  v1::ErrorDetail* detail = reply->mutable_system_error();
  detail->set_error_type(static_cast<int32_t>(ErrorType::kTaskCancelled));
  detail->set_message("the task was cancelled when it was about to make its items again, of which one was lost");
  detail->set_task_id(spec.task_id.Binary());
}

}  // namespace

struct TaskReceiver::ReplyState {
  v1::PushTaskReply message;
  PartList parts;
  std::atomic<uint32_t> pending{0};
  bool corked = false;
};

void TaskReceiver::RegisterHandlers(rpc::Dispatcher* dispatcher) {
  dispatcher->Register(MethodId::kPushTask, [this](rpc::Request request, rpc::Responder responder) {
    static thread_local v1::PushTaskRequest message;
    if (!message.ParseFromArray(request.control.data(), static_cast<int>(request.control.size()))) {
      if (responder.valid()) responder.Fail(Status::InvalidArgument("a task that cannot be parsed"));
      return;
    }
    if (responder.valid()) HandlePush(message, request, std::move(responder));
  });
  dispatcher->RegisterTyped<v1::StealTasksRequest>(MethodId::kStealTasks, [this](const v1::StealTasksRequest& message, rpc::Request&,
                                                                                 rpc::Responder) { HandBack(message.max_tasks()); });
  dispatcher->RegisterTyped<v1::CancelTaskRequest>(MethodId::kCancelTask,
                                                   [this](const v1::CancelTaskRequest& message, rpc::Request&, rpc::Responder responder) {
                                                     HandleCancel(message, std::move(responder));
                                                   });
  dispatcher->RegisterTyped<v1::ExitRequest>(
      MethodId::kExit, [this](const v1::ExitRequest& message, rpc::Request&, rpc::Responder) { HandleExit(message); });
}

// --- arrival ---

void TaskReceiver::HandlePush(const v1::PushTaskRequest& message, rpc::Request& request, rpc::Responder responder) {
  uint64_t connection = request.connection->id();
  if (deps_.kept_answers > 0 && message.push() != 0 &&
      !answers_.Begin(std::to_string(connection) + ':' + std::to_string(message.push()), &responder))
    return;
  auto [caller, fresh] = callers_.try_emplace(connection);
  if (fresh) request.connection->OnClose([this, connection](const Status&) { OnConnectionClosed(connection); });
  auto decoded = caller->second.templates.Decode(message.spec(), std::move(request.parts));
  if (!decoded.ok()) {
    responder.Fail(decoded.status());
    return;
  }
  auto task = std::make_shared<ReceivedTask>();
  task->spec = std::move(*decoded);
  task->responder = std::move(responder);
  task->connection = request.connection;
  task->instances.assign(message.instances().begin(), message.instances().end());
  const TaskSpec& spec = task->spec;
  bool creation = spec.tmpl->type == TaskType::kActorCreation;
  bool call = spec.tmpl->type == TaskType::kActorTask;
  if (fresh && !creation) deps_.peers->Adopt(spec.owner, request.connection);
  bool remote_args = spec.args_object.has_value();
  for (const TaskArg& arg : spec.refs) remote_args |= arg.value == nullptr;
  bool refused, stalled;
  {
    MutexLock lock(&mu_);
    stalled = stalled_;
    task->token = next_token_++;
    refused = !call && !creation && (leaving_ || blocked_ > 0 || exit_requested_);
    if (!refused) {
      if (call) {
        refused = !queue_.AddCall(task->token, connection, spec.epoch, spec.sequence, spec.tmpl->concurrency_group, spec.tmpl->out_of_order,
                                  !remote_args);
        if (refused) return;  // sent twice: the responder's end tells
      } else {
        // Should this process end, its owner takes the first of what it sent here for what ran, and runs the others again. So what must not run twice is
        // not overtaken; nor is what was lost before, lest it is charged for the deaths of others again and again.
        queue_.AddTask(task->token, !remote_args, /*in_order=*/spec.tmpl->max_retries == 0 || spec.attempt > 0);
      }
      runs_.emplace(task->token, task);
      if (!remote_args) WakeForRunnableLocked();
    }
  }
  if (refused) {
    v1::PushTaskReply reply;
    reply.set_returned(true);
    task->responder.Send(reply);
    return;
  }
  if (remote_args) FetchArguments(task);
  if (stalled) MaybeEndStall();
}

void TaskReceiver::FetchArguments(const ReceivedTaskPtr& task) {
  std::vector<ObjectRefInfo> wanted;
  if (task->spec.args_object) wanted.push_back(*task->spec.args_object);
  for (const TaskArg& arg : task->spec.refs) {
    if (arg.value == nullptr) wanted.push_back(arg.ref);
  }
  task->unfetched = static_cast<uint32_t>(wanted.size()) + 1;
  auto one = [this, task] {
    if (task->unfetched.fetch_sub(1) == 1) MarkReady(task->token);
  };
  for (const ObjectRefInfo& ref : wanted) {
    task->borrowed.push_back(ref.id);
    deps_.objects->AddBorrowedRef(ref, ObjectId::Nil(), task->token);
  }
  bool is_async;
  {
    MutexLock lock(&mu_);
    is_async = is_async_actor_;
  }
  for (const ObjectRefInfo& ref : wanted) {
    if (is_async) {  // its event loop must not stand still until a copy has come, which may take another call of this actor
      deps_.objects->BringObject(ref, one);
    } else {
      deps_.objects->WatchObject(ref, one);
    }
  }
  one();
  WatchForStall();
}

void TaskReceiver::MarkReady(uint64_t token) {
  {
    MutexLock lock(&mu_);
    queue_.SetReady(token);
    WakeIfWorkLocked();
  }
  MaybeEndStall();
}

void TaskReceiver::WatchForStall() {
  {
    MutexLock lock(&mu_);
    if (!MayBeginStallLocked()) return;
    watching_ = true;
  }
  StartWatch();
}

void TaskReceiver::StartWatch() {
  deps_.loop->AddTimer(kStallPatience, [this] {
    {
      MutexLock lock(&mu_);
      watching_ = false;
      stalled_ = queue_.IsStalled() && !is_actor_;
    }
    TellBlocked();
  });
}

bool TaskReceiver::MayBeginStallLocked() const { return !watching_ && !stalled_ && !is_actor_ && queue_.IsStalled(); }

void TaskReceiver::OnQueueShrunk() {
  MaybeEndStall();
  WatchForStall();
}

void TaskReceiver::MaybeEndStall() {
  {
    MutexLock lock(&mu_);
    if (!stalled_ || queue_.IsStalled()) return;
    stalled_ = false;
  }
  TellBlocked();
}

void TaskReceiver::WakeLocked() {
  if (waiters_.empty()) return;
  async::Waiter* waiter = waiters_.back();
  waiters_.pop_back();
  ++coming_;
  waiter->Notify();  // under the lock: the waiter lives on a stack that is left under it
}

// One at a time: whoever comes and finds more than it can do wakes the next.
void TaskReceiver::WakeForRunnableLocked() {
  if (coming_ == 0) WakeLocked();
}

void TaskReceiver::WakeIfWorkLocked() {
  if (!waiters_.empty() && HasWorkLocked()) WakeForRunnableLocked();
}

void TaskReceiver::OnConnectionClosed(uint64_t id) {
  callers_.erase(id);
  std::vector<ReceivedTaskPtr> dropped;
  {
    MutexLock lock(&mu_);
    std::vector<uint64_t> tokens = queue_.DropCaller(id);
    // Normal tasks of an owner that is gone have nobody to run for; calls of actors that came are run.
    for (const auto& [token, task] : runs_) {
      if (task->connection->id() == id && !task->running && task->spec.tmpl->type == TaskType::kNormal && queue_.Remove(token))
        tokens.push_back(token);
    }
    for (uint64_t token : tokens) {
      auto it = runs_.find(token);
      if (it == runs_.end()) continue;
      dropped.push_back(std::move(it->second));
      runs_.erase(it);
    }
    WakeIfWorkLocked();  // for what these held up, or to leave
  }
  OnQueueShrunk();
  for (const auto& task : dropped) Abandon(task, {});
}

void TaskReceiver::Abandon(const ReceivedTaskPtr& task, const v1::PushTaskReply& reply) {
  for (const ObjectId& id : task->borrowed) deps_.objects->RemoveLocalRef(id);
  deps_.objects->RegisterBorrowsAndThen(task->token, [task, reply] { task->responder.Send(reply); });
}

void TaskReceiver::HandBack(uint32_t max) {
  std::vector<ReceivedTaskPtr> tasks;
  {
    MutexLock lock(&mu_);
    for (uint64_t token : queue_.TakeUnstarted(max)) {
      auto it = runs_.find(token);
      if (it == runs_.end()) continue;
      tasks.push_back(std::move(it->second));
      runs_.erase(it);
    }
    WakeIfWorkLocked();  // to leave, if that was all that kept it
  }
  OnQueueShrunk();
  v1::PushTaskReply reply;
  reply.set_returned(true);
  for (const auto& task : tasks) Abandon(task, reply);
}

void TaskReceiver::HandleCancel(const v1::CancelTaskRequest& message, rpc::Responder responder) {
  if (responder.valid() && !message.request_id().empty() && !cancels_done_.Begin(message.request_id(), &responder)) return;
  TaskId id = TaskId::FromBinaryOrNil(message.task_id());
  ReceivedTaskPtr queued;
  bool found = false, end = false;
  {
    MutexLock lock(&mu_);
    for (auto it = runs_.begin(); it != runs_.end(); ++it) {
      ReceivedTask& task = *it->second;
      if (task.spec.task_id != id) continue;
      found = true;
      task.cancelled = true;
      if (!task.running && queue_.Remove(it->first)) {
        queued = std::move(it->second);
        runs_.erase(it);
        WakeIfWorkLocked();  // for what it held up, or to leave
      } else if (message.force()) {
        end = true;
      } else if (is_async_actor_) {
        cancels_.push_back(it->second);
        WakeLocked();
      } else if (!is_actor_ && interrupt_thread_ != 0) {
        pthread_kill(interrupt_thread_, SIGINT);
      }
      break;
    }
  }
  if (end) {
    // The owner sees the connection break and knows why.
    RAY_LOG(INFO) << "task " << id << " is cancelled by force: the process ends";
    if (deps_.announce_end) deps_.announce_end("it ran a task that was cancelled by force", /*intended=*/true);
    return deps_.exit(1);
  }
  if (queued != nullptr) {
    OnQueueShrunk();
    v1::PushTaskReply reply;
    reply.set_cancelled(true);
    Abandon(queued, reply);
  }
  if (found && message.recursive() && deps_.cancel_children) deps_.cancel_children(id, message.force());
  if (!found && deps_.cancel_owned) found = deps_.cancel_owned(id, message.force(), message.recursive());
  if (responder.valid()) {
    v1::CancelTaskReply reply;
    reply.set_found(found);
    responder.Send(reply);
  }
}

void TaskReceiver::HandleExit(const v1::ExitRequest& message) {
  if (message.force()) {
    RAY_LOG(INFO) << "told to end at once: " << message.reason();
    return deps_.exit(0);
  }
  bool actor;
  {
    MutexLock lock(&mu_);
    exit_requested_ = true;
    exit_reason_ = message.reason();
    actor = is_actor_;
    moving_ = moving_ || (actor && message.leave_queued());
    WakeLocked();
  }
  if (!actor) HandBack(0);
}

// --- running ---

bool TaskReceiver::PopLocked(NextItem* out) {
  if (!cancels_.empty()) {
    out->kind = NextItem::kCancel;
    out->task = std::move(cancels_.front());
    cancels_.pop_front();
    return true;
  }
  if (auto run = moving_ ? std::nullopt : queue_.Next()) {
    auto it = runs_.find(*run);
    out->kind = NextItem::kRun;
    out->task = it->second;
    it->second->running = true;
    if (!waiters_.empty() && queue_.HasRunnable()) WakeForRunnableLocked();  // another thread
    return true;
  }
  if (MayExitLocked()) {
    exit_told_ = true;
    out->kind = NextItem::kExit;
    out->reason = exit_reason_;
    return true;
  }
  return false;
}

bool TaskReceiver::HasWorkLocked() const { return !cancels_.empty() || (!moving_ && queue_.HasRunnable()) || MayExitLocked(); }

bool TaskReceiver::MayExitLocked() const {
  return exit_requested_ && !exit_told_ && (moving_ || queue_.unstarted() == 0) && queue_.running() == 0;
}

bool TaskReceiver::TryNext(NextItem* out) {
  MutexLock lock(&mu_);
  if (expected_by == this) {
    expected_by = nullptr;
    --coming_;
  }
  return PopLocked(out);
}

bool TaskReceiver::WaitForWork(Time deadline) {
  deps_.loop->LeaveUserCode();
  async::Waiter waiter;
  bool idle;
  {
    MutexLock lock(&mu_);
    const bool have = HasWorkLocked();
    if (have || other_event_.load(std::memory_order_relaxed)) {
      deps_.loop->EnterUserCode();
      return have;
    }
    idle = queue_.running() == 0;
    waiters_.push_back(&waiter);
  }
  const async::WaitResult result = deps_.loop->Wait(&waiter, deadline, /*may_spin=*/idle);
  MutexLock lock(&mu_);
  if (!waiter.IsSet()) {
    std::erase(waiters_, &waiter);
    return false;
  }
  if (result != async::WaitResult::kDone) {  // woken and leaving all the same: the wake-up is handed on
    --coming_;
    WakeLocked();
    return false;
  }
  expected_by = this;
  deps_.loop->EnterUserCode();
  return true;
}

void TaskReceiver::OnOtherEvent() {
  MutexLock lock(&mu_);
  other_event_.store(true);
  WakeLocked();
}

bool TaskReceiver::CanBlock(const NextItem& item) {
  if (item.kind != NextItem::kRun) return false;
  const TaskSpec& spec = item.task->spec;
  return spec.args_object.has_value() || std::ranges::any_of(spec.refs, [](const TaskArg& arg) { return arg.value == nullptr; });
}

bool TaskReceiver::Prepare(const NextItem& item) {
  if (item.kind != NextItem::kRun) return true;
  if (!LoadArguments(item.task)) return false;
  if (item.task->spec.tmpl->timeout_s > 0) StartClock(item.task);
  return true;
}

bool TaskReceiver::LoadArguments(const ReceivedTaskPtr& run) {
  ReceivedTask& task = *run;
  task.started.store(deps_.loop->clock().Now(), std::memory_order_relaxed);
  if (task.spec.args != nullptr) {
    task.args = {std::string(kMetadataPython), task.spec.args};
  }
  if (task.spec.refs.empty() && !task.spec.args_object) return true;
  auto read = [&](const ObjectRefInfo& ref) {
    ReadValue value;
    if (deps_.objects->TryGet(ref, &value)) return value;
    std::vector<ReadValue> values;
    ReadResult result = ReadResult::kInterrupted;
    while (result == ReadResult::kInterrupted && !task.cancelled) result = deps_.objects->Get(std::span(&ref, 1), -1, &values);
    if (result == ReadResult::kReady && !values.empty() && !values[0].metadata.empty()) return values[0];
    ErrorValue error = MakeErrorValue(ErrorType::kDependencyResolutionFailed, "an argument of the task could not be fetched");
    return ReadValue{error.metadata, error.blob};
  };
  const ReadValue* failed = nullptr;
  if (task.spec.args_object) {
    task.args = read(*task.spec.args_object);
    if (IsErrorMetadata(task.args.metadata)) failed = &task.args;
  }
  task.ref_values.reserve(task.spec.refs.size());
  for (const TaskArg& arg : task.spec.refs) {
    task.ref_values.push_back(arg.value != nullptr ? ReadValue{arg.metadata, arg.value} : read(arg.ref));
  }
  if (task.cancelled) {
    TaskResult result;
    result.cancelled = true;
    if (Status status = Finish(run, result); !status.ok()) RAY_LOG(WARNING) << "result of a cancelled task: " << status.ToString();
    return false;
  }
  for (const ReadValue& value : task.ref_values) {
    if (failed == nullptr && IsErrorMetadata(value.metadata)) failed = &value;
  }
  if (failed == nullptr) return true;
  const ErrorValue made = MakeDependencyError({failed->metadata, failed->blob}, task.spec.tmpl->DisplayName());
  const ReadValue error{made.metadata, made.blob};
  std::vector<ConstBytes> buffers;
  ValueView view{error.metadata, error.blob->view(), {}, {}};
  // The blob is laid out already where it holds a pickle: its parts are written anew.
  if (HasPythonLayout(error.metadata)) {
    auto parsed = ParsePythonBlob(error.blob->view());
    if (parsed.ok()) {
      view.data = parsed->pickle;
      buffers = std::move(parsed->buffers);
      view.buffers = buffers;
    }
  }
  TaskResult result;
  result.returns.push_back(view);
  result.application_error = task.spec.tmpl->type == TaskType::kActorCreation;  // there is no actor then
  Status status = Finish(run, result);
  if (!status.ok()) RAY_LOG(WARNING) << "result of a task with a failed argument: " << status.ToString();
  return false;
}

ReceivedTaskPtr TaskReceiver::FindRun(uint64_t token) {
  MutexLock lock(&mu_);
  auto it = runs_.find(token);
  return it == runs_.end() ? nullptr : it->second;
}

void TaskReceiver::DropOlder(const ObjectId& id) {
  if (Status status = deps_.objects->store()->FreeAndWait({id}); !status.ok()) {
    RAY_LOG(WARNING) << "what an earlier attempt left of " << id << " may still be in the store: " << status.ToString();
  }
}

void TaskReceiver::Store(const ObjectId& id, const TaskSpec& spec, const ValueView& value, v1::ReturnObject* out, PartList* parts,
                         ReturnPlace place) {
  StoredReturn stored;
  Status status = deps_.objects->MakeReturn({id, spec.attempt}, spec.owner, value, &stored, place);
  out->set_object_id(id.data(), ObjectId::kSize);
  if (!status.ok()) {
    ErrorValue error = MakeErrorValue(DetailOf(status, ErrorType::kObjectStoreFull));
    out->set_metadata(error.metadata);
    parts->push_back(error.blob);
    return;
  }
  out->set_metadata(value.metadata.data(), value.metadata.size());
  out->set_size(stored.size);
  if (stored.in_store) {
    out->set_in_store(true);
  } else {
    parts->push_back(std::move(stored.blob));
  }
  for (const ObjectRefInfo& ref : value.nested) ToProto(ref, out->add_nested());
}

Status TaskReceiver::Finish(const ReceivedTaskPtr& task, const TaskResult& result) {
  if (task == nullptr || task->finished.exchange(true)) return Status::NotFound("no such run");
  // Reused from run to run unless a reply still waits for acknowledgements.
  static thread_local ReplyStatePtr reusable;
  if (reusable == nullptr || reusable.use_count() > 1) reusable = std::make_shared<ReplyState>();
  ReplyStatePtr state = reusable;
  state->message.Clear();
  state->parts.clear();
  v1::PushTaskReply& reply = state->message;
  const TaskSpec& spec = task->spec;
  bool creation = spec.tmpl->type == TaskType::kActorCreation;
  bool answered = false;
  const bool timed_out = spec.tmpl->timeout_s > 0 && StopClock(task, &answered);
  const bool again = task->again && !timed_out && !result.cancelled;
  if (timed_out) {
    SetTimedOut(spec, &reply);
  } else if (again) {
    SetBeginsAgain(spec, &reply);
  } else {
    if (result.application_error) reply.set_is_application_error(true);
    if (!result.error_text.empty()) reply.set_error_text(result.error_text);
    if (result.retryable_error) reply.set_is_retryable_error(true);
    if (result.cancelled) {
      reply.set_cancelled(true);
      if (!result.returns.empty()) SetInterrupted(spec, result.returns.front(), &reply);
    }
  }
  if (result.worker_exiting) reply.set_worker_exiting(true);
  if (result.generator_items != 0) reply.set_generator_items(result.generator_items);
  if (task->stop) reply.set_generator_stopped(true);
  if (!result.repr_name.empty()) reply.set_repr_name(result.repr_name);
  reply.set_run_ns(result.run_ns != 0
                       ? result.run_ns
                       : static_cast<uint64_t>((deps_.loop->clock().Now() - task->started.load(std::memory_order_relaxed)).count()));
  // A failed creation has no return ids, yet the raylet wants the error.
  uint32_t n = creation ? (result.application_error ? 1 : 0) : spec.tmpl->NumReturnIds();
  std::vector<ValueView> values;
  // The error of a creation goes into the record of the actor, that of a stream becomes the item after the last: neither is kept under the return's id.
  const bool moves_on = result.application_error && (creation || spec.tmpl->num_returns == kStreamingReturns);
  if (!result.returns.empty() && !timed_out && !result.cancelled && !again) {
    InlineBudget budget;
    for (uint32_t i = 0; i < n; ++i) {
      const ValueView& value = result.returns[std::min<size_t>(i, result.returns.size() - 1)];
      const ObjectId id = ObjectId::ForReturn(spec.task_id, i);
      if (spec.attempt > 0) DropOlder(id);
      const ReturnPlace place = moves_on ? ReturnPlace::kInline : budget.spent() ? ReturnPlace::kStore : ReturnPlace::kBySize;
      v1::ReturnObject* returned = reply.add_returns();
      Store(id, spec, value, returned, &state->parts, place);
      if (!returned->in_store()) budget.Add(state->parts.back()->size(), value.nested.size());
      if (!value.nested.empty()) values.push_back(value);
    }
  }
  bool leave = false, unblocked = false, may_stall = false;
  {
    MutexLock lock(&mu_);
    queue_.Finished(task->token);
    runs_.erase(task->token);
    if (queue_.running() == 0) {
      ++work_;
      // Threads that are blocked still are not part of what comes next.
      unblocked = std::exchange(blocked_, 0) != 0;
    }
    if (creation && !result.application_error && !result.cancelled && spec.creation) {
      is_actor_ = true;
      is_async_actor_ = spec.creation->is_async;
      is_threaded_actor_ = !is_async_actor_ && (spec.creation->max_concurrency > 1 || !spec.creation->concurrency_groups.empty());
      queue_.Configure(spec.creation->max_concurrency, spec.creation->concurrency_groups);
    }
    // A cancelled method runs on to its end, since nothing may interrupt it; its value is no longer wanted, an error of its own says more.
    // That of an async actor was interrupted, and what it made of that is its own affair.
    if (task->cancelled && is_actor_ && !creation && !timed_out && (is_async_actor_ || !result.application_error))
      reply.set_cancelled(true);
    if (result.worker_exiting) leave = leaving_ = true;
    // More of the same follows at once: the reply may wait for the next ones. A task of another kind could end the process, and a retry may be
    // one that did: then what is done is told first. So is what must not run twice, as it would if the owner took it for unfinished.
    state->corked = false;
    if (corked_ < kMaxCorked && spec.attempt == 0 && (spec.tmpl->max_retries != 0 || spec.tmpl->type != TaskType::kNormal)) {
      if (result.more_follows) {
        state->corked = true;
      } else if (auto next = queue_.Peek()) {
        auto it = runs_.find(*next);
        state->corked = it != runs_.end() && it->second->spec.tmpl->key == spec.tmpl->key && it->second->spec.attempt == 0;
      }
    }
    corked_ = state->corked ? corked_ + 1 : 0;
    may_stall = MayBeginStallLocked();
    watching_ = watching_ || may_stall;
    if (!waiters_.empty()) {
      if (exit_requested_) {
        WakeLocked();
      } else if (queue_.HasRunnable()) {
        WakeForRunnableLocked();
      }
    }
  }
  if (unblocked) TellBlocked();
  if (may_stall) deps_.loop->Post("stall", [this] { StartWatch(); });
  if (leave) HandBack(0);
  for (const ObjectId& id : task->borrowed) deps_.objects->RemoveLocalRef(id);
  if (answered) {  // what it keeps is still to be registered
    deps_.objects->RegisterBorrowsAndThen(task->token, [] {});
  } else {
    SendWhenSafe(task, state, values);
  }
  return Status::Ok();
}

void TaskReceiver::SendWhenSafe(const ReceivedTaskPtr& task, const ReplyStatePtr& state, std::span<const ValueView> values) {
  state->pending = static_cast<uint32_t>(values.size()) + 1;
  auto one = [task, state] {
    if (state->pending.fetch_sub(1) == 1) task->responder.Send(state->message, state->parts, state->corked);
  };
  for (const ValueView& value : values) deps_.objects->HandOver(value.nested, task->spec.owner, one);
  deps_.objects->RegisterBorrowsAndThen(task->token, one);
}

Status TaskReceiver::ReportItem(uint64_t token, int64_t index, const ValueView& value, bool* stop) {
  ReceivedTaskPtr task = FindRun(token);
  if (task == nullptr) return Status::NotFound("no such run");
  *stop = task->stop;
  if (*stop) return Status::Ok();
  if (task->spec.tmpl->shared_backpressure > 0) {
    if (!AwaitRoom(task)) return Status::Cancelled("the task was cancelled");
    *stop = task->stop;
    if (*stop) return Status::Ok();
  }
  struct Exchange {
    async::Waiter waiter;
    std::atomic<bool> stop{false};
  };
  auto exchange = std::make_shared<Exchange>();
  auto request = std::make_shared<v1::ReportGeneratorItemRequest>();
  auto parts = std::make_shared<PartList>();
  request->set_task_id(task->spec.task_id.Binary());
  request->set_attempt(task->spec.attempt);
  request->set_index(index);
  request->set_node_id(deps_.self.node_id.Binary());
  request->set_worker_id(deps_.self.worker_id.Binary());
  const ObjectId id = ObjectId::ForReturn(task->spec.task_id, static_cast<uint32_t>(index) + 1);
  if (task->spec.attempt > 0) DropOlder(id);
  Store(id, task->spec, value, request->mutable_item(), parts.get());
  const bool shared = task->spec.tmpl->shared_backpressure > 0;  // then the answers come as the items are consumed
  const bool wait = !shared && task->spec.tmpl->generator_backpressure >= 0;
  // On the connection of the task itself: the reply that ends the stream must not overtake an item.
  auto send = [this, task, exchange, request, parts, wait, shared] {
    task->connection->Call(
        MethodId::kReportGeneratorItem, *request, *parts, [this, task, exchange, shared](Status status, rpc::Reply reply) {
          v1::ReportGeneratorItemReply message;
          bool parsed = status.ok() && message.ParseFromArray(reply.control.data(), static_cast<int>(reply.control.size()));
          if (message.again()) task->again = true;
          if (!parsed || message.stop() || message.again()) task->stop = true;  // no owner, no consumer
          if (shared) OnConsumed(task);
          exchange->waiter.Notify();
        });
    if (!wait) exchange->waiter.Notify();
  };
  deps_.objects->HandOver(value.nested, task->spec.owner, send);
  while (deps_.loop->Wait(&exchange->waiter, Time::Infinite()) == async::WaitResult::kInterrupted) {
    if (task->cancelled || task->timed_out) return Status::Cancelled("the task was cancelled");
  }
  *stop = task->stop;
  return Status::Ok();
}

bool TaskReceiver::AwaitRoom(const ReceivedTaskPtr& task) {
  const TaskTemplate& tmpl = *task->spec.tmpl;
  while (true) {
    async::Waiter waiter;
    {
      MutexLock lock(&mu_);
      if (task->cancelled || task->timed_out) return false;
      if (task->stop) return true;  // it reports no more, so nobody would count it as consumed
      const bool own = tmpl.generator_backpressure < 0 || task->unconsumed < tmpl.generator_backpressure;
      // A stream may always have one: whoever consumes streams one after the other must not wait for one that the others keep out.
      if (task->unconsumed == 0 || (own && unconsumed_ < tmpl.shared_backpressure)) {
        ++task->unconsumed;
        ++unconsumed_;
        return true;
      }
      paced_.push_back(&waiter);
    }
    async::WaitResult result = deps_.loop->Wait(&waiter, Time::Infinite());
    MutexLock lock(&mu_);
    if (result != async::WaitResult::kDone) std::erase(paced_, &waiter);
  }
}

void TaskReceiver::OnConsumed(const ReceivedTaskPtr& task) {
  MutexLock lock(&mu_);
  --task->unconsumed;
  --unconsumed_;
  for (async::Waiter* waiter : paced_) waiter->Notify();  // under the lock: they live on stacks that are left under it
  paced_.clear();
}

TaskTemplatePtr TaskReceiver::TemplateOf(uint64_t token) {
  ReceivedTaskPtr task = FindRun(token);
  return task == nullptr ? nullptr : task->spec.tmpl;
}

void TaskReceiver::SetInterruptThread() {
  MutexLock lock(&mu_);
  interrupt_thread_ = pthread_self();
}

void TaskReceiver::SetCurrent(const ReceivedTask* task) {
  current.task = task == nullptr ? TaskId::Nil() : task->spec.task_id;
  current.depth = task == nullptr ? -1 : task->spec.depth;
}

TaskId TaskReceiver::CurrentTask() { return current.task; }
int64_t TaskReceiver::CurrentDepth() { return current.depth; }

void TaskReceiver::OnBlocked(bool blocked) {
  thread_local uint64_t counted_in = 0;  // the work during which this thread's block was counted
  {
    MutexLock lock(&mu_);
    if (blocked) {
      // A thread that user code has left behind holds up no task.
      counted_in = queue_.running() > 0 ? work_ : 0;
      if (counted_in != 0) ++blocked_;
    } else if (counted_in == work_) {
      --blocked_;
    }
  }
  // Others may run what waits here; perhaps it is what we wait for.
  if (TellBlocked()) HandBack(0);
}

bool TaskReceiver::TellBlocked() {
  // Held while the news leaves, so that what the raylet hears last is true.
  MutexLock telling(&telling_mu_);
  bool blocked;
  {
    MutexLock lock(&mu_);
    blocked = blocked_ > 0 || stalled_;
  }
  if (blocked == told_blocked_) return false;
  told_blocked_ = blocked;
  if (auto raylet = deps_.peers->raylet()) {
    raylet->Notify(blocked ? MethodId::kNotifyBlocked : MethodId::kNotifyUnblocked, v1::Empty());
  }
  return blocked;
}

void TaskReceiver::Shutdown() {
  MutexLock lock(&mu_);
  exit_requested_ = true;
  exit_reason_ = "shutdown";
  while (!waiters_.empty()) WakeLocked();
}

}  // namespace ray::core
