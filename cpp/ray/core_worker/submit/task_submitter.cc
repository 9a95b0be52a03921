#include "ray/core_worker/submit/task_submitter.h"
#include "ray/common/errors.h"
#include "ray/core_worker/services/sync_call.h"

#include <algorithm>

#include "ray/util/logging.h"
#include "ray/wire/convert.h"
#include "ray/wire/wait_fact.h"

namespace ray::core {
namespace {

constexpr size_t kMaxLeaseArguments = 16;   // told with a request for a lease
constexpr uint64_t kWorthTheWay = 1 << 20;  // bytes of arguments from which a task goes to them instead of them to it

}  // namespace

ClassNo TaskSubmitter::ClassOf(const TaskTemplate& tmpl, int64_t depth) {
  std::string key = tmpl.resources.ToString() + '\0' + tmpl.runtime_env + '\0' + tmpl.strategy.Key() + tmpl.job_id.Binary();
  key += tmpl.max_retries == 0 ? '0' : '1';  // RequestLease.retriable
  key += std::to_string(depth);
  MutexLock lock(&mu_);
  return NumberLocked(std::move(key), {tmpl, depth});
}

ClassNo TaskSubmitter::NumberLocked(std::string key, Class made) {
  if (const auto known = class_numbers_.find(key); known != class_numbers_.end()) return known->second;
  if (classes_.size() >= many_classes_) ForgetClassesLocked();
  const ClassNo no = next_class_++;
  class_numbers_.emplace(std::move(key), no);
  AddClassLocked(no, std::move(made));
  return no;
}

void TaskSubmitter::AddClassLocked(ClassNo no, Class made) {
  if (made.home.IsNil()) made.base = no;
  if (made.tmpl.strategy.kind == SchedulingStrategy::kSpread) pool_.SetSingleUse(no);
  classes_.emplace(no, std::move(made));
}

void TaskSubmitter::EnsureClassLocked(const PendingTask& task) {
  if (!classes_.contains(task.cls)) AddClassLocked(task.cls, {*task.spec.tmpl, task.spec.depth});
}

void TaskSubmitter::ForgetClassesLocked() {
  std::unordered_set<ClassNo> stay;  // an answer that comes late has to find its class
  for (const auto& [no, lease] : leases_) stay.insert(lease.cls);
  std::erase_if(classes_, [&](const auto& item) { return !stay.contains(item.first) && pool_.Forget(item.first); });
  std::erase_if(class_numbers_, [&](const auto& item) { return !classes_.contains(item.second); });
  many_classes_ = std::max(kFewClasses, 2 * classes_.size());
}

NodeId TaskSubmitter::HomeOf(const PendingTask& task) const {
  const SchedulingStrategy& strategy = task.spec.tmpl->strategy;
  if (strategy.kind != SchedulingStrategy::kDefault || !strategy.selectors.empty()) return {};
  std::map<NodeId, uint64_t> bytes;
  for (const TaskArg& arg : task.spec.refs) {
    StoredValue value;
    if (!arg.in_store || !deps_.objects->Lookup(arg.ref.id, &value)) continue;
    for (const NodeId& node : value.node_ids) bytes[node] += value.size;
  }
  NodeId best;
  uint64_t most = std::max(bytes[deps_.self.node_id], kWorthTheWay - 1);
  for (const auto& [node, size] : bytes) {
    if (size <= most) continue;
    best = node;
    most = size;
  }
  return best;
}

ClassNo TaskSubmitter::ClassAtLocked(ClassNo cls, const NodeId& home) {
  const Class& known = classes_.at(cls);
  if (home.IsNil()) return known.base;
  return NumberLocked("at" + std::to_string(known.base) + ' ' + home.Binary(), {known.tmpl, known.depth, known.base, home});
}

void TaskSubmitter::Submit(const PendingTaskPtr& task) {
  bool taken = false;
  const NodeId home = task->spec.refs.empty() ? NodeId() : HomeOf(*task);
  Run([&](Time now, LeaseEffects* out) {
    EnsureClassLocked(*task);
    if (!task->spec.refs.empty()) {
      task->cls = ClassAtLocked(task->cls, home);
      EnsureClassLocked(*task);
    }
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
      case LeaseEffect::kRequest: RequestLocked(e.lease, e.cls, now, effects); break;
      case LeaseEffect::kCancelRequest: {
        if (lease == leases_.end()) break;  // refused within the same event
        lease->second.cancelled = true;
        const PlacementGroupId& group = classes_.at(e.cls).tmpl.strategy.placement_group_id;
        if (const auto parked = parked_.find(group); parked != parked_.end() && parked->second.erase(e.lease) > 0) {
          if (parked->second.empty()) parked_.erase(parked);
          leases_.erase(lease);
          pool_.Refused(e.lease, /*cancelled=*/true, /*for_good=*/false, now, effects);
          break;
        }
        SendCancelLocked(lease->second);
        break;
      }
      case LeaseEffect::kReturn: {
        v1::ReturnLeaseRequest request;
        request.set_lease_id(lease->second.id.Binary());
        request.set_worker_failed(e.worker_failed);
        request.set_worker_exiting(e.worker_exiting);
        if (auto raylet = RayletOf(lease->second.node)) raylet->Notify(MethodId::kReturnLease, request);
        // A lost task of it needs to know which worker it was: kLost follows its kReturn.
        if (!e.worker_failed) leases_.erase(lease);
        break;
      }
      case LeaseEffect::kLost: {
        TaskWorker worker;
        if (lease != leases_.end()) worker = lease->second.channel->worker();
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

void TaskSubmitter::RequestLocked(LeaseNo no, ClassNo cls, Time now, LeaseEffects* out) {
  Lease& lease = leases_[no];
  lease.id = LeaseId::FromRandom();
  lease.cls = cls;
  lease.home = classes_.at(cls).home;
  if (const TaskNo waits = pool_.WaitsForLatest(cls); waits != 0) lease.arguments = LargeArguments(*PendingTask::FromNumber(waits));
  if (classes_.at(cls).tmpl.strategy.kind == SchedulingStrategy::kPlacementGroup) {
    RequestInGroupLocked(no, now, out);
  } else {
    SendRequestLocked(no, lease.home, v1::LEASE_PLACEMENT_UNSPECIFIED);
  }
}

void TaskSubmitter::RequestInGroupLocked(LeaseNo no, Time now, LeaseEffects* out) {
  const ClassNo no_of_class = leases_.at(no).cls;
  Class& cls = classes_.at(no_of_class);
  const SchedulingStrategy& strategy = cls.tmpl.strategy;
  const GroupState state = deps_.groups->StateOf(strategy.placement_group_id);
  std::vector<NodeId> nodes;
  NodeId unfit;
  for (size_t i = 0; i < state.nodes.size(); ++i) {
    const bool named = strategy.bundle_index < 0 || i == static_cast<size_t>(strategy.bundle_index);
    const bool known = std::find(nodes.begin(), nodes.end(), state.nodes[i]) != nodes.end();
    if (!named || known || state.nodes[i].IsNil()) continue;
    if (cls.unfit.contains(state.nodes[i])) {
      unfit = state.nodes[i];
    } else {
      nodes.push_back(state.nodes[i]);
    }
  }
  // None will do: it waits at one of them, where it is told of, until the group changes.
  if (nodes.empty() && !unfit.IsNil()) nodes.push_back(unfit);
  if (state.kind == GroupState::kPlaced && !nodes.empty()) {
    // Any bundle will do: one request waits at each node, the first that has room serves it.
    leases_.at(no).other_places = nodes.size() > 1;
    pool_.SetFanOut(no_of_class, static_cast<uint32_t>(nodes.size()), now, out);
    SendRequestLocked(no, nodes[cls.next_node++ % nodes.size()], v1::LEASE_PLACEMENT_HERE);
    return;
  }
  parked_[strategy.placement_group_id].insert(no);
  if (state.kind == GroupState::kGone) {  // its refusal is no part of the event that asks for it
    deps_.loop->Post("group_gone", [this, group = strategy.placement_group_id] { OnGroupChanged(group); });
  }
}

void TaskSubmitter::OnGroupChanged(const PlacementGroupId& group) {
  const GroupState state = deps_.groups->StateOf(group);
  Run(
      [&](Time now, LeaseEffects* out) {
        if (closed_) return;
        if (state.kind == GroupState::kGone) {  // others wait for what it had
          for (const auto& [no, cls] : classes_) {
            if (cls.tmpl.strategy.placement_group_id == group) pool_.ReturnUnused(no, out);
          }
        }
        const auto parked = parked_.extract(group);
        // What waits where only the other nodes' labels ruled those out has to be asked for anew: another bundle may be on a better one now.
        for (const auto& [no, lease] : leases_) {
          const SchedulingStrategy& strategy = classes_.at(lease.cls).tmpl.strategy;
          const bool waits = lease.channel == nullptr && !lease.cancelled && (parked.empty() || !parked.mapped().contains(no));
          if (strategy.placement_group_id == group && !strategy.selectors.empty() && waits) SendCancelLocked(lease);
        }
        if (parked.empty()) return;
        for (const LeaseNo no : parked.mapped()) {
          if (state.kind == GroupState::kGone) {
            leases_.erase(no);
            pool_.Refused(no, /*cancelled=*/false, /*for_good=*/true, now, out);
          } else {
            RequestInGroupLocked(no, now, out);
          }
        }
      },
      MakeErrorValue(ErrorType::kTaskPlacementGroupRemoved, state.why));
}

std::vector<v1::LeaseArgument> TaskSubmitter::LargeArguments(const PendingTask& task) const {
  std::vector<v1::LeaseArgument> arguments;
  auto add = [&](const ObjectId& id, const Address& owner) {
    StoredValue value;
    if (arguments.size() >= kMaxLeaseArguments || !deps_.objects->Lookup(id, &value) || !value.in_store) return;
    v1::LeaseArgument& argument = arguments.emplace_back();
    argument.set_object_id(id.Binary());
    ToProto(owner, argument.mutable_owner());
    argument.set_size(value.size);
    argument.set_metadata(value.metadata);
    argument.set_attempt(value.attempt);
    for (const NodeId& node : value.node_ids) argument.add_node_ids(node.Binary());
  };
  if (task.spec.args_object) add(task.spec.args_object->id, task.spec.args_object->owner);
  for (const TaskArg& arg : task.spec.refs) {
    if (arg.in_store) add(arg.ref.id, arg.ref.owner);
  }
  return arguments;
}

rpc::ConnectionPtr TaskSubmitter::RayletOf(const NodeId& node) const {
  if (node.IsNil() || node == deps_.self.node_id) return deps_.peers->raylet();
  auto raylet = deps_.peers->GetRaylet(node);
  return raylet.ok() ? *raylet : nullptr;
}

void TaskSubmitter::SendRequestLocked(LeaseNo no, const NodeId& node, v1::LeasePlacement placement) {
  Lease& lease = leases_.at(no);
  lease.node = node;
  const TaskTemplate& tmpl = classes_.at(lease.cls).tmpl;
  v1::RequestLeaseRequest request;
  request.set_lease_id(lease.id.Binary());
  request.set_job_id(tmpl.job_id.Binary());
  ToProto(tmpl.resources, request.mutable_resources());
  ToProto(tmpl.strategy, request.mutable_strategy());
  request.set_runtime_env(tmpl.runtime_env);
  ToProto(deps_.self, request.mutable_owner());
  request.set_task_name(tmpl.DisplayName());
  request.set_retriable(tmpl.max_retries != 0);
  request.set_depth(classes_.at(lease.cls).depth);
  request.set_placement(placement);
  request.set_ask(++lease.asks);
  request.set_locality(!lease.home.IsNil());
  request.set_other_places(lease.other_places);
  const std::string asked = (node.IsNil() ? deps_.self.node_id : node).Binary();
  for (const v1::LeaseArgument& argument : lease.arguments) {
    if (std::ranges::find(argument.node_ids(), asked) == argument.node_ids().end()) *request.add_arguments() = argument;
  }
  if (placement == v1::LEASE_PLACEMENT_UNSPECIFIED) {
    for (const NodeId& rejected : lease.rejected_by) request.add_rejected_by(rejected.Binary());
  }
  auto raylet = RayletOf(node);
  if (closed_) return;
  if (raylet == nullptr) {  // its node has died, as we are about to hear
    deps_.loop->Post("no_raylet", [this, no] { OnLeaseReply(no, Status::Unavailable("the raylet cannot be reached"), {}); });
    return;
  }
  rpc::CallTyped<v1::RequestLeaseReply>(
      *raylet, MethodId::kRequestLease, request, {},
      [this, no](const Status& status, v1::RequestLeaseReply& reply, const PartList&) { OnLeaseReply(no, status, reply); });
}

bool TaskSubmitter::FollowLocked(LeaseNo no, const Status& status, const v1::RequestLeaseReply& reply) {
  auto it = leases_.find(no);
  if (it == leases_.end() || closed_ || it->second.cancelled) return false;
  Lease& lease = it->second;
  if (status.ok() && !reply.spillback_node_id().empty()) {
    SendRequestLocked(no, NodeId::FromBinaryOrNil(reply.spillback_node_id()), reply.spillback_placement());
    return true;
  }
  // Turned away, or not to be reached: whoever decides is told, and decides anew. A bundle that has moved shows in the group's state.
  const bool in_group = classes_.at(lease.cls).tmpl.strategy.kind == SchedulingStrategy::kPlacementGroup;
  const bool elsewhere = lease.node != lease.home;
  const bool turned_away = status.ok() && reply.rejected();
  const bool unreachable = status.code() == StatusCode::kUnavailable && elsewhere;
  if (in_group) return false;
  if (status.code() == StatusCode::kUnavailable && !elsewhere && !lease.home.IsNil()) {  // then ours decides
    lease.home = {};
    SendRequestLocked(no, lease.home, v1::LEASE_PLACEMENT_UNSPECIFIED);
    return true;
  }
  if (!turned_away && !unreachable) return false;
  const NodeId by = lease.node.IsNil() ? deps_.self.node_id : lease.node;
  std::erase(lease.rejected_by, by);
  lease.rejected_by.push_back(by);
  SendRequestLocked(no, lease.home, v1::LEASE_PLACEMENT_UNSPECIFIED);
  return true;
}

void TaskSubmitter::OnLeaseReply(LeaseNo no, const Status& status, const v1::RequestLeaseReply& reply) {
  if (status.ok() && reply.granted()) return OnGranted(no, reply);
  if (status.ok() && reply.labels_differ()) return OnLabelsDiffer(no);
  {
    MutexLock lock(&mu_);
    if (FollowLocked(no, status, reply)) return;
  }
  // Tried several times by the raylet; the next would fail, too.
  bool no_worker = status.cause() == static_cast<int32_t>(ErrorType::kWorkerStartupFailed);
  bool for_good = no_worker || !reply.unschedulable().empty();
  bool cancelled = status.ok() && (reply.cancelled() || !reply.spillback_node_id().empty());
  if (!status.ok() && status.code() != StatusCode::kUnavailable) RAY_LOG(WARNING) << "lease request refused: " << status.ToString();
  Run(
      [&](Time now, LeaseEffects* out) {
        leases_.erase(no);
        if (!closed_) pool_.Refused(no, cancelled, for_good, now, out);
      },
      no_worker ? MakeErrorValue(ErrorType::kWorkerStartupFailed, status.message())
                : MakeErrorValue(ErrorType::kTaskUnschedulable, reply.unschedulable()));
}

void TaskSubmitter::OnLabelsDiffer(LeaseNo no) {
  Run([&](Time now, LeaseEffects* out) {
    const auto it = leases_.find(no);
    if (it == leases_.end() || closed_) return;
    classes_.at(it->second.cls).unfit.insert(it->second.node);
    if (!it->second.cancelled) return RequestInGroupLocked(no, now, out);
    leases_.erase(it);
    pool_.Refused(no, /*cancelled=*/true, /*for_good=*/false, now, out);
  });
}

void TaskSubmitter::SendCancelLocked(const Lease& lease) {
  v1::CancelLeaseRequest request;
  request.set_lease_id(lease.id.Binary());
  if (auto raylet = RayletOf(lease.node)) raylet->Notify(MethodId::kCancelLease, request);
}

void TaskSubmitter::OnGranted(LeaseNo no, const v1::RequestLeaseReply& reply) {
  Address worker = FromProto(reply.worker());
  auto connection = deps_.peers->Get(worker);
  Run([&](Time now, LeaseEffects* out) {
    auto it = leases_.find(no);
    if (it == leases_.end() || closed_) return;
    Lease& lease = it->second;
    if (!connection.ok()) {
      // It ended as it was granted: the raylet learns it, and another is asked for. Where it is this process that has no descriptor left, nothing is wrong
      // with the worker, and the pause before the next request grows.
      const bool exhausted = connection.status().code() == StatusCode::kResourceExhausted;
      std::string& trouble = classes_.at(lease.cls).trouble;
      if (trouble != connection.status().message()) {  // not each time that it is tried again
        RAY_LOG(INFO) << "leased worker cannot be reached: " << connection.status().ToString();
      }
      trouble = exhausted ? connection.status().message() : "";
      v1::ReturnLeaseRequest request;
      request.set_lease_id(lease.id.Binary());
      request.set_worker_failed(!exhausted);
      if (auto raylet = RayletOf(lease.node)) raylet->Notify(MethodId::kReturnLease, request);
      leases_.erase(it);
      pool_.Refused(no, false, false, now, out);
      return;
    }
    classes_.at(lease.cls).trouble.clear();
    lease.channel = std::make_shared<TaskChannel>(*connection, TaskWorker{worker, reply.worker_pid()}, deps_.push_numbers);
    lease.instances.assign(reply.instances().begin(), reply.instances().end());
    // One callback for each connection, however often its worker is leased.
    if (watched_.insert((*connection)->id()).second) {
      (*connection)->OnClose([this, id = (*connection)->id()](const Status& reason) { OnConnectionClosed(id, reason); });
    }
    pool_.Granted(no, now, out);
  });
}

void TaskSubmitter::OnNodeDied(const NodeId& node) {
  Run([&](Time now, LeaseEffects* out) {
    if (closed_) return;
    std::vector<LeaseNo> lost;
    for (const auto& [no, lease] : leases_) {
      if (lease.channel != nullptr && lease.channel->peer().node_id == node) lost.push_back(no);
    }
    pool_.WorkersLost(lost, /*heard_all=*/false, now, out);
  });
}

bool TaskSubmitter::HeardAll(const TaskChannel& channel, const Status& reason) const {
  return channel.peer().node_id == deps_.self.node_id || reason.cause() == static_cast<int32_t>(ErrorType::kWorkerDied);
}

void TaskSubmitter::OnConnectionClosed(uint64_t id, const Status& reason) {
  Run([&](Time now, LeaseEffects* out) {
    watched_.erase(id);
    if (closed_) return;
    for (const auto& [no, lease] : leases_) {
      if (lease.channel != nullptr && lease.channel->connection()->id() == id)
        pool_.WorkerLost(no, HeardAll(*lease.channel, reason), now, out);
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
        if (!closed_) pool_.WorkerLost(no, HeardAll(*channel, status), now, out);
      });
      return;
    }
    Run([&](Time now, LeaseEffects* out) { pool_.Done(no, task->number(), Duration::zero(), false, now, out); });
    deps_.tasks->Fail(*task, MakeErrorValue(DetailOf(status, ErrorType::kWorkerDied)), channel->worker());
    return;
  }
  if (message.returned()) {  // queued again; one that is cancelled is not pushed again
    Run([&](Time now, LeaseEffects* out) { pool_.Returned(no, task->number(), now, out); });
    return;
  }
  // The result first: whoever waits for it wakes the sooner. The entry is settled, the pointer alive.
  TaskVerdict verdict = deps_.tasks->Answered(task, message, reply.parts, channel->worker());
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
    deps_.deaths->WhenKnown(l.worker.address.worker_id, [this, task = l.keep, worker = l.worker](const DeathNote& note) {
      const NodeId& node = worker.address.node_id;
      if (node != deps_.self.node_id) deps_.tasks->DropCopies(*task, node);
      OnLossExplained(task, worker, note);
    });
  }
}

void TaskSubmitter::OnLossExplained(const PendingTaskPtr& task, const TaskWorker& worker, const DeathNote& note) {
  uint32_t ooms = 0;
  const TaskLoss kind = note.out_of_memory ? TaskLoss::kOutOfMemory : TaskLoss::kCrash;
  const std::string why = (note.with_node ? "its node is gone: " : "its worker died: ") + note.detail;
  TaskVerdict verdict = deps_.tasks->Lost(task, {kind, why, task->spec.attempt, worker}, &ooms);
  if (verdict == TaskVerdict::kFail) {
    if (const PlacementGroupId& group = task->spec.tmpl->strategy.placement_group_id; !group.IsNil()) {
      if (const GroupState state = deps_.groups->StateOf(group); state.kind == GroupState::kGone) {
        deps_.tasks->StoreFailure(*task, MakeErrorValue(ErrorType::kTaskPlacementGroupRemoved, state.why), worker);
        return;
      }
    }
    deps_.tasks->StoreFailure(*task,
                              note.out_of_memory ? MakeErrorValue(ErrorType::kOutOfMemory, note.detail)
                              : note.with_node   ? NodeDiedError(worker.address.node_id, note.detail)
                                                 : WorkerDiedError(note.detail),
                              worker);
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
    request.set_request_id(NewRequestId());
    connection->Call(MethodId::kCancelTask, request, {}, [](Status, rpc::Reply) {});
  } else {
    deps_.tasks->Fail(*task, CancelledError(task->spec.task_id));
  }
}

void TaskSubmitter::Reclaim(const v1::ReclaimLeasesNotice& notice) {
  Run([&](Time now, LeaseEffects* out) {
    pool_.Reclaim(now, out);
    for (const std::string& bytes : notice.yield()) {
      const LeaseId id = LeaseId::FromBinaryOrNil(bytes);
      const auto it = std::find_if(leases_.begin(), leases_.end(), [&id](const auto& lease) { return lease.second.id == id; });
      if (it != leases_.end()) pool_.Yield(it->first, now, out);
    }
  });
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

void TaskSubmitter::Explain(const PendingTask& task, v1::WaitFact* out) {
  MutexLock lock(&mu_);
  const Time now = deps_.loop->clock().Now();
  const LeaseNo no = task.lease.load();
  const auto pushed = leases_.find(no);
  if (const auto place = pool_.PlaceOf(no, task.number()); place && pushed != leases_.end() && pushed->second.channel != nullptr) {
    const Address worker = pushed->second.channel->peer();
    out->set_state(place->behind == 0 ? v1::WAIT_STATE_RUNNING : v1::WAIT_STATE_QUEUED_AT_WORKER);
    out->set_ahead(static_cast<int64_t>(place->behind));
    SetAge(place->head_since, now, out);
    out->set_node_id(worker.node_id.Binary());
    out->set_worker_id(worker.worker_id.Binary());
    out->set_pid(pushed->second.channel->worker().pid);
    out->set_detail("it was sent to a worker");
    AddPointer(v1::SUBJECT_KIND_TASK, task.spec.task_id.View(), worker, out);
    return;
  }
  SetAge(task.submitted_at, now, out);
  const auto behind = pool_.QueuedBehind(task.number(), task.cls);
  if (!behind) {
    out->set_state(v1::WAIT_STATE_WAITING_FOR_RETRY);
    out->set_detail("its last worker is gone, or it waits to be run again");
    return;
  }
  out->set_ahead(static_cast<int64_t>(*behind));
  ToProto(task.spec.tmpl->resources, out->mutable_need());
  if (const PlacementGroupId& group = task.spec.tmpl->strategy.placement_group_id; !group.IsNil() && parked_.contains(group)) {
    out->set_state(v1::WAIT_STATE_WAITING_FOR_PLACEMENT_GROUP);
    out->set_detail("its placement group is not placed");
    AddPointer(v1::SUBJECT_KIND_PLACEMENT_GROUP, group.View(), Address(), out);
    return;
  }
  out->set_state(v1::WAIT_STATE_WAITING_FOR_LEASE);
  // All requests of a class are alike; the oldest is the next to be granted.
  const Lease* oldest = nullptr;
  LeaseNo oldest_no = 0;
  size_t held = 0;
  for (const auto& [number, lease] : leases_) {
    if (lease.cls != task.cls) continue;
    if (lease.channel != nullptr) ++held;
    if (lease.channel != nullptr || (oldest != nullptr && oldest_no < number)) continue;
    oldest = &lease;
    oldest_no = number;
  }
  std::string detail = held == 0 ? "" : std::to_string(held) + " worker(s) of its owner run others of its kind; ";
  if (const std::string& trouble = classes_.at(task.cls).trouble; !trouble.empty()) {
    detail += "the last worker could not be reached by its owner, " + trouble + "; ";
  }
  if (oldest == nullptr) {
    out->set_detail(detail + "no further one is asked for at the moment");
    return;
  }
  const NodeId asked = oldest->node.IsNil() ? deps_.self.node_id : oldest->node;
  out->set_node_id(asked.Binary());
  out->set_detail(detail + "the raylet of a node was asked for one");
  AddPointer(v1::SUBJECT_KIND_LEASE, oldest->id.View(), Address{asked, WorkerId::Nil()}, out);
}

std::optional<TaskWorker> TaskSubmitter::SentTo(const PendingTask& task) {
  MutexLock lock(&mu_);
  const LeaseNo no = task.lease.load();
  const auto it = leases_.find(no);
  if (it == leases_.end() || it->second.channel == nullptr || !pool_.PlaceOf(no, task.number())) return std::nullopt;
  return it->second.channel->worker();
}

std::unordered_map<TaskNo, TaskWorker> TaskSubmitter::Sent() {
  std::unordered_map<TaskNo, TaskWorker> sent;
  MutexLock lock(&mu_);
  for (const auto& [no, lease] : leases_) {
    if (lease.channel == nullptr) continue;
    for (const TaskNo task : pool_.PushedTo(no)) sent.emplace(task, lease.channel->worker());
  }
  return sent;
}

}  // namespace ray::core
