#include "ray/core_worker/submit/task_submitter.h"

#include "ray/util/logging.h"
#include "ray/wire/convert.h"

namespace ray::core {

ClassNo TaskSubmitter::ClassOf(const TaskTemplate& tmpl, int64_t depth) {
  const auto& s = tmpl.strategy;
  std::string key = tmpl.resources.ToString() + '\0' + tmpl.runtime_env + '\0' + std::to_string(s.kind) + ',' + std::to_string(s.soft) +
                    ',' + std::to_string(s.bundle_index) + ',' + std::to_string(s.capture_child_tasks) + s.node_id.Binary() +
                    s.placement_group_id.Binary();
  key += tmpl.job_id.Binary();
  key += tmpl.max_retries == 0 ? '0' : '1';  // RequestLease.retriable
  key += std::to_string(depth);
  MutexLock lock(&mu_);
  auto [it, fresh] = class_numbers_.try_emplace(std::move(key), static_cast<ClassNo>(classes_.size()));
  if (fresh) classes_.push_back({tmpl, depth});
  return it->second;
}

void TaskSubmitter::Submit(const PendingTaskPtr& task) {
  bool taken = false;
  Run([&](Time now, LeaseEffects* out) {
    // Cancel looks for it under the same lock after it has set the flag: it either finds it queued, or it is not queued here.
    if (task->cancelled) return;
    taken = true;
    task->lease.store(0, std::memory_order_relaxed);
    pool_.Submit(task->number(), task->cls, task->spec.tmpl->key, now, out);
  });
  if (!taken) deps_.tasks->Fail(*task, CancelledError(task->spec.task_id));
}

void TaskSubmitter::Run(const std::function<void(Time, LeaseEffects*)>& event, const ErrorValue& refusal) {
  std::vector<Later> later;
  {
    MutexLock lock(&mu_);
    Time now = deps_.loop->clock().Now();
    LeaseEffects effects;
    effects.reserve(4);
    event(now, &effects);
    CarryOutLocked(&effects, now, &later);
    ScheduleTickLocked(now);
  }
  if (!later.empty()) Settle(later, refusal);
}

void TaskSubmitter::CarryOutLocked(LeaseEffects* effects, Time now, std::vector<Later>* later) {
  for (size_t i = 0; i < effects->size(); ++i) {
    const LeaseEffect e = (*effects)[i];
    auto lease = leases_.find(e.lease);
    switch (e.kind) {
      case LeaseEffect::kPush: {
        PendingTask* task = PendingTask::FromNumber(e.task);
        if (!task->cancelled) {
          PushLocked(e.lease, e.task);
          break;
        }
        // Cancelled when it was with a worker that is gone or handed it back: it is not run. This may push others.
        later->push_back({e.task, Later::kCancelled, {}, task->shared_from_this()});
        pool_.Done(e.lease, e.task, Duration::zero(), false, now, effects);
        break;
      }
      case LeaseEffect::kSteal: {
        v1::StealTasksRequest request;
        request.set_max_tasks(e.count);
        lease->second.channel->connection()->Notify(MethodId::kStealTasks, request);
        break;
      }
      case LeaseEffect::kRequest: RequestLocked(e.lease, e.cls); break;
      case LeaseEffect::kCancelRequest: {
        v1::CancelLeaseRequest request;
        request.set_lease_id(lease->second.id.Binary());
        if (auto raylet = deps_.peers->raylet()) raylet->Notify(MethodId::kCancelLease, request);
        break;
      }
      case LeaseEffect::kReturn: {
        v1::ReturnLeaseRequest request;
        request.set_lease_id(lease->second.id.Binary());
        request.set_worker_failed(e.worker_failed);
        request.set_worker_exiting(e.worker_exiting);
        if (auto raylet = deps_.peers->raylet()) raylet->Notify(MethodId::kReturnLease, request);
        // A lost task of it needs to know which worker it was: kLost follows its kReturn.
        if (!e.worker_failed) leases_.erase(lease);
        break;
      }
      case LeaseEffect::kLost: {
        Address worker;
        if (lease != leases_.end()) worker = lease->second.channel->peer();
        later->push_back({e.task, Later::kLost, worker, PendingTask::FromNumber(e.task)->shared_from_this()});
        break;
      }
      case LeaseEffect::kFail: later->push_back({e.task, Later::kRefused, {}, PendingTask::FromNumber(e.task)->shared_from_this()}); break;
    }
  }
  for (const LeaseEffect& e : *effects) {
    if (e.kind == LeaseEffect::kReturn && e.worker_failed) leases_.erase(e.lease);
  }
}

void TaskSubmitter::PushLocked(LeaseNo no, TaskNo task_no) {
  PendingTaskPtr task = PendingTask::FromNumber(task_no)->shared_from_this();
  Lease& lease = leases_.at(no);
  task->lease.store(no, std::memory_order_relaxed);
  lease.channel->Push(task->spec, lease.instances.empty() ? nullptr : &lease.instances,
                      [this, task, no, channel = lease.channel](Status status, rpc::Reply reply) {
                        OnAnswer(task, no, channel, std::move(status), std::move(reply));
                      });
}

void TaskSubmitter::RequestLocked(LeaseNo no, ClassNo cls) {
  Lease& lease = leases_[no];
  lease.id = LeaseId::FromRandom();
  lease.cls = cls;
  const TaskTemplate& tmpl = classes_[cls].tmpl;
  v1::RequestLeaseRequest request;
  request.set_lease_id(lease.id.Binary());
  request.set_job_id(tmpl.job_id.Binary());
  ToProto(tmpl.resources, request.mutable_resources());
  v1::SchedulingStrategy* s = request.mutable_strategy();
  s->set_kind(static_cast<v1::StrategyKind>(tmpl.strategy.kind));
  if (!tmpl.strategy.node_id.IsNil()) s->set_node_id(tmpl.strategy.node_id.Binary());
  s->set_soft(tmpl.strategy.soft);
  if (!tmpl.strategy.placement_group_id.IsNil()) s->set_placement_group_id(tmpl.strategy.placement_group_id.Binary());
  s->set_bundle_index(tmpl.strategy.bundle_index);
  s->set_capture_child_tasks(tmpl.strategy.capture_child_tasks);
  request.set_runtime_env(tmpl.runtime_env);
  ToProto(deps_.self, request.mutable_owner());
  request.set_task_name(tmpl.DisplayName());
  request.set_retriable(tmpl.max_retries != 0);
  request.set_depth(classes_[cls].depth);
  auto raylet = deps_.peers->raylet();
  if (raylet == nullptr || closed_) return;
  rpc::CallTyped<v1::RequestLeaseReply>(*raylet, MethodId::kRequestLease, request, {},
                                        [this, no](Status status, v1::RequestLeaseReply& reply, PartList) {
                                          if (status.ok() && reply.granted()) {
                                            OnGranted(no, reply);
                                            return;
                                          }
                                          // Tried several times by the raylet; the next would fail, too.
                                          bool no_worker = status.cause() == static_cast<int32_t>(ErrorType::kWorkerStartupFailed);
                                          bool for_good = no_worker || !reply.unschedulable().empty();
                                          bool cancelled = status.ok() && reply.cancelled();
                                          if (!status.ok() && status.code() != StatusCode::kUnavailable) {
                                            RAY_LOG(WARNING) << "lease request refused: " << status.ToString();
                                          }
                                          Run(
                                              [&](Time now, LeaseEffects* out) {
                                                leases_.erase(no);
                                                if (!closed_) pool_.Refused(no, cancelled, for_good, now, out);
                                              },
                                              no_worker ? MakeErrorValue(ErrorType::kWorkerStartupFailed, status.message())
                                                        : MakeErrorValue(ErrorType::kTaskUnschedulable, reply.unschedulable()));
                                        });
}

void TaskSubmitter::OnGranted(LeaseNo no, const v1::RequestLeaseReply& reply) {
  Address worker = FromProto(reply.worker());
  auto connection = deps_.peers->Get(worker);
  Run([&](Time now, LeaseEffects* out) {
    auto it = leases_.find(no);
    if (it == leases_.end() || closed_) return;
    Lease& lease = it->second;
    if (!connection.ok()) {
      // It ended as it was granted: the raylet learns it, and another is asked for.
      RAY_LOG(INFO) << "leased worker cannot be reached: " << connection.status().ToString();
      v1::ReturnLeaseRequest request;
      request.set_lease_id(lease.id.Binary());
      request.set_worker_failed(true);
      if (auto raylet = deps_.peers->raylet()) raylet->Notify(MethodId::kReturnLease, request);
      leases_.erase(it);
      pool_.Refused(no, false, false, now, out);
      return;
    }
    lease.channel = std::make_shared<TaskChannel>(*connection, worker);
    lease.instances.assign(reply.instances().begin(), reply.instances().end());
    lease.pid = reply.worker_pid();
    // One callback for each connection, however often its worker is leased.
    if (watched_.insert((*connection)->id()).second) {
      (*connection)->OnClose([this, id = (*connection)->id()](const Status&) { OnConnectionClosed(id); });
    }
    pool_.Granted(no, now, out);
  });
}

void TaskSubmitter::OnConnectionClosed(uint64_t id) {
  Run([&](Time now, LeaseEffects* out) {
    watched_.erase(id);
    if (closed_) return;
    for (const auto& [no, lease] : leases_) {
      if (lease.channel != nullptr && lease.channel->connection()->id() == id) pool_.WorkerLost(no, now, out);
    }
  });
}

void TaskSubmitter::OnAnswer(const PendingTaskPtr& task, LeaseNo no, const std::shared_ptr<TaskChannel>& channel, Status status,
                             rpc::Reply reply) {
  channel->OnAnswer();
  static thread_local v1::PushTaskReply message;
  if (status.ok() && !message.ParseFromArray(reply.control.data(), static_cast<int>(reply.control.size()))) {
    status = Status::DataLoss("an answer to a task that cannot be parsed");
  }
  if (!status.ok()) {
    if (status.code() == StatusCode::kUnavailable && channel->connection()->closed()) {
      Run([&](Time now, LeaseEffects* out) {
        if (!closed_) pool_.WorkerLost(no, now, out);
      });
      return;
    }
    Run([&](Time now, LeaseEffects* out) { pool_.Done(no, task->number(), Duration::zero(), false, now, out); });
    deps_.tasks->Fail(*task, MakeErrorValue(DetailOf(status, ErrorType::kWorkerDied)));
    return;
  }
  if (message.returned()) {  // queued again; one that is cancelled is not pushed again
    Run([&](Time now, LeaseEffects* out) { pool_.Returned(no, task->number(), now, out); });
    return;
  }
  // The result first: whoever waits for it wakes the sooner. The entry is settled, the pointer alive.
  TaskVerdict verdict = deps_.tasks->Answered(task, message, reply.parts, channel->peer());
  Duration run(static_cast<int64_t>(message.run_ns()));
  bool exiting = message.worker_exiting();
  Run([&](Time now, LeaseEffects* out) { pool_.Done(no, task->number(), run, exiting, now, out); });
  if (verdict == TaskVerdict::kRetry) Resubmit(task);
}

void TaskSubmitter::Resubmit(const PendingTaskPtr& task) {
  ++task->spec.attempt;
  Submit(task);
}

void TaskSubmitter::Settle(const std::vector<Later>& later, const ErrorValue& refusal) {
  for (const Later& l : later) {
    if (l.kind == Later::kCancelled) {
      deps_.tasks->Fail(*l.keep, CancelledError(l.keep->spec.task_id));
      continue;
    }
    if (l.kind == Later::kRefused) {
      deps_.tasks->Fail(*l.keep, refusal);
      continue;
    }
    // The connection breaks before the raylet has reaped the process. A cancellation meanwhile settles the task at once.
    deps_.deaths->WhenKnown(l.worker.worker_id, [this, task = l.keep, node = l.worker.node_id](const DeathNote& note) {
      if (node != deps_.self.node_id) deps_.tasks->DropCopies(*task, node);
      OnLossExplained(task, note);
    });
  }
}

void TaskSubmitter::OnLossExplained(const PendingTaskPtr& task, const DeathNote& note) {
  uint32_t ooms = 0;
  TaskVerdict verdict = deps_.tasks->Lost(task, note.out_of_memory ? TaskLoss::kOutOfMemory : TaskLoss::kCrash, &ooms);
  if (verdict == TaskVerdict::kFail) {
    deps_.tasks->StoreFailure(*task,
                              note.out_of_memory ? MakeErrorValue(ErrorType::kOutOfMemory, note.detail) : WorkerDiedError(note.detail));
  } else if (verdict == TaskVerdict::kRetry && note.out_of_memory) {
    // The memory that it wants is not there now.
    Duration wait = std::min(deps_.max_oom_backoff, deps_.oom_backoff * (int64_t{1} << std::min(ooms - 1, 16u)));
    RAY_LOG(INFO) << "task " << task->spec.tmpl->DisplayName() << " runs again in " << wait / std::chrono::milliseconds(1)
                  << " ms: " << note.detail;
    deps_.loop->AddTimer(wait, [this, task] { Resubmit(task); });
  } else if (verdict == TaskVerdict::kRetry) {
    Resubmit(task);
  }
}

void TaskSubmitter::Cancel(const PendingTaskPtr& task, bool force, bool recursive) {
  bool dequeued = false;
  rpc::ConnectionPtr connection;
  Run([&](Time now, LeaseEffects* out) {
    dequeued = pool_.RemoveQueued(task->number(), task->cls, now, out);
    auto it = leases_.find(task->lease.load());
    if (!dequeued && it != leases_.end() && it->second.channel) connection = it->second.channel->connection();
  });
  if (connection != nullptr) {
    v1::CancelTaskRequest request;
    request.set_task_id(task->spec.task_id.Binary());
    request.set_force(force);
    request.set_recursive(recursive);
    connection->Call(MethodId::kCancelTask, request, {}, [](Status, rpc::Reply) {});
  } else {
    deps_.tasks->Fail(*task, CancelledError(task->spec.task_id));
  }
}

void TaskSubmitter::Reclaim() {
  Run([&](Time now, LeaseEffects* out) { pool_.Reclaim(now, out); });
}

void TaskSubmitter::Shutdown() {
  Run([&](Time now, LeaseEffects* out) {
    pool_.Reclaim(now, out);
    closed_ = true;
  });
}

void TaskSubmitter::ScheduleTickLocked(Time now) {
  // One that is due soon looks anyway.
  if (closed_ || tick_due_ <= now + deps_.config.overdue) return;
  Time next = pool_.NextTick();
  if (next >= tick_due_) return;
  tick_due_ = next;
  deps_.loop->AddTimer(std::max(next - now, Duration::zero()), [this, next] {
    Run([&](Time at, LeaseEffects* out) {
      if (tick_due_ != next) return;  // an earlier one took its place
      tick_due_ = Time::Infinite();
      if (!closed_) pool_.Tick(at, out);
    });
  });
}

std::string TaskSubmitter::Explain(const PendingTask& task) {
  MutexLock lock(&mu_);
  LeaseNo no = task.lease.load();
  auto it = leases_.find(no);
  if (no != 0 && it != leases_.end()) return "it was sent to the worker of pid " + std::to_string(it->second.pid);
  Time since = pool_.waiting_since(task.cls);
  std::string text = "it is queued for " + task.spec.tmpl->resources.ToString();
  if (!since.is_infinite()) {
    double seconds = static_cast<double>((deps_.loop->clock().Now() - since).count()) / 1e9;
    char formatted[32];
    snprintf(formatted, sizeof formatted, "%.1f", seconds);
    text += std::string("; the node was asked for a worker ") + formatted + " s ago and has none free";
  }
  return text;
}

}  // namespace ray::core
