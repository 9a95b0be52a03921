// Time-outs of tasks: the part of the TaskReceiver that ends what runs longer than its timeout_s. The clock runs from the moment at which the
// task's arguments are here and its code may start.
//
// What can be interrupted is: a normal task and a method of a plain actor get SIGINT on the main thread, a coroutine is cancelled. Code that does not
// yield within the grace costs its process in the first case, since nothing else could run there. A coroutine or a thread of a concurrent actor
// is left to itself, its caller told: other calls share the process.
#include <signal.h>
#include <stdio.h>

#include <algorithm>

#include "ray/core_worker/execute/task_receiver.h"
#include "ray/util/logging.h"
#include "ray/wire/error_detail.h"

namespace ray::core {
namespace {

// The signal means nothing if it comes before the task's first line: so it is repeated.
constexpr Duration kNudge = std::chrono::milliseconds(200);
constexpr Duration kFlushPatience = std::chrono::seconds(1);
constexpr Duration kFlushPoll = std::chrono::milliseconds(2);

std::string TimeoutMessage(const TaskSpec& spec) {
  char limit[32];
  snprintf(limit, sizeof limit, "%g", spec.tmpl->timeout_s);
  return "Task " + spec.tmpl->DisplayName() + " ran longer than its timeout_s of " + limit + " s and was ended.";
}

}  // namespace

void SetTimedOut(const TaskSpec& spec, v1::PushTaskReply* reply) {
  v1::ErrorDetail* detail = reply->mutable_system_error();
  detail->set_error_type(static_cast<int32_t>(ErrorType::kTaskTimedOut));
  detail->set_message(TimeoutMessage(spec));
  detail->set_task_id(spec.task_id.Binary());
  detail->set_task_name(spec.tmpl->DisplayName());
  detail->set_timeout_s(spec.tmpl->timeout_s);
  reply->set_is_application_error(true);
  if (spec.tmpl->retry_timeouts) reply->set_is_retryable_error(true);
}

void TaskReceiver::StartClock(const ReceivedTaskPtr& task) {
  constexpr double kForEver = 1e9;  // s; longer than any process lives
  const Duration limit(static_cast<int64_t>(std::min(task->spec.tmpl->timeout_s, kForEver) * 1e9));
  MutexLock lock(&mu_);
  task->clock = deps_.loop->AddTimer(limit, [this, token = task->token] { OnTimeout(token); });
}

bool TaskReceiver::StopClock(const ReceivedTaskPtr& task, bool* answered) {
  MutexLock lock(&mu_);
  task->finishing = true;
  *answered = task->answered;
  if (task->clock != 0) deps_.loop->CancelTimer(task->clock);
  return task->timed_out;
}

void TaskReceiver::OnTimeout(uint64_t token) {
  ReceivedTaskPtr task;
  bool answer = false;
  {
    MutexLock lock(&mu_);
    auto it = runs_.find(token);
    if (it == runs_.end() || it->second->finishing) return;
    task = it->second;
    task->clock = 0;
    task->timed_out = true;
    if (is_threaded_actor_) {
      answer = task->answered = true;
    } else {
      const Time deadline = deps_.loop->clock().Now() + deps_.timeout_grace;
      if (is_async_actor_) {
        cancels_.push_back(task);
        WakeLocked();
        task->clock = deps_.loop->AddTimer(deps_.timeout_grace, [this, token, deadline] { OnStillRunning(token, deadline); });
      } else {
        if (interrupt_thread_ != 0) pthread_kill(interrupt_thread_, SIGINT);
        task->clock =
            deps_.loop->AddTimer(std::min(kNudge, deps_.timeout_grace), [this, token, deadline] { OnStillRunning(token, deadline); });
      }
    }
  }
  RAY_LOG(INFO) << TimeoutMessage(task->spec);
  if (deps_.cancel_children) deps_.cancel_children(task->spec.task_id, /*force=*/false);
  if (answer) AnswerTimeout(task, /*exiting=*/false);
}

void TaskReceiver::OnStillRunning(uint64_t token, Time deadline) {
  ReceivedTaskPtr task;
  bool concurrent;
  {
    MutexLock lock(&mu_);
    auto it = runs_.find(token);
    if (it == runs_.end() || it->second->finishing) return;
    task = it->second;
    task->clock = 0;
    if (deps_.loop->clock().Now() < deadline) {
      if (interrupt_thread_ != 0) pthread_kill(interrupt_thread_, SIGINT);
      task->clock = deps_.loop->AddTimer(kNudge, [this, token, deadline] { OnStillRunning(token, deadline); });
      return;
    }
    task->answered = true;
    concurrent = is_async_actor_;
  }
  if (concurrent) return AnswerTimeout(task, /*exiting=*/false);
  RAY_LOG(WARNING) << "its code does not yield: the process ends. " << TimeoutMessage(task->spec);
  AnswerTimeout(task, /*exiting=*/true);
  HandBack(0);
  if (deps_.announce_end)
    deps_.announce_end("it ran task " + task->spec.tmpl->DisplayName() + ", which did not end at its timeout_s", /*intended=*/false);
  EndProcess(task->connection, deps_.loop->clock().Now() + kFlushPatience);
}

void TaskReceiver::AnswerTimeout(const ReceivedTaskPtr& task, bool exiting) {
  auto reply = std::make_shared<v1::PushTaskReply>();
  SetTimedOut(task->spec, reply.get());
  reply->set_worker_exiting(exiting);
  reply->set_run_ns(static_cast<uint64_t>((deps_.loop->clock().Now() - task->started.load(std::memory_order_relaxed)).count()));
  if (exiting) return task->responder.Send(*reply);  // what it borrowed goes with the process
  deps_.objects->RegisterBorrowsAndThen(task->token, [task, reply] { task->responder.Send(*reply); });
}

void TaskReceiver::EndProcess(const rpc::ConnectionPtr& connection, Time deadline) {
  connection->Flush();
  if (connection->closed() || connection->unsent_bytes() == 0 || deps_.loop->clock().Now() >= deadline) return deps_.exit(1);
  deps_.loop->AddTimer(kFlushPoll, [this, connection, deadline] { EndProcess(connection, deadline); });
}

}  // namespace ray::core
