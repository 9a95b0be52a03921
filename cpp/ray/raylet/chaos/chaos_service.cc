#include "ray/raylet/chaos/chaos_service.h"

#include <chrono>

#include "ray/util/logging.h"
#include "ray/v1/chaos.pb.h"

namespace ray::raylet {
namespace {

constexpr std::string_view kTitle = "ray::", kIdle = "IDLE";

}  // namespace

std::string ChaosService::RunningIn(const WorkerId& worker) const {
  const int64_t pid = deps_.workers->PidOf(worker);
  if (pid <= 0) return {};
  const std::string title = deps_.title_of(pid);
  if (!title.starts_with(kTitle)) return {};
  std::string name = title.substr(kTitle.size());
  return name == kIdle ? std::string() : name;
}

void ChaosService::RegisterHandlers(rpc::Dispatcher* dispatcher) {
  dispatcher->RegisterTyped<v1::ChaosListTargetsRequest>(
      MethodId::kChaosListTargets, [this](const v1::ChaosListTargetsRequest& message, rpc::Request&, rpc::Responder responder) {
        if (!responder.valid()) return;
        const JobId job = JobId::FromBinaryOrNil(message.job_id());
        const Time now = deps_.loop->clock().Now();
        v1::ChaosListTargetsReply reply;
        for (const HeldLease& held : deps_.leases->Held()) {
          if (held.job != job) continue;
          v1::ChaosTarget* target = reply.add_targets();
          target->set_lease_id(held.lease.Binary());
          target->set_worker_id(held.worker.Binary());
          target->set_pid(deps_.workers->PidOf(held.worker));
          // Of an actor that runs nothing, the title is its class.
          if (std::string running = RunningIn(held.worker); running != held.class_name) target->set_running(std::move(running));
          if (!held.actor.IsNil()) target->set_actor_id(held.actor.Binary());
          target->set_class_name(held.class_name);
          target->set_actor_name(held.actor_name);
          target->set_ray_namespace(held.ray_namespace);
          target->set_held_ms(std::chrono::duration_cast<std::chrono::milliseconds>(now - held.since).count());
          target->set_actor_alive(held.actor_alive);
        }
        responder.Send(reply);
      });
  dispatcher->RegisterTyped<v1::ChaosKillWorkerRequest>(
      MethodId::kChaosKillWorker, [this](const v1::ChaosKillWorkerRequest& message, rpc::Request&, rpc::Responder responder) {
        WorkerId worker = deps_.leases->HolderOf(LeaseId::FromBinaryOrNil(message.lease_id()));
        if (!message.running().empty() && RunningIn(worker) != message.running()) worker = WorkerId::Nil();
        if (!worker.IsNil()) {
          RAY_LOG(WARNING) << "worker " << worker << " is killed on purpose: " << message.reason();
          deps_.workers->Kill(worker, message.reason(), /*intended=*/false);
        }
        if (!responder.valid()) return;
        v1::ChaosKillWorkerReply reply;
        reply.set_killed(!worker.IsNil());
        responder.Send(reply);
      });
  dispatcher->RegisterTyped<v1::ChaosKillNodeRequest>(
      MethodId::kChaosKillNode, [this](const v1::ChaosKillNodeRequest& message, rpc::Request&, rpc::Responder responder) {
        if (NodeId::FromBinaryOrNil(message.node_id()) != deps_.node_id) {
          if (responder.valid()) responder.Fail(Status::InvalidArgument("KillNode is for another node than this one"));
          return;
        }
        RAY_LOG(WARNING) << "this node is killed on purpose: " << message.reason();
        deps_.die();
      });
}

}  // namespace ray::raylet
