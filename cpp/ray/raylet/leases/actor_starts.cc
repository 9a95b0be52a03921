// The actors of a node: each has a lease for as long as it lives, and one start, which may be asked for again.
#include <algorithm>
#include <string>
#include <utility>

#include "ray/common/errors.h"
#include "ray/raylet/leases/lease_service.h"
#include "ray/wire/convert.h"
#include "ray/wire/wait_fact.h"

namespace ray::raylet {

using scheduling::LeaseEffects;
using scheduling::LeaseRequest;

void LeaseService::StartActor(const v1::StartActorRequest& message, rpc::Request& request, rpc::Responder responder) {
  if (!responder.valid()) return;
  const auto& spec = message.spec();
  const ActorId id = ActorId::FromBinaryOrNil(spec.creation().actor_id());
  const JobId job = JobId::FromBinaryOrNil(spec.template_().job_id());
  if (id.IsNil() || job.IsNil()) {
    responder.Fail(Status::InvalidArgument("StartActor needs a spec with template.job_id and creation.actor_id"));
    return;
  }
  if (const auto known = actors_.find(id); known != actors_.end()) {
    const auto actor = known->second;
    if (actor->restart == message.restart()) {  // asked again
      if (actor->reply != nullptr) {
        responder.Send(*actor->reply);
      } else {
        actor->responders.push_back(std::move(responder));
      }
      return;
    }
    if (actor->restart > message.restart()) {
      responder.Fail(Status::Aborted("a later start of this actor is known"));
      return;
    }
    v1::KillActorOnNodeRequest kill;  // what is left of the earlier incarnation
    kill.set_actor_id(id.Binary());
    kill.set_force(true);
    kill.set_reason("the actor is started anew");
    KillActor(kill);
    actors_.erase(id);
  }
  const auto over = std::find_if(over_starts_.begin(), over_starts_.end(),
                                 [start = std::pair(id, message.restart())](const auto& entry) { return entry.first == start; });
  if (over != over_starts_.end()) return responder.Send(*over->second);
  auto actor = std::make_shared<Actor>();
  actor->id = id;
  actor->restart = message.restart();
  actor->request = message;
  actor->parts = std::move(request.parts);
  actor->detached = spec.creation().detached();
  actor->owner = FromProto(spec.creation().owner()).worker_id;
  actor->lease = LeaseId::FromRandom();
  actor->responders.push_back(std::move(responder));
  actors_[id] = actor;

  LeaseRequest lease;
  lease.lease = actor->lease;
  lease.job = job;
  lease.where.need = FromProto(spec.creation().placement_resources());
  if (const ResourceSet kept = FromProto(spec.template_().resources()); !lease.where.need.Covers(kept)) lease.where.need = kept;
  lease.mode = scheduling::LeaseMode::kHere;
  lease.patience = std::chrono::milliseconds(message.patience_ms());
  Touch();
  lease.runtime_env = spec.template_().runtime_env();
  lease.task_name = spec.creation().class_name().empty() ? spec.template_().function_name() : spec.creation().class_name();
  // The GCS chose this node: a strategy has nothing left to decide here, save which bundle of a placement group.
  if (spec.template_().strategy().kind() == v1::STRATEGY_KIND_PLACEMENT_GROUP) {
    lease.bundle = {PlacementGroupId::FromBinaryOrNil(spec.template_().strategy().placement_group_id()),
                    spec.template_().strategy().bundle_index()};
  }
  lease.priority = spec.template_().strategy().priority();
  leases_[lease.lease] = Lease{lease, {}, {}, {}, actor, spec.creation().max_restarts() != 0, {}};
  LeaseEffects effects;
  queue_.Request(std::move(lease), Now(), &effects);
  Run(std::move(effects));
}

void LeaseService::PushCreation(const std::shared_ptr<Actor>& actor) {
  const auto connection = deps_.workers->ConnectionOf(actor->worker);
  if (connection == nullptr) return;  // it is dying: OnProcessEnded answers
  v1::PushTaskRequest push;
  *push.mutable_spec() = actor->request.spec();
  push.mutable_spec()->set_template_id(0);
  push.mutable_spec()->set_attempt(actor->restart);
  push.set_push(1);  // a worker gets no other from its raylet
  if (const auto* held = queue_.AllocationOf(actor->lease)) {
    for (const auto& instance : held->instances) FillInstances(instance, push.add_instances());
  }
  rpc::CallTyped<v1::PushTaskReply>(*connection, MethodId::kPushTask, push, actor->parts,
                                    [this, actor, alive = alive_](Status status, v1::PushTaskReply& reply, PartList parts) {
                                      if (*alive) OnCreationReply(actor, status, reply, std::move(parts));
                                    });
  actor->parts.clear();
}

void LeaseService::OnCreationReply(const std::shared_ptr<Actor>& actor, const Status& status, v1::PushTaskReply& reply, PartList parts) {
  if (actor->reply != nullptr) return;
  if (!status.ok()) {
    const auto connection = deps_.workers->ConnectionOf(actor->worker);
    if (connection == nullptr || connection->closed()) return;  // its end is on the way, with the cause
    const WorkerId worker = actor->worker;
    FailActor(actor, static_cast<int32_t>(ErrorType::kActorCreationFailed), "The creation task failed: " + status.message(),
              deps_.workers->PidOf(worker));
    deps_.workers->AskExit(worker, "its actor could not be created", /*must=*/true);
    return;
  }
  v1::StartActorReply answer;
  ToProto(Address{deps_.node_id, actor->worker}, answer.mutable_worker());
  answer.set_pid(deps_.workers->PidOf(actor->worker));
  answer.set_node_ip(deps_.node_ip);
  if (!reply.is_application_error() && !reply.has_system_error() && !reply.cancelled()) {
    answer.set_repr_name(reply.repr_name());
    AnswerActor(actor, std::move(answer));
    return;
  }
  if (reply.cancelled()) {
    answer.set_cancelled(true);
  } else {
    auto* error = answer.mutable_creation_error();
    if (reply.has_system_error()) *error = reply.system_error();
    if (reply.is_application_error()) {
      error->set_error_type(static_cast<int32_t>(ErrorType::kActorCreationFailed));
      error->set_actor_init_failed(true);
      if (!parts.empty()) error->set_cause(std::string(parts[0]->view()));
    }
    const auto& creation = actor->request.spec().creation();
    if (error->message().empty()) error->set_message("The constructor of " + creation.class_name() + " raised an exception.");
    error->set_actor_id(actor->id.Binary());
    error->set_class_name(creation.class_name());
    error->set_actor_name(creation.name());
    error->set_ray_namespace(creation.ray_namespace());
    error->set_pid(answer.pid());
    error->set_node_ip(deps_.node_ip);
    error->set_never_ran(true);
  }
  AnswerActor(actor, std::move(answer));
  const WorkerId worker = actor->worker;
  ForgetActor(actor);
  deps_.workers->AskExit(worker, "its actor could not be created", /*must=*/true);
}

void LeaseService::AnswerActor(const std::shared_ptr<Actor>& actor, v1::StartActorReply reply) {
  if (actor->reply != nullptr) return;
  actor->reply = std::make_shared<v1::StartActorReply>(std::move(reply));
  for (auto& responder : actor->responders) responder.Send(*actor->reply);
  actor->responders.clear();
  if (actor->reply->has_creation_error() || actor->reply->cancelled()) RememberStart(*actor);
}

void LeaseService::RememberStart(const Actor& actor) {
  constexpr size_t kKept = 256;
  over_starts_.emplace_back(std::pair(actor.id, actor.restart), actor.reply);
  if (over_starts_.size() > kKept) over_starts_.pop_front();
}

void LeaseService::FailActor(const std::shared_ptr<Actor>& actor, int32_t error_type, const std::string& message, int64_t pid) {
  const auto& creation = actor->request.spec().creation();
  v1::StartActorReply reply;
  auto* error = reply.mutable_creation_error();
  error->set_error_type(error_type);
  error->set_message(message);
  error->set_actor_id(actor->id.Binary());
  error->set_class_name(creation.class_name());
  error->set_actor_name(creation.name());
  error->set_ray_namespace(creation.ray_namespace());
  if (pid > 0) {
    error->set_pid(pid);
    error->set_node_ip(deps_.node_ip);
  }
  error->set_never_ran(true);
  AnswerActor(actor, std::move(reply));
  ForgetActor(actor);
}

void LeaseService::TurnAway(const std::shared_ptr<Actor>& actor, bool cancelled) {
  if (actor == nullptr) return;
  v1::StartActorReply answer;
  if (cancelled) {
    answer.set_cancelled(true);
  } else {
    answer.set_rejected(true);
  }
  AnswerActor(actor, std::move(answer));
  ForgetActor(actor);
}

void LeaseService::ForgetActor(const std::shared_ptr<Actor>& actor) {
  const auto it = actors_.find(actor->id);
  if (it != actors_.end() && it->second == actor) actors_.erase(it);
}

void LeaseService::KillActor(const v1::KillActorOnNodeRequest& message) {
  const auto it = actors_.find(ActorId::FromBinaryOrNil(message.actor_id()));
  if (it == actors_.end()) return;
  const auto actor = it->second;
  const WorkerId wanted = WorkerId::FromBinaryOrNil(message.worker_id());
  if (!wanted.IsNil() && wanted != actor->worker) return;  // an incarnation that is gone
  const std::string reason = message.reason().empty() ? "the actor was killed" : message.reason();
  if (actor->worker.IsNil()) {  // still waiting for resources or a worker
    Drop(actor->lease);
    v1::StartActorReply reply;
    reply.set_cancelled(true);
    AnswerActor(actor, std::move(reply));
    ForgetActor(actor);
    return;
  }
  if (message.move() && actor->reply == nullptr) return;  // its start goes on; a move is for what lives
  if (actor->reply == nullptr) actor->cancelled = true;
  if (message.force() || actor->reply == nullptr) {
    deps_.workers->Kill(actor->worker, reason, /*intended=*/true);
  } else {
    deps_.workers->AskExit(actor->worker, reason, /*must=*/false, message.move());
  }
}

bool LeaseService::IsOfDetachedActor(const WorkerId& worker) const {
  const auto held = by_worker_.find(worker);
  if (held == by_worker_.end()) return false;
  const auto lease = leases_.find(held->second);
  return lease != leases_.end() && lease->second.actor != nullptr && lease->second.actor->detached;
}

bool LeaseService::Explain(const ActorId& id, v1::WaitFact* out) const {
  const auto it = actors_.find(id);
  if (it == actors_.end()) return false;
  const Actor& actor = *it->second;
  SetSubject(v1::SUBJECT_KIND_ACTOR, id.View(), v1::WAIT_STATE_PENDING_CREATION, out);
  out->set_node_id(deps_.node_id.Binary());
  out->set_attempt(actor.restart);
  out->set_name(actor.request.spec().creation().class_name());
  if (actor.worker.IsNil()) {
    out->set_detail("it waits for a worker here");
    AddPointer(v1::SUBJECT_KIND_LEASE, actor.lease.View(), Address{deps_.node_id, WorkerId::Nil()}, out);
    return true;
  }
  out->set_worker_id(actor.worker.Binary());
  out->set_pid(deps_.workers->PidOf(actor.worker));
  if (actor.reply != nullptr) {
    out->set_state(v1::WAIT_STATE_ALIVE);
    return true;
  }
  out->set_detail("its worker is there; its constructor runs, or waits for what it needs");
  AddPointer(v1::SUBJECT_KIND_TASK, TaskId::ForActorCreation(id).View(), Address{deps_.node_id, actor.worker}, out);
  return true;
}

}  // namespace ray::raylet
