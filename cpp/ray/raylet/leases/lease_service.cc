#include "ray/raylet/leases/lease_service.h"

#include <algorithm>
#include <set>
#include <span>

#include "ray/common/errors.h"
#include "ray/raylet/workers/json.h"
#include "ray/util/logging.h"
#include "ray/wire/convert.h"
#include "ray/wire/wait_fact.h"

namespace ray::raylet {

using scheduling::LeaseEffects;
using scheduling::LeaseRequest;

LeaseService::LeaseService(Deps deps, scheduling::LeaseQueueConfig config, scheduling::NodeResources resources)
    : deps_(std::move(deps)), queue_(config, std::move(resources)), timer_(deps_.loop, [this] { OnTick(); }) {}

LeaseService::~LeaseService() { *alive_ = false; }

void LeaseService::FillInstances(const scheduling::InstanceShares& instance, v1::AssignedInstances* out) {
  out->set_resource(instance.resource);
  for (const auto& [index, amount] : instance.shares) {
    out->add_indices(index);
    out->add_amounts(amount);
  }
}

void LeaseService::RegisterHandlers(rpc::Dispatcher* dispatcher) {
  RegisterBundleHandlers(dispatcher);
  dispatcher->RegisterTyped<v1::RequestLeaseRequest>(
      MethodId::kRequestLease, [this](const v1::RequestLeaseRequest& message, rpc::Request& request, rpc::Responder responder) {
        RequestLease(message, request.connection, std::move(responder));
      });
  dispatcher->RegisterTyped<v1::StartActorRequest>(
      MethodId::kStartActor, [this](const v1::StartActorRequest& message, rpc::Request& request, rpc::Responder responder) {
        StartActor(message, request, std::move(responder));
      });
  // What is answered at once, if an answer is wanted.
  auto acknowledged = [dispatcher]<typename Message, typename Reply>(MethodId method,
                                                                     std::function<void(const Message&, rpc::Request&)> handle, Reply) {
    dispatcher->RegisterTyped<Message>(
        method, [handle = std::move(handle)](const Message& message, rpc::Request& request, rpc::Responder responder) {
          handle(message, request);
          if (responder.valid()) responder.Send(Reply());
        });
  };
  acknowledged(MethodId::kReturnLease, std::function([this](const v1::ReturnLeaseRequest& m, rpc::Request&) { ReturnLease(m); }),
               v1::LeaseEmpty());
  acknowledged(MethodId::kCancelLease, std::function([this](const v1::CancelLeaseRequest& m, rpc::Request&) {
                 CancelLease(LeaseId::FromBinaryOrNil(m.lease_id()));
               }),
               v1::LeaseEmpty());
  acknowledged(MethodId::kKillActorOnNode, std::function([this](const v1::KillActorOnNodeRequest& m, rpc::Request&) { KillActor(m); }),
               v1::LeaseEmpty());
  acknowledged(MethodId::kJobFinished, std::function([this](const v1::JobFinishedNotice& m, rpc::Request&) {
                 std::set<WorkerId> kept;
                 for (const auto& worker : m.kept_workers()) kept.insert(WorkerId::FromBinaryOrNil(worker));
                 JobFinished(JobId::FromBinaryOrNil(m.job_id()), kept);
               }),
               v1::LeaseEmpty());
  acknowledged(MethodId::kNotifyBlocked, std::function([this](const v1::WorkerEmpty&, rpc::Request& request) {
                 const auto it = by_worker_.find(deps_.workers->WorkerOf(request.connection->id()));
                 if (it == by_worker_.end()) return;
                 LeaseEffects effects;
                 queue_.Block(it->second, Now(), &effects);
                 Run(std::move(effects));
               }),
               v1::WorkerEmpty());
  acknowledged(MethodId::kNotifyUnblocked, std::function([this](const v1::WorkerEmpty&, rpc::Request& request) {
                 const auto it = by_worker_.find(deps_.workers->WorkerOf(request.connection->id()));
                 if (it == by_worker_.end()) return;
                 queue_.Unblock(it->second);
                 Run({});
               }),
               v1::WorkerEmpty());
}

// ---- bundles of placement groups ----

void LeaseService::RegisterBundleHandlers(rpc::Dispatcher* dispatcher) {
  dispatcher->RegisterTyped<v1::PrepareBundlesRequest>(
      MethodId::kPrepareBundles, [this](const v1::PrepareBundlesRequest& message, rpc::Request&, rpc::Responder responder) {
        std::vector<std::pair<int32_t, ResourceSet>> bundles;
        for (const auto& bundle : message.bundles()) bundles.emplace_back(bundle.index(), FromProto(bundle.resources()));
        LeaseEffects effects;
        v1::PrepareBundlesReply reply;
        reply.set_prepared(queue_.PrepareBundles(PlacementGroupId::FromBinaryOrNil(message.placement_group_id()), message.attempt(),
                                                 bundles, message.commit(), Now(), &effects));
        Run(std::move(effects));
        if (!responder.valid()) return;
        if (deps_.report != nullptr) deps_.report(reply.mutable_resources());
        responder.Send(reply);
      });
  dispatcher->RegisterTyped<v1::CommitBundlesRequest>(
      MethodId::kCommitBundles, [this](const v1::CommitBundlesRequest& message, rpc::Request&, rpc::Responder responder) {
        LeaseEffects effects;
        const bool committed = queue_.CommitBundles(PlacementGroupId::FromBinaryOrNil(message.placement_group_id()), message.attempt(),
                                                    {message.indices().begin(), message.indices().end()}, Now(), &effects);
        Run(std::move(effects));
        if (!responder.valid()) return;
        if (committed) {
          responder.Send(v1::BundlesReply());
        } else {
          responder.Fail(Status::NotFound("the bundles are not reserved here"));
        }
      });
  dispatcher->RegisterTyped<v1::ReturnBundlesRequest>(
      MethodId::kReturnBundles, [this](const v1::ReturnBundlesRequest& message, rpc::Request&, rpc::Responder responder) {
        LeaseEffects effects;
        queue_.ReturnBundles(PlacementGroupId::FromBinaryOrNil(message.placement_group_id()), message.attempt(),
                             {message.indices().begin(), message.indices().end()}, "its placement group was removed: " + message.reason(),
                             Now(), &effects);
        Run(std::move(effects));
        if (!responder.valid()) return;
        v1::BundlesReply reply;
        if (deps_.report != nullptr) deps_.report(reply.mutable_resources());
        responder.Send(reply);
      });
}

// ---- other nodes ----

void LeaseService::Touch() {
  touched_ = true;
  deps_.on_resources_changed();
}

void LeaseService::ForgetOtherNodes() {
  scheduling::ClusterView* view = queue_.view();
  std::vector<NodeId> others;
  view->ForEach([&](const scheduling::ClusterView::Node& node) {
    if (node.id != deps_.node_id) others.push_back(node.id);
  });
  for (const NodeId& node : others) view->Remove(node);
  numbered_.clear();
}

namespace {

constexpr uint32_t kMaxNumber = 1u << 20;  // of a node in columns: as many as there have been at once

// Both are in the order of names.
bool Equal(const ResourceSet& resources, const v1::ResourceSet& message) {
  return std::ranges::equal(resources.items(), message.items(),
                            [](const auto& a, const v1::Resource& b) { return a.second == b.amount() && a.first == b.name(); });
}

bool Equal(const scheduling::Labels& labels, const google::protobuf::Map<std::string, std::string>& message) {
  return labels.size() == static_cast<size_t>(message.size()) && std::ranges::all_of(labels, [&](const auto& label) {
           const auto it = message.find(label.first);
           return it != message.end() && it->second == label.second;
         });
}

}  // namespace

// A number that names nothing here ends it: nobody can say how many resources belong to it. That is so only before the GCS has told of all nodes.
void LeaseService::TakeColumns(const v1::ResourceViewsNotice& notice) {
  const std::span<const int64_t> taken(notice.taken().data(), static_cast<size_t>(notice.taken_size()));
  size_t begin = 0;
  for (int i = 0; i < std::min(notice.numbers_size(), notice.versions_size()); ++i) {
    const uint32_t number = notice.numbers(i);
    if (number >= numbered_.size() || !numbered_[number].told) return;
    const Numbered& named = numbered_[number];
    if (taken.size() - begin < named.resources) return;
    queue_.view()->SetTaken(named.node, taken.subspan(begin, named.resources), notice.versions(i));
    begin += named.resources;
  }
}

void LeaseService::OnResourceViews(const v1::ResourceViewsNotice& notice) {
  scheduling::ClusterView* view = queue_.view();
  for (const auto& node : notice.nodes()) {
    const NodeId id = NodeId::FromBinaryOrNil(node.node_id());
    const bool here = id == deps_.node_id;  // known better here
    // To raylets that read no columns every node is told of in full, ten times a second: mostly that a little of it was taken or given back.
    if (const scheduling::ClusterView::Node* known = view->Find(id); known != nullptr && known->draining == node.draining() &&
                                                                     Equal(known->total(), node.total()) &&
                                                                     Equal(known->labels, node.labels())) {
      if (!here && known->version < node.version()) view->SetAvailable(id, FromProto(node.available()), node.version());
    } else if (!here) {
      view->Set(id, FromProto(node.total()), FromProto(node.available()), {node.labels().begin(), node.labels().end()}, node.version(),
                node.draining());
    }
    if (node.number() == 0 || node.number() > kMaxNumber) continue;
    if (numbered_.size() <= node.number()) numbered_.resize(node.number() + 1);
    numbered_[node.number()] = {true, here ? scheduling::ClusterView::Handle() : view->HandleOf(id),
                                FromProto(node.total()).items().size()};
  }
  TakeColumns(notice);
  for (const auto& gone : notice.gone()) view->Remove(NodeId::FromBinaryOrNil(gone));
  LeaseEffects effects;
  queue_.ViewChanged(Now(), &effects);
  Run(std::move(effects));
}

// ---- requests of owners ----

void LeaseService::RequestLease(const v1::RequestLeaseRequest& message, const rpc::ConnectionPtr& connection, rpc::Responder responder) {
  if (!responder.valid()) return;
  LeaseRequest request;
  request.lease = LeaseId::FromBinaryOrNil(message.lease_id());
  request.job = JobId::FromBinaryOrNil(message.job_id());
  request.owner = FromProto(message.owner()).worker_id;
  if (request.lease.IsNil() || request.job.IsNil() || request.owner.IsNil()) {
    responder.Fail(Status::InvalidArgument("RequestLease needs lease_id, job_id and owner"));
    return;
  }
  NodeId node;  // of an owner elsewhere
  if (deps_.workers->ConnectionOf(request.owner) == nullptr) {
    node = FromProto(message.owner()).node_id;
    if (node.IsNil() || node == deps_.node_id) {
      responder.Fail(Status::FailedPrecondition("the owner is not registered with this raylet"));
      return;
    }
    WatchRemoteOwner(request.owner, connection);
  }
  // Sent again: also when the lease is over, since nobody would know of another grant.
  if (message.ask() != 0 && !asked_.Begin(message.lease_id() + std::to_string(message.ask()), &responder)) return;
  if (const auto known = leases_.find(request.lease); known != leases_.end()) {  // asked again: the answer goes to the latest request
    known->second.responder = std::move(responder);
    if (!known->second.worker.IsNil()) AnswerLease(&known->second);
    return;
  }
  const SchedulingStrategy strategy = FromProto(message.strategy());
  request.where = scheduling::MakePlacementRequest(FromProto(message.resources()), strategy);
  request.where.stick = message.locality();
  if (strategy.kind == SchedulingStrategy::kPlacementGroup) request.bundle = {strategy.placement_group_id, strategy.bundle_index};
  request.other_places = message.other_places();
  request.priority = strategy.priority;
  if (message.placement() == v1::LEASE_PLACEMENT_NOW_OR_NEVER) request.mode = scheduling::LeaseMode::kNowOrNever;
  if (message.placement() == v1::LEASE_PLACEMENT_HERE) request.mode = scheduling::LeaseMode::kHere;
  for (const auto& node : message.rejected_by()) request.rejected_by.push_back(NodeId::FromBinaryOrNil(node));
  if (request.mode != scheduling::LeaseMode::kDecide) Touch();
  request.runtime_env = message.runtime_env();
  request.task_name = message.task_name();
  request.dedicated = message.dedicated();
  request.depth = message.depth();
  Lease& lease = leases_[request.lease];
  lease.request = request;
  lease.responder = std::move(responder);
  lease.retriable = message.retriable();
  lease.owner_node = node;
  LeaseEffects effects;
  const LeaseId id = request.lease;
  const bool may_run_here = queue_.resources().total().Covers(request.where.need);
  queue_.Request(std::move(request), Now(), &effects);
  Run(std::move(effects));
  // Only for those that wait: who is granted at once fetches at once.
  if (message.arguments().empty() || !may_run_here || deps_.prefetch == nullptr || !queue_.IsQueued(id)) return;
  if (const auto it = leases_.find(id); it != leases_.end()) it->second.prefetch = deps_.prefetch(message);
}

void LeaseService::ReturnLease(const v1::ReturnLeaseRequest& message) {
  const LeaseId id = LeaseId::FromBinaryOrNil(message.lease_id());
  const auto it = leases_.find(id);
  if (it == leases_.end() || it->second.actor != nullptr) return;
  const WorkerId worker = it->second.worker;
  if (worker.IsNil()) return CancelLease(id);
  if (message.worker_failed()) deps_.workers->Kill(worker, std::string(kOwnerLostIt), /*intended=*/false);
  EndLease(id, !message.worker_failed() && !message.worker_exiting() && !it->second.request.dedicated);
}

void LeaseService::CancelLease(const LeaseId& id) {
  const auto it = leases_.find(id);
  if (it == leases_.end() || !it->second.worker.IsNil() || it->second.actor != nullptr) return;  // the owner returns what it was given
  v1::RequestLeaseReply reply;
  reply.set_cancelled(true);
  if (it->second.responder.valid()) it->second.responder.Send(reply);
  Drop(id);
}

void LeaseService::Drop(const LeaseId& id) {
  deps_.workers->CancelPop(id);
  leases_.erase(id);
  LeaseEffects effects;
  queue_.Cancel(id, Now(), &effects);
  queue_.Return(id, Now(), &effects);
  Run(std::move(effects));
}

void LeaseService::EndLease(const LeaseId& id, bool reusable) {
  const auto it = leases_.find(id);
  const WorkerId worker = it->second.worker;
  by_worker_.erase(worker);
  const bool dedicated = it->second.request.dedicated;
  leases_.erase(it);
  // The worker first: the next lease then finds it idle.
  deps_.workers->Return(worker, reusable);
  if (dedicated) deps_.workers->AskExit(worker, "it was started for one lease", /*must=*/false);
  LeaseEffects effects;
  queue_.Return(id, Now(), &effects);
  Run(std::move(effects));
}

void LeaseService::LetWorkersFinish(const std::string& reason) {
  for (const auto& [id, lease] : leases_) {
    if (lease.actor == nullptr && !lease.worker.IsNil()) deps_.workers->AskExit(lease.worker, reason, /*must=*/false);
  }
}

// ---- effects ----

void LeaseService::Run(LeaseEffects effects) {
  // Carrying one out may cause others: they queue up behind, so that each list stays in order.
  for (auto& effect : effects) effects_.push_back(std::move(effect));
  if (running_effects_) return;
  running_effects_ = true;
  while (!effects_.empty()) {
    const scheduling::LeaseEffect effect = std::move(effects_.front());
    effects_.pop_front();
    Apply(effect);
  }
  running_effects_ = false;
  timer_.Arm(queue_.NextDeadline());
  if (queue_.looked_elsewhere() > looked_elsewhere_) {
    looked_elsewhere_ = queue_.looked_elsewhere();
    if (deps_.on_looked_elsewhere != nullptr) deps_.on_looked_elsewhere();
  }
  deps_.on_resources_changed();
}

void LeaseService::Apply(const scheduling::LeaseEffect& effect) {
  if (const auto* granted = std::get_if<scheduling::LeaseGranted>(&effect)) {
    const auto it = leases_.find(granted->request.lease);
    if (it == leases_.end()) return;  // dropped since
    it->second.instances = granted->instances;
    deps_.workers->Pop(granted->request.lease, {granted->request.job, granted->request.runtime_env}, granted->request.dedicated,
                       /*actor=*/it->second.actor != nullptr);
  } else if (const auto* spilled = std::get_if<scheduling::LeaseSpilled>(&effect)) {
    const auto it = leases_.find(spilled->lease);
    if (it == leases_.end()) return;
    v1::RequestLeaseReply reply;
    reply.set_spillback_node_id(spilled->node.Binary());
    reply.set_spillback_placement(spilled->mode == scheduling::LeaseMode::kHere ? v1::LEASE_PLACEMENT_HERE
                                                                                : v1::LEASE_PLACEMENT_NOW_OR_NEVER);
    TakeUnused(it, reply);
  } else if (const auto* rejected = std::get_if<scheduling::LeaseRejected>(&effect)) {
    const auto it = leases_.find(rejected->lease);
    if (it == leases_.end()) return;
    v1::RequestLeaseReply reply;
    reply.set_rejected(true);
    reply.set_bundle_gone(rejected->bundle_gone);
    reply.set_labels_differ(rejected->labels_differ);
    TurnAway(TakeUnused(it, reply), /*cancelled=*/false);
  } else if (const auto* refused = std::get_if<scheduling::LeaseRefused>(&effect)) {
    const auto it = leases_.find(refused->lease);
    if (it == leases_.end()) return;
    v1::RequestLeaseReply reply;
    reply.set_unschedulable(refused->reason);
    if (const auto actor = TakeUnused(it, reply); actor != nullptr)
      FailActor(actor, static_cast<int32_t>(ErrorType::kActorUnschedulable), "The actor cannot be scheduled: " + refused->reason);
  } else if (const auto* cancelled = std::get_if<scheduling::LeaseCancelled>(&effect)) {
    const auto it = leases_.find(cancelled->lease);
    if (it == leases_.end()) return;
    v1::RequestLeaseReply reply;
    reply.set_cancelled(true);
    TurnAway(TakeUnused(it, reply), /*cancelled=*/true);
  } else if (const auto* revoked = std::get_if<scheduling::LeaseRevoked>(&effect)) {
    const auto it = leases_.find(revoked->lease);
    if (it == leases_.end()) return;
    if (it->second.worker.IsNil()) {
      v1::RequestLeaseReply reply;
      reply.set_rejected(true);
      reply.set_bundle_gone(!it->second.request.bundle.IsNil());
      if (it->second.responder.valid()) it->second.responder.Send(reply);
      const auto actor = it->second.actor;
      Drop(revoked->lease);
      TurnAway(actor, /*cancelled=*/false);
    } else {
      deps_.workers->Kill(it->second.worker, revoked->reason, /*intended=*/true);
    }
  } else if (const auto* infeasible = std::get_if<scheduling::InfeasibleNotice>(&effect)) {
    RAY_LOG(WARNING) << infeasible->message;
    deps_.workers->NotifyDrivers(infeasible->job, "infeasible", infeasible->message);
  } else if (const auto* reclaim = std::get_if<scheduling::ReclaimWanted>(&effect)) {
    for (const auto& owner : reclaim->owners) {
      auto connection = deps_.workers->ConnectionOf(owner);
      if (const auto remote = remote_owners_.find(owner); connection == nullptr && remote != remote_owners_.end())
        connection = remote->second;
      if (connection == nullptr) continue;
      v1::ReclaimLeasesNotice notice;
      for (const auto& [holder, lease] : reclaim->yield) {
        if (holder == owner) notice.add_yield(lease.Binary());
      }
      connection->Notify(MethodId::kReclaimLeases, notice);
    }
  }
}

std::shared_ptr<LeaseService::Actor> LeaseService::TakeUnused(std::map<LeaseId, Lease>::iterator it, const v1::RequestLeaseReply& reply) {
  if (it->second.responder.valid()) it->second.responder.Send(reply);
  auto actor = std::move(it->second.actor);
  leases_.erase(it);
  return actor;
}

void LeaseService::OnTick() {
  LeaseEffects effects;
  queue_.Tick(Now(), &effects);
  Run(std::move(effects));
}

void LeaseService::OnAssigned(const LeaseId& id, const WorkerId& worker) {
  const auto it = leases_.find(id);
  if (it == leases_.end()) {  // dropped while the answer was on its way
    deps_.workers->Return(worker, /*reusable=*/true);
    return;
  }
  Lease& lease = it->second;
  lease.worker = worker;
  lease.assigned_at = Now();
  by_worker_[worker] = id;
  if (lease.actor == nullptr) {
    if (!lease.owner_node.IsNil() && deps_.on_lent) deps_.on_lent(worker, lease.owner_node);
    AnswerLease(&lease);
    return;
  }
  const auto actor = lease.actor;
  actor->worker = worker;
  // Placed: from here on it holds what it holds for life. By default that is nothing, so that actors do not fill the CPUs.
  LeaseEffects effects;
  queue_.Shrink(id, FromProto(actor->request.spec().template_().resources()), Now(), &effects);
  PushCreation(actor);
  Run(std::move(effects));
}

void LeaseService::AnswerLease(Lease* lease) {
  if (!lease->responder.valid()) return;
  v1::RequestLeaseReply reply;
  reply.set_granted(true);
  ToProto(Address{deps_.node_id, lease->worker}, reply.mutable_worker());
  reply.set_worker_pid(deps_.workers->PidOf(lease->worker));
  for (const auto& instance : lease->instances) FillInstances(instance, reply.add_instances());
  lease->responder.Send(reply);
  lease->responder = {};
}

void LeaseService::OnPopFailed(const WorkerPopFailed& failure) {
  const auto it = leases_.find(failure.lease);
  if (it == leases_.end()) return;
  Lease lease = std::move(it->second);
  Drop(failure.lease);
  if (failure.job_ended) {
    if (lease.responder.valid()) {
      v1::RequestLeaseReply reply;
      reply.set_cancelled(true);
      lease.responder.Send(reply);
    }
  } else {
    deps_.workers->NotifyDrivers(lease.request.job, "worker_startup_failed", failure.reason);
    if (lease.responder.valid()) {
      lease.responder.Fail(Status(StatusCode::kFailedPrecondition, failure.reason, static_cast<int32_t>(ErrorType::kWorkerStartupFailed)));
    }
  }
  if (lease.actor == nullptr) return;
  if (failure.job_ended) {
    v1::StartActorReply answer;
    answer.set_cancelled(true);
    AnswerActor(lease.actor, std::move(answer));
    ForgetActor(lease.actor);
  } else {
    FailActor(lease.actor, static_cast<int32_t>(ErrorType::kWorkerStartupFailed), failure.reason);
  }
}

void LeaseService::OnProcessEnded(const ProcessEnd& end) {
  // Its own lease: what it ran is lost.
  if (const auto held = by_worker_.find(end.worker); held != by_worker_.end()) {
    const LeaseId id = held->second;
    const auto actor = leases_.at(id).actor;
    by_worker_.erase(held);
    leases_.erase(id);
    LeaseEffects effects;
    queue_.Return(id, Now(), &effects);
    if (actor != nullptr) {
      if (actor->cancelled) {
        v1::StartActorReply answer;
        answer.set_cancelled(true);
        AnswerActor(actor, std::move(answer));
        ForgetActor(actor);
      } else {
        FailActor(actor, static_cast<int32_t>(ErrorType::kWorkerDied), "The worker died while it created the actor: " + end.detail,
                  end.pid);
      }
    }
    Run(std::move(effects));
  }
  OnOwnerDied(end.worker);
}

void LeaseService::OnOwnerDied(const WorkerId& owner) {
  remote_owners_.erase(owner);
  // Leases that it owned or waited for.
  std::vector<LeaseId> waiting;
  for (const auto& [id, lease] : leases_) {
    if (lease.request.owner == owner && queue_.IsQueued(id)) waiting.push_back(id);
  }
  for (const auto& id : waiting) leases_.erase(id);
  LeaseEffects effects;
  queue_.OwnerDied(owner, Now(), &effects);
  Run(std::move(effects));
}

void LeaseService::WatchRemoteOwner(const WorkerId& owner, const rpc::ConnectionPtr& connection) {
  rpc::ConnectionPtr& watched = remote_owners_[owner];
  if (watched == connection) return;
  watched = connection;
  connection->OnClose([this, owner, raw = connection.get(), alive = alive_](const Status&) {
    if (!*alive) return;
    const auto it = remote_owners_.find(owner);
    if (it != remote_owners_.end() && it->second.get() == raw) OnOwnerDied(owner);
  });
}

void LeaseService::FillState(v1::NodeState* state) {
  for (const auto& [id, actor] : actors_) {
    v1::ActorOnNode* found = state->add_actors();
    found->set_actor_id(id.Binary());
    found->set_restart(actor->restart);
    if (!actor->worker.IsNil()) found->set_worker_id(actor->worker.Binary());
  }
  for (const scheduling::BundleId& id : queue_.Bundles()) {
    v1::BundleOnNode* found = state->add_bundles();
    found->set_placement_group_id(id.group.Binary());
    found->set_index(id.index);
  }
  queue_.ShowAllBundles();
}

std::set<JobId> LeaseService::Jobs() const {
  std::set<JobId> jobs;
  for (const auto& [id, lease] : leases_) jobs.insert(lease.request.job);
  return jobs;
}

void LeaseService::JobFinished(const JobId& job, const std::set<WorkerId>& kept_elsewhere) {
  if (job.IsNil()) return;
  RAY_LOG(INFO) << "job " << job << " has ended";
  // Detached actors stay, and so does whatever they started, directly or not. The GCS knows those of other nodes.
  std::set<WorkerId> kept = kept_elsewhere;
  for (bool grown = true; grown;) {
    grown = false;
    for (const auto& [id, lease] : leases_) {
      if (lease.worker.IsNil() || kept.contains(lease.worker)) continue;
      const WorkerId owner = lease.actor != nullptr ? lease.actor->owner : lease.request.owner;
      if (IsOfDetachedActor(lease.worker) || kept.contains(owner)) grown = kept.insert(lease.worker).second || grown;
    }
  }
  auto keep_lease = [this, &kept](const LeaseId& id) {
    const auto it = leases_.find(id);
    if (it == leases_.end()) return false;
    const Lease& lease = it->second;
    return lease.actor != nullptr ? lease.actor->detached || kept.contains(lease.actor->owner) : kept.contains(lease.request.owner);
  };
  LeaseEffects effects;
  // The GCS, nil here, cancels the starts of its actors itself: it knows which are detached.
  queue_.JobFinished(
      job, [&](const WorkerId& owner) { return owner.IsNil() || kept.contains(owner); }, Now(), &effects);
  Run(std::move(effects));
  deps_.workers->JobFinished(
      job, [&](const WorkerId& worker) { return kept.contains(worker); }, keep_lease);
}

std::vector<MemoryCandidate> LeaseService::RunningWork() const {
  std::vector<MemoryCandidate> work;
  for (const auto& [id, lease] : leases_) {
    if (lease.worker.IsNil()) continue;
    MemoryCandidate candidate;
    candidate.worker = lease.worker;
    candidate.owner = lease.actor != nullptr ? lease.actor->owner : lease.request.owner;
    candidate.name = lease.request.task_name;
    candidate.pid = deps_.workers->PidOf(lease.worker);
    candidate.retriable = lease.retriable;
    candidate.leased = lease.assigned_at;
    work.push_back(std::move(candidate));
  }
  return work;
}

std::vector<HeldLease> LeaseService::Held() const {
  std::vector<HeldLease> all;
  for (const auto& [id, lease] : leases_) {
    if (lease.worker.IsNil()) continue;
    HeldLease held{id, lease.worker, lease.request.job, {}, {}, {}, {}, false, lease.assigned_at};
    if (lease.actor != nullptr) {
      const auto& creation = lease.actor->request.spec().creation();
      held.actor = lease.actor->id;
      held.class_name = creation.class_name();
      held.actor_name = creation.name();
      held.ray_namespace = creation.ray_namespace();
      held.actor_alive = lease.actor->reply != nullptr;
    }
    all.push_back(std::move(held));
  }
  return all;
}

WorkerId LeaseService::HolderOf(const LeaseId& lease) const {
  const auto it = leases_.find(lease);
  return it == leases_.end() ? WorkerId::Nil() : it->second.worker;
}

void LeaseService::WriteStats(JsonWriter* json) const {
  auto resources = [json](std::string_view name, const ResourceSet& set) {
    json->Key(name).BeginObject();
    for (const auto& [resource, amount] : set.items()) json->Key(resource).Double(static_cast<double>(amount) / ResourceSet::kUnit);
    json->EndObject();
  };
  resources("total", queue_.resources().total());
  resources("available", queue_.resources().available());
  json->Key("leases").BeginArray();
  for (const auto& [id, lease] : leases_) {
    json->BeginObject()
        .Key("lease_id")
        .String(id.Hex())
        .Key("job_id")
        .String(lease.request.job.Hex())
        .Key("name")
        .String(lease.request.task_name);
    json->Key("resources").String(lease.request.where.need.ToString());
    json->Key("state").String(queue_.IsQueued(id) ? "queued" : lease.worker.IsNil() ? "waiting for a worker" : "held");
    if (!lease.worker.IsNil()) json->Key("worker_id").String(lease.worker.Hex());
    if (lease.actor != nullptr) json->Key("actor_id").String(lease.actor->id.Hex());
    json->EndObject();
  }
  json->EndArray();
  json->Key("queue").BeginArray();
  for (const auto& line : queue_.DescribeQueue()) json->String(line);
  json->EndArray();
}

// ---- for people ----

bool LeaseService::Explain(const LeaseId& id, v1::WaitFact* out) const {
  const auto it = leases_.find(id);
  if (it == leases_.end()) return false;
  const Lease& lease = it->second;
  SetSubject(v1::SUBJECT_KIND_LEASE, id.View(), v1::WAIT_STATE_QUEUED, out);
  out->set_name(lease.request.task_name);
  out->set_node_id(deps_.node_id.Binary());
  ToProto(lease.request.where.need, out->mutable_need());
  if (const auto standing = queue_.StandingOf(id)) {
    if (!standing->infeasible.empty()) {
      out->set_state(v1::WAIT_STATE_INFEASIBLE);
      if (const PlacementGroupId& group = lease.request.bundle.group; !group.IsNil())
        AddPointer(v1::SUBJECT_KIND_PLACEMENT_GROUP, group.View(), Address(), out);
    }
    SetAge(standing->since, Now(), out);
    out->set_ahead(static_cast<int64_t>(standing->behind));
    out->set_detail(standing->why);
    ToProto(queue_.resources().available(), out->mutable_available());
    ToProto(queue_.resources().total(), out->mutable_total());
    return true;
  }
  if (lease.worker.IsNil()) {
    out->set_state(v1::WAIT_STATE_STARTING_WORKER);
    const std::string trouble = deps_.workers->StartTrouble();
    out->set_detail(trouble.empty() ? "the resources are granted; a worker process starts, or its runtime environment is set up"
                                    : "the resources are granted, but no worker process can start now: " + trouble);
    return true;
  }
  out->set_state(v1::WAIT_STATE_GRANTED);
  SetAge(lease.assigned_at, Now(), out);
  out->set_worker_id(lease.worker.Binary());
  out->set_pid(deps_.workers->PidOf(lease.worker));
  return true;
}

}  // namespace ray::raylet
