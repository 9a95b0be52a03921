// The Core of core.h: what it asks the GCS and the raylets.
#include "ray/bindings/core.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "ray/bindings/fields.h"
#include "ray/bindings/values.h"
#include "ray/core_worker/core_worker.h"
#include "ray/v1/chaos.pb.h"
#include "ray/v1/gcs_job.pb.h"
#include "ray/v1/gcs_kv.pb.h"
#include "ray/v1/gcs_node.pb.h"
#include "ray/v1/gcs_placement_group.pb.h"
#include "ray/v1/raylet_worker.pb.h"

namespace ray::bindings {

namespace {

template <typename ReplyMessage>
Status CallChaos(core::CoreWorker* worker, const std::string& node_id, MethodId method, const rpc::MessageLite& request,
                 ReplyMessage* reply) {
  constexpr Duration kTimeout = std::chrono::seconds(10);  // a node that answers later is as good as dead
  return worker->CallRayletOf(NodeId::FromBinaryOrNil(node_id), method, request, reply, kTimeout);
}

}  // namespace

Status Core::KvGet(const std::string& ns, const std::string& key, bool* found, std::string* value) {
  v1::KvGetRequest request;
  request.set_ns(ns);
  request.set_key(key);
  v1::KvGetReply reply;
  RAY_RETURN_NOT_OK(worker_->CallRaylet(MethodId::kKvGet, request, &reply));
  *found = reply.found();
  value->swap(*reply.mutable_value());
  return Status::Ok();
}
Status Core::KvPut(const std::string& ns, const std::string& key, const std::string& value, bool overwrite, bool of_job, bool* added) {
  v1::KvPutRequest request;
  request.set_ns(ns);
  request.set_key(key);
  request.set_value(value);
  request.set_overwrite(overwrite);
  request.set_request_id(core::NewRequestId());
  if (of_job) request.set_job_id(worker_->info().job_id.Binary());
  v1::KvPutReply reply;
  RAY_RETURN_NOT_OK(worker_->CallRaylet(MethodId::kKvPut, request, &reply));
  *added = reply.added();
  return Status::Ok();
}
Status Core::KvDel(const std::string& ns, const std::string& key, bool by_prefix, int64_t* deleted) {
  v1::KvDelRequest request;
  request.set_ns(ns);
  request.set_key(key);
  request.set_by_prefix(by_prefix);
  request.set_request_id(core::NewRequestId());
  v1::KvDelReply reply;
  RAY_RETURN_NOT_OK(worker_->CallRaylet(MethodId::kKvDel, request, &reply));
  *deleted = reply.deleted();
  return Status::Ok();
}
Status Core::KvExists(const std::string& ns, const std::string& key, bool* exists) {
  v1::KvGetRequest request;
  request.set_ns(ns);
  request.set_key(key);
  v1::KvExistsReply reply;
  RAY_RETURN_NOT_OK(worker_->CallRaylet(MethodId::kKvExists, request, &reply));
  *exists = reply.exists();
  return Status::Ok();
}
Status Core::KvKeys(const std::string& ns, const std::string& prefix, std::vector<std::string>* keys) {
  v1::KvKeysRequest request;
  request.set_ns(ns);
  request.set_prefix(prefix);
  v1::KvKeysReply reply;
  RAY_RETURN_NOT_OK(worker_->CallRaylet(MethodId::kKvKeys, request, &reply));
  keys->assign(reply.keys().begin(), reply.keys().end());
  return Status::Ok();
}
Status Core::ListNodes(std::vector<NodeFields>* out) {
  v1::ListNodesRequest request;
  request.set_without_config(true);
  v1::ListNodesReply reply;
  RAY_RETURN_NOT_OK(worker_->CallRaylet(MethodId::kListNodes, request, &reply));
  for (const auto& n : reply.nodes()) out->push_back(FieldsOf(n));
  return Status::Ok();
}
Status Core::ListJobs(std::vector<JobFields>* out) {
  v1::ListJobsReply reply;
  RAY_RETURN_NOT_OK(worker_->CallRaylet(MethodId::kListJobs, v1::JobEmpty(), &reply));
  for (const auto& j : reply.jobs()) {
    out->push_back({j.job_id(), j.ray_namespace(), j.entrypoint(), j.config_json(), j.driver_pid(), j.start_time_ms(), j.end_time_ms()});
  }
  return Status::Ok();
}
Status Core::NodeStats(const std::string& node_id, int64_t timeout_ms, std::string* json) {
  v1::GetNodeStatsReply reply;
  if (node_id.empty()) {
    RAY_RETURN_NOT_OK(worker_->CallRaylet(MethodId::kGetNodeStats, v1::WorkerEmpty(), &reply));
  } else {
    RAY_RETURN_NOT_OK(worker_->CallRayletOf(NodeId::FromBinaryOrNil(node_id), MethodId::kGetNodeStats, v1::WorkerEmpty(), &reply,
                                            std::chrono::milliseconds(std::max<int64_t>(1, timeout_ms))));
  }
  json->swap(*reply.mutable_json());
  return Status::Ok();
}

Status Core::CreatePlacementGroup(const PlacementGroupFields& group, std::string* id) {
  RAY_ASSIGN_OR_RETURN(v1::PlacementGroupInfo info, GroupFrom(group));
  info.set_ray_namespace(Namespace(group.ray_namespace));
  PlacementGroupId made;
  RAY_RETURN_NOT_OK(worker_->placement_groups().Create(std::move(info), &made));
  *id = made.Binary();
  return Status::Ok();
}
void Core::RemovePlacementGroup(const std::string& id) { worker_->placement_groups().Remove(PlacementGroupId::FromBinaryOrNil(id)); }
GetStatus Core::WaitPlacementGroup(const std::string& id, int64_t timeout_ms, bool* placed) {
  core::GroupState state;
  const core::ReadResult result = worker_->placement_groups().Wait(PlacementGroupId::FromBinaryOrNil(id), timeout_ms, &state);
  *placed = state.kind == core::GroupState::kPlaced;
  return ToGetStatus(result);
}
Status Core::PlacementGroupReady(const std::string& id, const ValueIn& value, ObjectId* object_id) {
  return worker_->placement_groups().WhenReady(PlacementGroupId::FromBinaryOrNil(id), ViewOf(value), object_id);
}
Status Core::GetPlacementGroup(const std::string& id, const std::string& name, const std::string& ray_namespace,
                               PlacementGroupFields* out) {
  v1::GetPlacementGroupRequest request;
  request.set_placement_group_id(id);
  request.set_name(name);
  request.set_ray_namespace(Namespace(ray_namespace));
  v1::PlacementGroupInfo info;
  RAY_RETURN_NOT_OK(worker_->placement_groups().Get(request, &info));
  *out = FieldsOf(info);
  return Status::Ok();
}
Status Core::ListPlacementGroups(std::vector<PlacementGroupFields>* out) {
  v1::ListPlacementGroupsReply reply;
  RAY_RETURN_NOT_OK(worker_->placement_groups().List(&reply));
  for (const auto& info : reply.groups()) out->push_back(FieldsOf(info));
  return Status::Ok();
}

Status Core::ListChaosTargets(const std::string& node_id, std::vector<ChaosTargetFields>* out) {
  v1::ChaosListTargetsRequest request;
  request.set_job_id(worker_->info().job_id.Binary());
  v1::ChaosListTargetsReply reply;
  RAY_RETURN_NOT_OK(CallChaos(worker_.get(), node_id, MethodId::kChaosListTargets, request, &reply));
  for (const auto& t : reply.targets()) {
    out->push_back({t.lease_id(), t.worker_id(), t.running(), t.actor_id(), t.class_name(), t.actor_name(), t.ray_namespace(), t.pid(),
                    t.held_ms(), t.actor_alive()});
  }
  return Status::Ok();
}
Status Core::KillLeasedWorker(const std::string& node_id, const std::string& lease_id, const std::string& running,
                              const std::string& reason, bool* killed) {
  v1::ChaosKillWorkerRequest request;
  request.set_lease_id(lease_id);
  request.set_running(running);
  request.set_reason(reason);
  v1::ChaosKillWorkerReply reply;
  RAY_RETURN_NOT_OK(CallChaos(worker_.get(), node_id, MethodId::kChaosKillWorker, request, &reply));
  *killed = reply.killed();
  return Status::Ok();
}
Status Core::KillNode(const std::string& node_id, const std::string& reason) {
  v1::ChaosKillNodeRequest request;
  request.set_node_id(node_id);
  request.set_reason(reason);
  v1::ChaosEmpty reply;
  const Status status = CallChaos(worker_.get(), node_id, MethodId::kChaosKillNode, request, &reply);
  return status.code() == StatusCode::kUnavailable ? Status::Ok() : status;  // the link to it broke
}

}  // namespace ray::bindings
