#include "ray/gcs_server/services/gcs_state.h"
#include "ray/util/logging.h"
#include "ray/v1/raylet_bundle.pb.h"
#include "ray/wire/convert.h"

namespace ray::gcs {
namespace {

void ArmTimer(GcsState* gcs) {
  const Time next = gcs->groups.NextDeadline();
  if (next >= gcs->groups_timer_at) return;
  if (gcs->groups_timer != 0) gcs->loop->CancelTimer(gcs->groups_timer);
  gcs->groups_timer_at = next;
  gcs->groups_timer = gcs->loop->AddTimer(std::max(next - gcs->now(), Duration::zero()), [gcs] {
    gcs->groups_timer = 0;
    gcs->groups_timer_at = Time::Infinite();
    Effects out;
    gcs->groups.Tick(gcs->now(), gcs->wall_ms(), &out);
    RouteGroups(gcs, &out);
    gcs->runner.Run(std::move(out));
  });
}

template <typename Message, typename F>
void Serve(GcsState* gcs, rpc::Dispatcher* dispatcher, MethodId method, F event) {
  dispatcher->RegisterTyped<Message>(method, [gcs, event](const Message& message, rpc::Request&, rpc::Responder responder) {
    Effects out;
    event(message, gcs->runner.Hold(std::move(responder)), &out);
    RouteGroups(gcs, &out);
    gcs->runner.Run(std::move(out));
  });
}

// What a node says is free, with its answer: newer than its last report.
void TakeResources(GcsState* gcs, const v1::ReportResourcesRequest& report, Effects* out) {
  if (!gcs->nodes.Report(report, out)) return;
  const NodeId node = NodeId::FromBinaryOrNil(report.node_id());
  NodeChanged(gcs, node, out);
  SetLooksElsewhere(gcs, node, report.looks_elsewhere());
}

template <typename Request>
void FillIndices(const std::vector<int32_t>& indices, Request* request) {
  for (const int32_t index : indices) request->add_indices(index);
}

}  // namespace

void RouteGroups(GcsState* gcs, Effects* out) {
  for (const PlacementGroupId& id : gcs->groups.TakeChanged()) {
    if (const v1::PlacementGroupInfo* info = gcs->groups.Find(id)) gcs->actors.GroupChanged(*info, gcs->wall_ms(), out);
  }
  gcs->groups.ForgetRemoved(out);
  ArmTimer(gcs);
}

void PrepareBundlesOnNode(GcsState* gcs, const PrepareOnNode& order) {
  const rpc::ConnectionPtr link = gcs->LinkTo(order.node);
  if (!link) return;  // the node's death has failed the round
  v1::PrepareBundlesRequest request;
  request.set_placement_group_id(order.group.Binary());
  request.set_attempt(order.attempt);
  request.set_commit(order.commit);
  for (const auto& [index, need] : order.bundles) {
    v1::BundleRequest* bundle = request.add_bundles();
    bundle->set_index(index);
    ToProto(need, bundle->mutable_resources());
  }
  rpc::CallTyped<v1::PrepareBundlesReply>(
      *link, MethodId::kPrepareBundles, request, {},
      [gcs, link, order](const Status& status, const v1::PrepareBundlesReply& reply, const PartList&) {
        if (!status.ok() && link->closed()) return;  // with the link the node is gone
        if (!status.ok())
          RAY_LOG(WARNING) << "reserving bundles of " << order.group << " on node " << order.node << ": " << status.ToString();
        Effects out;
        gcs->groups.Prepared(order.group, order.attempt, order.node, status.ok() && reply.prepared(), gcs->now(), gcs->wall_ms(), &out);
        if (status.ok()) TakeResources(gcs, reply.resources(), &out);
        RouteGroups(gcs, &out);
        gcs->runner.Run(std::move(out));
      });
}

void CommitBundlesOnNode(GcsState* gcs, const CommitOnNode& order) {
  const rpc::ConnectionPtr link = gcs->LinkTo(order.node);
  if (!link) return;
  v1::CommitBundlesRequest request;
  request.set_placement_group_id(order.group.Binary());
  request.set_attempt(order.attempt);
  FillIndices(order.indices, &request);
  rpc::CallTyped<v1::BundlesReply>(*link, MethodId::kCommitBundles, request, {},
                                   [gcs, link, group = order.group, attempt = order.attempt, node = order.node](
                                       const Status& status, const v1::BundlesReply&, const PartList&) {
                                     if (!status.ok() && link->closed()) return;
                                     if (!status.ok())
                                       RAY_LOG(WARNING)
                                           << "committing bundles of " << group << " on node " << node << ": " << status.ToString();
                                     Effects out;
                                     gcs->groups.Committed(group, attempt, node, status.ok(), gcs->now(), gcs->wall_ms(), &out);
                                     RouteGroups(gcs, &out);
                                     gcs->runner.Run(std::move(out));
                                   });
}

void ReturnBundlesOnNode(GcsState* gcs, const ReturnOnNode& order) {
  const rpc::ConnectionPtr link = gcs->LinkTo(order.node);
  if (!link) return;
  v1::ReturnBundlesRequest request;
  request.set_placement_group_id(order.group.Binary());
  request.set_attempt(order.attempt);
  FillIndices(order.indices, &request);
  request.set_reason(order.reason);
  rpc::CallTyped<v1::BundlesReply>(*link, MethodId::kReturnBundles, request, {},
                                   [gcs, group = order.group](const Status& status, const v1::BundlesReply& reply, const PartList&) {
                                     if (!status.ok()) {
                                       RAY_LOG(WARNING) << "returning bundles of " << group << ": " << status.ToString();
                                       return;
                                     }
                                     Effects out;
                                     TakeResources(gcs, reply.resources(), &out);
                                     RouteGroups(gcs, &out);
                                     gcs->runner.Run(std::move(out));
                                   });
}

void OnActorDead(GcsState* gcs, const ActorId& actor) {
  Effects out;
  gcs->groups.ActorDied(actor, gcs->now(), &out);
  if (const v1::ActorInfo* info = gcs->actors.Find(actor)) DropDefinitions(gcs, JobId::FromBinaryOrNil(info->job_id()), &out);
  if (out.empty()) return;
  RouteGroups(gcs, &out);
  gcs->runner.Run(std::move(out));
}

void RegisterPlacementGroupService(GcsState* gcs, rpc::Dispatcher* dispatcher) {
  Serve<v1::CreatePlacementGroupRequest>(gcs, dispatcher, MethodId::kCreatePlacementGroup,
                                         [gcs](const v1::CreatePlacementGroupRequest& message, CallToken call, Effects* out) {
                                           gcs->groups.Create(message, call, gcs->now(), gcs->wall_ms(), out);
                                           // The request may come behind the end of who made it, as a node's calls outlive its links.
                                           if (const JobId job = JobId::FromBinaryOrNil(message.group().job_id()); gcs->jobs.IsOver(job))
                                             EndGroupsOfJob(gcs, job, out);
                                         });
  Serve<v1::RemovePlacementGroupRequest>(gcs, dispatcher, MethodId::kRemovePlacementGroup,
                                         [gcs](const v1::RemovePlacementGroupRequest& message, CallToken call, Effects* out) {
                                           gcs->groups.Remove(PlacementGroupId::FromBinaryOrNil(message.placement_group_id()), call,
                                                              gcs->now(), out);
                                         });
  Serve<v1::GetPlacementGroupRequest>(
      gcs, dispatcher, MethodId::kGetPlacementGroup,
      [gcs](const v1::GetPlacementGroupRequest& message, CallToken call, Effects* out) { gcs->groups.Get(message, call, out); });
  Serve<v1::PlacementGroupEmpty>(gcs, dispatcher, MethodId::kListPlacementGroups,
                                 [gcs](const v1::PlacementGroupEmpty&, CallToken call, Effects* out) { gcs->groups.List(call, out); });
}

}  // namespace ray::gcs
