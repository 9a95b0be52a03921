#include "ray/testing/sim/sim_driver.h"

#include <iterator>
#include <utility>

#include "ray/v1/gcs_actor.pb.h"
#include "ray/v1/gcs_job.pb.h"
#include "ray/v1/gcs_kv.pb.h"
#include "ray/v1/gcs_placement_group.pb.h"
#include "ray/v1/raylet_worker.pb.h"
#include "ray/v1/tunnel.pb.h"
#include "ray/wire/convert.h"
#include "ray/wire/version.h"

namespace ray::sim {
namespace {

constexpr int kMaxHops = 50;
constexpr Duration kCancelAgain = std::chrono::seconds(5);
constexpr Duration kAskAgain = std::chrono::milliseconds(200);

ResourceSet Cpus(int64_t n) {
  ResourceSet set;
  set.Set("CPU", n * ResourceSet::kUnit);
  return set;
}

}  // namespace

SimDriver* SimDriver::Start(SimNetwork* network, HostId host, const Address& raylet, const std::string& raylet_address, DriverConfig config,
                            KvHistory* history) {
  Process* process = network->world()->NewProcess("driver", host);
  network->world()->Record("driver starts", {}, process->id(), host);
  const auto driver = std::make_shared<SimDriver>(network, process, raylet, config, history);
  process->Own(driver);
  process->Run([&] { driver->Register(raylet_address); });
  return driver.get();
}

SimDriver::SimDriver(SimNetwork* network, Process* process, const Address& raylet, DriverConfig config, KvHistory* history)
    : network_(network),
      process_(process),
      config_(config),
      history_(history),
      random_(process->world()->random().Fork()),
      self_{raylet.node_id, WorkerId::FromRandom()} {
  dispatcher_->RegisterTyped<v1::TunnelFrames>(MethodId::kTunnel,
                                               [this](const v1::TunnelFrames& message, rpc::Request& request, rpc::Responder) {
                                                 if (hub_ != nullptr) hub_->OnFrames(message, request.parts);
                                               });
  dispatcher_->RegisterTyped<v1::TunnelClosed>(MethodId::kTunnelClosed,
                                               [this](const v1::TunnelClosed& message, rpc::Request&, rpc::Responder) {
                                                 if (hub_ != nullptr) hub_->OnClosed(message);
                                               });
  dispatcher_->RegisterTyped<v1::NodeDiedNotice>(MethodId::kNodeDied,
                                                 [this](const v1::NodeDiedNotice& message, rpc::Request&, rpc::Responder) {
                                                   const NodeId node = NodeId::FromBinaryOrNil(message.node_id());
                                                   remote_.erase(node);
                                                   if (hub_ != nullptr) hub_->CloseNode(node, "the node is dead");
                                                 });
}

SimDriver::~SimDriver() {
  if (hub_ != nullptr) hub_->Shutdown();
}

void SimDriver::Register(const std::string& raylet_address) {
  raylet_ = network_->Connect(process_, raylet_address, dispatcher_.get());
  raylet_->OnClose([this](const Status&) { process_->EndSoon(1); });
  rpc::TunnelHub::Deps deps;
  deps.loop = process_->loop();
  deps.self = self_;
  deps.dispatcher = dispatcher_;
  deps.send = [this](MethodId method, std::string_view control, const PartList& parts) { raylet_->NotifyRaw(method, control, parts); };
  deps.flush = [] {};
  deps.faults = network_->FaultsOf(process_);
  hub_ = rpc::TunnelHub::Make(std::move(deps));
  v1::RegisterWorkerRequest request;
  request.set_worker_id(self_.worker_id.Binary());
  request.set_is_driver(true);
  request.set_pid(process_->pid());
  request.set_protocol_version(std::string(kProtocolVersion));
  request.set_python_version("3.11.7");
  Ask("registration", MethodId::kRegisterWorker, request, [this](const Status& status, std::string_view) {
    if (!status.ok()) return process_->EndSoon(1);
    AddJob();
  });
}

void SimDriver::AddJob() {
  v1::AddJobRequest request;
  request.mutable_job()->set_driver_worker_id(self_.worker_id.Binary());
  request.mutable_job()->set_driver_pid(process_->pid());
  Ask("job", MethodId::kAddJob, request, [this](const Status& status, std::string_view control) {
    v1::AddJobReply reply;
    if (!status.ok() || !reply.ParseFromArray(control.data(), static_cast<int>(control.size()))) return process_->EndSoon(1);
    job_ = JobId::FromBinaryOrNil(reply.job_id());
    if (config_.tasks > 0) {
      tasks_left_ = config_.tasks;
      return MoreTasks();
    }
    process_->loop()->AddTimer(config_.active, [this] {
      active_ = false;
      CancelWaiting();
    });
    Next();
  });
}

void SimDriver::Ask(const std::string& what, MethodId method, const rpc::MessageLite& message,
                    std::function<void(const Status&, std::string_view)> done) {
  const uint64_t no = ++last_;
  waiting_[no] = what;
  raylet_->Call(method, message, {},
                [this, no, done = std::move(done)](const Status& status, const rpc::Reply& reply) {
                  waiting_.erase(no);
                  if (!raylet_->closed()) done(status, reply.control);
                },
                {});
}

void SimDriver::Next() {
  if (!active_) return;
  process_->loop()->AddTimer(random_.Between(Duration::zero(), config_.max_pause), [this] {
    if (!active_) return;
    Act();
    Next();
  });
}

void SimDriver::Act() {
  switch (random_.Below(12)) {
    case 0:
    case 1: return CreateActor();
    case 2: return EndActor();
    case 3: return CreateGroup();
    case 4: return RemoveGroup();
    case 5:
    case 6:
    case 7: return Kv();
    default: return RequestLease();
  }
}

// ---- leases ----

rpc::ConnectionPtr SimDriver::RayletOf(const NodeId& node) {
  if (node.IsNil() || node == self_.node_id) return raylet_;
  rpc::ConnectionPtr& connection = remote_[node];
  if (connection == nullptr || connection->closed()) connection = hub_->Connect(Address{node, WorkerId::Nil()});
  return connection;
}

void SimDriver::MoreTasks() {
  while (tasks_left_ > 0 && static_cast<int64_t>(leases_.size()) < config_.parallel) {
    --tasks_left_;
    RequestLease();
  }
}

void SimDriver::GiveUp(uint64_t no) {
  leases_.erase(no);
  if (config_.tasks == 0) return;
  ++tasks_left_;
  process_->loop()->AddTimer(kAskAgain, [this] { MoreTasks(); });
}

void SimDriver::RequestLease() {
  const uint64_t no = ++last_;
  Lease& lease = leases_[no];
  lease.id = LeaseId::FromRandom();
  if (config_.tasks > 0) {
    lease.need = Cpus(1);
    return AskForLease(no, {}, v1::LEASE_PLACEMENT_UNSPECIFIED);
  }
  lease.need = Cpus(random_.Between(1, 3));
  lease.spread = random_.Chance(0.3);
  if (random_.Chance(0.1)) {
    process_->loop()->AddTimer(random_.Between(Duration::zero(), config_.max_hold), [this, no] {
      const auto it = leases_.find(no);
      if (it == leases_.end() || !waiting_.contains(no)) return;
      v1::CancelLeaseRequest cancel;
      cancel.set_lease_id(it->second.id.Binary());
      RayletOf(it->second.node)->Notify(MethodId::kCancelLease, cancel);
    });
  }
  AskForLease(no, {}, v1::LEASE_PLACEMENT_UNSPECIFIED);
}

// What others hold may never be free: whoever has waited for it long enough wants it no more.
void SimDriver::CancelWaiting() {
  bool waits = false;
  for (const auto& [no, lease] : leases_) {
    if (!waiting_.contains(no)) continue;
    waits = true;
    v1::CancelLeaseRequest cancel;
    cancel.set_lease_id(lease.id.Binary());
    RayletOf(lease.node)->Notify(MethodId::kCancelLease, cancel);
  }
  if (waits) process_->loop()->AddTimer(kCancelAgain, [this] { CancelWaiting(); });
}

void SimDriver::AskForLease(uint64_t no, const NodeId& node, v1::LeasePlacement placement) {
  Lease& lease = leases_.at(no);
  lease.node = node;
  ++asked_;
  v1::RequestLeaseRequest request;
  request.set_lease_id(lease.id.Binary());
  request.set_ask(++lease.asks);
  request.set_job_id(job_.Binary());
  ToProto(lease.need, request.mutable_resources());
  if (lease.spread) request.mutable_strategy()->set_kind(v1::STRATEGY_KIND_SPREAD);
  ToProto(self_, request.mutable_owner());
  request.set_task_name("task");
  request.set_placement(placement);
  if (placement == v1::LEASE_PLACEMENT_UNSPECIFIED) {
    for (const NodeId& rejected : lease.rejected_by) request.add_rejected_by(rejected.Binary());
  }
  waiting_[no] = "lease " + lease.id.Hex().substr(0, 8) + " of node " + (node.IsNil() ? self_.node_id : node).Hex().substr(0, 8);
  rpc::CallTyped<v1::RequestLeaseReply>(
      *RayletOf(node), MethodId::kRequestLease, request, {},
      [this, no](const Status& status, const v1::RequestLeaseReply& reply, const PartList&) { OnLease(no, status, reply); });
}

void SimDriver::AskForLease(const LeaseId& lease, const NodeId& node, std::function<void(const Status&)> done) {
  v1::RequestLeaseRequest request;
  request.set_lease_id(lease.Binary());
  request.set_job_id(job_.Binary());
  request.set_ask(1);
  ToProto(Cpus(1), request.mutable_resources());
  ToProto(self_, request.mutable_owner());
  request.set_placement(v1::LEASE_PLACEMENT_HERE);
  RayletOf(node)->Call(MethodId::kRequestLease, request, {},
                       [done = std::move(done)](const Status& status, const rpc::Reply&) { done(status); }, {});
}

void SimDriver::OnLease(uint64_t no, const Status& status, const v1::RequestLeaseReply& reply) {
  waiting_.erase(no);
  const auto it = leases_.find(no);
  if (it == leases_.end() || raylet_->closed()) return;
  Lease& lease = it->second;
  if (status.ok() && reply.granted()) {
    process_->loop()->AddTimer(random_.Between(Duration::zero(), config_.max_hold),
                               [this, no] { ReturnLease(no, config_.tasks == 0 && random_.Chance(0.1)); });
    return;
  }
  const bool unreachable = status.code() == StatusCode::kUnavailable && !lease.node.IsNil();
  if (++lease.hops > kMaxHops || (status.ok() && (reply.cancelled() || !reply.unschedulable().empty()))) {
    GiveUp(no);
  } else if (status.ok() && !reply.spillback_node_id().empty()) {
    AskForLease(no, NodeId::FromBinaryOrNil(reply.spillback_node_id()), reply.spillback_placement());
  } else if (unreachable || (status.ok() && reply.rejected())) {
    const NodeId by = lease.node.IsNil() ? self_.node_id : lease.node;
    std::erase(lease.rejected_by, by);
    lease.rejected_by.push_back(by);
    waiting_[no] = "lease " + lease.id.Hex().substr(0, 8) + ", to be asked for again";
    process_->loop()->AddTimer(unreachable ? kAskAgain : Duration::zero(), [this, no] {
      if (!leases_.contains(no)) return;
      if (active_) return AskForLease(no, {}, v1::LEASE_PLACEMENT_UNSPECIFIED);
      waiting_.erase(no);
      leases_.erase(no);
    });
  } else {
    GiveUp(no);
  }
}

void SimDriver::ReturnLease(uint64_t no, bool failed) {
  const auto it = leases_.find(no);
  if (it == leases_.end()) return;
  v1::ReturnLeaseRequest request;
  request.set_lease_id(it->second.id.Binary());
  request.set_worker_failed(failed);
  RayletOf(it->second.node)->Notify(MethodId::kReturnLease, request);
  leases_.erase(it);
  ++tasks_done_;
  MoreTasks();
}

// ---- actors ----

void SimDriver::CreateActor() {
  const ActorId actor = ActorId::Of(job_);
  v1::TaskSpec spec;
  v1::TaskTemplate* task = spec.mutable_template_();
  task->set_type(v1::TASK_TYPE_ACTOR_CREATION);
  task->set_job_id(job_.Binary());
  task->set_function_name("Actor");
  task->set_actor_id(actor.Binary());
  ToProto(Cpus(random_.Between(0, 1)), task->mutable_resources());
  if (!groups_.empty() && random_.Chance(0.3)) {
    auto group = groups_.begin();
    std::advance(group, static_cast<std::ptrdiff_t>(random_.Below(groups_.size())));
    task->mutable_strategy()->set_kind(v1::STRATEGY_KIND_PLACEMENT_GROUP);
    task->mutable_strategy()->set_placement_group_id(group->Binary());
    task->mutable_strategy()->set_bundle_index(-1);
  }
  spec.set_task_id(TaskId::ForActorCreation(actor).Binary());
  ToProto(self_, spec.mutable_owner());
  v1::ActorCreation* creation = spec.mutable_creation();
  creation->set_actor_id(actor.Binary());
  creation->set_max_restarts(static_cast<int32_t>(random_.Between(-1, 2)));
  creation->set_max_concurrency(1);
  creation->set_class_name("Actor");
  ToProto(Cpus(1), creation->mutable_placement_resources());
  ToProto(self_, creation->mutable_owner());
  v1::RegisterActorRequest request;
  *request.mutable_spec() = spec;
  Ask("registration of actor " + actor.Hex(), MethodId::kRegisterActor, request,
      [this, actor, spec](const Status& status, std::string_view) {
        if (!status.ok()) return;
        v1::CreateActorRequest create;
        *create.mutable_spec() = spec;
        Ask("creation of actor " + actor.Hex(), MethodId::kCreateActor, create, [this, actor](const Status& created, std::string_view) {
          if (created.ok()) actors_.insert(actor);
        });
      });
}

void SimDriver::EndActor() {
  if (actors_.empty()) return;
  auto actor = actors_.begin();
  std::advance(actor, static_cast<std::ptrdiff_t>(random_.Below(actors_.size())));
  const bool restart = random_.Chance(0.3);
  if (random_.Chance(0.3)) {
    v1::ActorOutOfScopeRequest request;
    request.set_actor_id(actor->Binary());
    Ask("out of scope of actor " + actor->Hex(), MethodId::kActorOutOfScope, request, [](const Status&, std::string_view) {});
    actors_.erase(actor);
    return;
  }
  v1::KillActorRequest request;
  request.set_actor_id(actor->Binary());
  request.set_no_restart(!restart);
  request.set_request_id("kill " + std::to_string(process_->id()) + "." + std::to_string(last_));
  Ask("end of actor " + actor->Hex(), MethodId::kKillActor, request, [](const Status&, std::string_view) {});
  actors_.erase(actor);
}

// ---- placement groups ----

void SimDriver::CreateGroup() {
  v1::CreatePlacementGroupRequest request;
  PlacementGroupId id;
  FillRandom(id.mutable_data(), PlacementGroupId::kSize - JobId::kSize);
  std::memcpy(id.mutable_data() + PlacementGroupId::kSize - JobId::kSize, job_.data(), JobId::kSize);
  v1::PlacementGroupInfo* group = request.mutable_group();
  group->set_placement_group_id(id.Binary());
  group->set_strategy(static_cast<v1::PlacementStrategy>(1 + random_.Below(4)));
  group->set_job_id(job_.Binary());
  const int64_t bundles = random_.Between(1, 3);
  for (int64_t i = 0; i < bundles; ++i) ToProto(Cpus(random_.Between(1, 2)), group->add_bundles()->mutable_resources());
  Ask("creation of group " + id.Hex(), MethodId::kCreatePlacementGroup, request, [this, id](const Status& status, std::string_view) {
    if (status.ok()) groups_.insert(id);
  });
}

void SimDriver::RemoveGroup() {
  if (groups_.empty()) return;
  auto group = groups_.begin();
  std::advance(group, static_cast<std::ptrdiff_t>(random_.Below(groups_.size())));
  v1::RemovePlacementGroupRequest request;
  request.set_placement_group_id(group->Binary());
  Ask("removal of group " + group->Hex(), MethodId::kRemovePlacementGroup, request, [](const Status&, std::string_view) {});
  groups_.erase(group);
}

// ---- keys and values ----

void SimDriver::Kv() {
  const std::string key = "key" + std::to_string(random_.Below(static_cast<uint64_t>(config_.kv_keys)));
  KvOperation operation;
  operation.kind = static_cast<KvOperation::Kind>(random_.Below(4));
  operation.called = process_->world()->now();
  const std::string value = std::to_string(process_->id()) + "." + std::to_string(++last_);
  const std::string id = "kv " + value;
  const bool writes = operation.kind == KvOperation::Kind::kPut || operation.kind == KvOperation::Kind::kPutIfAbsent;
  if (writes) operation.value = value;
  const auto kind = operation.kind;
  const auto index = history_->Called(key, std::move(operation));
  if (!index) return;
  const auto returned = [this, key, index = *index](bool truth, const std::string& read) {
    history_->Returned(key, index, truth, read, process_->world()->now());
  };
  if (kind == KvOperation::Kind::kGet) {
    v1::KvGetRequest request;
    request.set_ns("sim");
    request.set_key(key);
    Ask("get", MethodId::kKvGet, request, [returned](const Status& status, std::string_view control) {
      v1::KvGetReply reply;
      if (status.ok() && reply.ParseFromArray(control.data(), static_cast<int>(control.size()))) returned(reply.found(), reply.value());
    });
  } else if (writes) {
    v1::KvPutRequest request;
    request.set_ns("sim");
    request.set_key(key);
    request.set_value(value);
    request.set_overwrite(kind == KvOperation::Kind::kPut);
    request.set_request_id(id);
    Ask("put", MethodId::kKvPut, request, [returned](const Status& status, std::string_view control) {
      v1::KvPutReply reply;
      if (status.ok() && reply.ParseFromArray(control.data(), static_cast<int>(control.size()))) returned(reply.added(), {});
    });
  } else {
    v1::KvDelRequest request;
    request.set_ns("sim");
    request.set_key(key);
    request.set_request_id(id);
    Ask("delete", MethodId::kKvDel, request, [returned](const Status& status, std::string_view control) {
      v1::KvDelReply reply;
      if (status.ok() && reply.ParseFromArray(control.data(), static_cast<int>(control.size()))) returned(reply.deleted() > 0, {});
    });
  }
}

// ---- the end ----

void SimDriver::Finish() {
  if (!process_->alive()) return;
  process_->Run([this] {
    v1::FinishJobRequest request;
    request.set_job_id(job_.Binary());
    Ask("end of the job", MethodId::kFinishJob, request, [this](const Status&, std::string_view) { process_->EndSoon(0); });
  });
}

std::vector<std::string> SimDriver::Waiting() const {
  std::vector<std::string> waiting;
  for (const auto& [no, what] : waiting_) waiting.push_back(what);
  return waiting;
}

}  // namespace ray::sim
