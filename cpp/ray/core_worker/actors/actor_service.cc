#include "ray/core_worker/actors/actor_service.h"

#include "ray/core_worker/services/sync_call.h"
#include "ray/core_worker/submit/dependency_resolver.h"
#include "ray/util/logging.h"
#include "ray/v1/pubsub.pb.h"
#include "ray/wire/convert.h"
#include "ray/wire/error_detail.h"

namespace ray::core {

void ActorService::Subscribe(const ActorId& actor) {
  auto raylet = deps_.peers->raylet();
  if (raylet == nullptr) return;
  v1::SubscribeRequest request;
  request.set_channel(v1::CHANNEL_ACTOR);
  request.set_key(actor.Binary());
  raylet->Call(MethodId::kSubscribe, request, {}, [actor](Status status, rpc::Reply) {
    if (!status.ok()) RAY_LOG(INFO) << "subscribing to actor " << actor << ": " << status.ToString();
  });
}

Status ActorService::Create(const PendingTaskPtr& task) {
  const ActorCreation& creation = *task->spec.creation;
  const ActorId actor = creation.actor_id;
  auto raylet = deps_.peers->raylet();
  if (raylet == nullptr) return Status::Unavailable("not connected to the raylet");
  v1::RegisterActorRequest request;
  {
    // Without the arguments: they come with CreateActor.
    TaskSpec bare = task->spec;
    bare.args = nullptr;
    bare.args_object.reset();
    bare.refs.clear();
    bare.nested.clear();
    PartList parts;
    EncodeWhole(bare, request.mutable_spec(), &parts);
  }
  if (!creation.name.empty()) {
    v1::RegisterActorReply reply;
    const Status registered = SyncCall(deps_.loop, raylet, MethodId::kRegisterActor, request, {}, &reply, deps_.gcs_timeout);
    if (registered.code() == StatusCode::kDeadlineExceeded) {
      // Whoever asked hears of a failure, so the name must not be taken when the GCS is back. This follows the registration on the same way.
      v1::ErrorDetail cause;
      cause.set_message("The actor could not be created: " + registered.message());
      TellFailed(actor, std::move(cause));
    }
    RAY_RETURN_NOT_OK(registered);
    if (reply.has_existing())
      return Status::AlreadyExists("the name " + creation.name + " is taken by actor " + BytesToHex(reply.existing().actor_id()));
  } else {
    raylet->Call(MethodId::kRegisterActor, request, {}, [this, task](Status status, rpc::Reply) {
      if (!status.ok()) OnCreationRefused(task, status);
    });
  }
  ObjectId handle = ObjectId::ForActorHandle(actor);
  deps_.objects->AddOwned(std::span(&handle, 1));
  if (!task->held.empty()) deps_.objects->AddSubmitted(task->held);
  deps_.submitter->AddActor(actor, task->spec.refs.empty() ? ActorPhase::kPending : ActorPhase::kDependencies, creation.max_pending_calls,
                            creation.class_name);
  {
    MutexLock lock(&mu_);
    created_.emplace(actor, Creation{task});
    if (creation.detached) detached_.insert(actor);
  }
  Subscribe(actor);
  ResolveArguments(deps_.objects, task, [this, task, actor](const ErrorValue* error) {
    if (error == nullptr) {
      SendCreation(task);
      return;
    }
    v1::ErrorDetail cause;
    cause.set_message("The actor died because an argument of its constructor failed.");
    if (error->metadata == "3" && error->blob != nullptr) {
      cause.set_actor_init_failed(true);
      cause.set_cause(std::string(error->blob->view()));
    }
    cause = TellFailed(actor, std::move(cause));
    deps_.submitter->OnDead(actor, cause);
    Drop(actor, cause);
  });
  return Status::Ok();
}

v1::ErrorDetail ActorService::TellFailed(const ActorId& actor, v1::ErrorDetail cause) {
  cause.set_error_type(static_cast<int32_t>(ErrorType::kActorDied));
  cause.set_actor_id(actor.Binary());
  cause.set_never_ran(true);
  v1::FailActorRequest fail;
  fail.set_actor_id(actor.Binary());
  *fail.mutable_cause() = cause;
  if (auto raylet = deps_.peers->raylet()) raylet->Call(MethodId::kFailActor, fail, {}, [](Status, rpc::Reply) {});
  return cause;
}

void ActorService::SendCreation(const PendingTaskPtr& task) {
  v1::CreateActorRequest request;
  PartList parts;
  EncodeWhole(task->spec, request.mutable_spec(), &parts);
  auto raylet = deps_.peers->raylet();
  if (raylet == nullptr) return;
  raylet->Call(MethodId::kCreateActor, request, parts, [this, task](Status status, rpc::Reply) {
    if (!status.ok()) OnCreationRefused(task, status);
  });
}

void ActorService::OnCreationRefused(const PendingTaskPtr& task, const Status& status) {
  const ActorCreation& creation = *task->spec.creation;
  v1::ErrorDetail cause;
  cause.set_error_type(static_cast<int32_t>(ErrorType::kActorDied));
  cause.set_message("The actor could not be created: " + status.message());
  cause.set_actor_id(creation.actor_id.Binary());
  cause.set_class_name(creation.class_name);
  cause.set_never_ran(true);
  deps_.submitter->OnDead(creation.actor_id, cause);
  Drop(creation.actor_id, cause);
}

void ActorService::OnPublish(const v1::ActorInfo& info) {
  NoteCreation(info);  // ahead of what calls to it bring
  deps_.submitter->OnActorInfo(info);
  if (info.state() == v1::ACTOR_STATE_DEAD) {  // the last news of it
    v1::SubscribeRequest request;
    request.set_channel(v1::CHANNEL_ACTOR);
    request.set_key(info.actor_id());
    if (auto raylet = deps_.peers->raylet()) raylet->Notify(MethodId::kUnsubscribe, request);
  }
  // Arguments are wanted again by a restart, else no more.
  if (info.state() == v1::ACTOR_STATE_DEAD || (info.state() == v1::ACTOR_STATE_ALIVE && info.creation().max_restarts() == 0)) {
    DropArguments(ActorId::FromBinaryOrNil(info.actor_id()));
  }
}

void ActorService::NoteCreation(const v1::ActorInfo& info) {
  const bool alive = info.state() == v1::ACTOR_STATE_ALIVE, dead = info.state() == v1::ACTOR_STATE_DEAD;
  Creation creation;
  {
    MutexLock lock(&mu_);
    const auto it = created_.find(ActorId::FromBinaryOrNil(info.actor_id()));
    if (it == created_.end() || info.num_restarts() < it->second.attempt) return;
    Creation& known = it->second;
    if (info.num_restarts() > known.attempt) known = {std::move(known.task), info.num_restarts()};
    if (known.ended || !(alive || dead)) return;
    known.ended = true;
    creation = known;
  }
  TaskWorker worker;
  if (alive) worker = {FromProto(info.address()), info.pid()};
  deps_.tasks->NoteCreation(*creation.task, creation.attempt, worker, alive ? nullptr : &info.death_cause());
}

void ActorService::Drop(const ActorId& actor, const v1::ErrorDetail& cause) {
  v1::ActorInfo info;
  info.set_actor_id(actor.Binary());
  info.set_state(v1::ACTOR_STATE_DEAD);
  *info.mutable_death_cause() = cause;
  NoteCreation(info);
  DropArguments(actor);
}

std::vector<ActorService::Creation> ActorService::PendingCreations() const {
  std::vector<Creation> pending;
  MutexLock lock(&mu_);
  for (const auto& [actor, creation] : created_) {
    if (!creation.ended && !creation.task->spec.tmpl->omit_task_events) pending.push_back(creation);
  }
  return pending;
}

void ActorService::DropArguments(const ActorId& actor) {
  PendingTaskPtr task;
  {
    MutexLock lock(&mu_);
    auto it = created_.find(actor);
    if (it == created_.end()) return;
    task = std::move(it->second.task);
    created_.erase(it);
  }
  if (!task->held.empty()) deps_.objects->RemoveSubmitted(task->held);
}

void ActorService::RegisterHandle(const ActorId& actor, int64_t max_pending_calls, const std::string& class_name) {
  if (deps_.submitter->AddActor(actor, ActorPhase::kPending, max_pending_calls, class_name)) Subscribe(actor);
}

Status ActorService::Kill(const ActorId& actor, bool no_restart) {
  v1::KillActorRequest request;
  request.set_actor_id(actor.Binary());
  request.set_no_restart(no_restart);
  if (!no_restart) request.set_request_id(NewRequestId());
  v1::ActorEmpty reply;
  const auto incarnation = deps_.submitter->IncarnationOf(actor);
  RAY_RETURN_NOT_OK(SyncCall(deps_.loop, deps_.peers->raylet(), MethodId::kKillActor, request, {}, &reply, deps_.gcs_timeout));
  if (incarnation) deps_.submitter->OnEnding(actor, *incarnation);  // before the caller calls the actor again
  return Status::Ok();
}

Status ActorService::GetNamed(const std::string& name, const std::string& ray_namespace, v1::ActorInfo* out) {
  v1::GetNamedActorRequest request;
  request.set_name(name);
  request.set_ray_namespace(ray_namespace);
  v1::GetActorReply reply;
  RAY_RETURN_NOT_OK(SyncCall(deps_.loop, deps_.peers->raylet(), MethodId::kGetNamedActor, request, {}, &reply, deps_.gcs_timeout));
  out->Swap(reply.mutable_actor());
  return Status::Ok();
}

Status ActorService::List(const v1::ListActorsRequest& request, v1::ListActorsReply* out) {
  return SyncCall(deps_.loop, deps_.peers->raylet(), MethodId::kListActors, request, {}, out, deps_.gcs_timeout);
}

void ActorService::OnHandlesGone(const std::vector<ActorId>& created, const std::vector<ActorId>& borrowed) {
  for (const ActorId& actor : borrowed) deps_.submitter->OnHandlesGone(actor);
  auto raylet = deps_.peers->raylet();
  for (const ActorId& actor : created) {
    deps_.submitter->OnHandlesGone(actor);
    {
      MutexLock lock(&mu_);
      if (detached_.erase(actor) > 0) continue;  // outlives its handles
    }
    v1::ActorOutOfScopeRequest request;
    request.set_actor_id(actor.Binary());
    if (raylet != nullptr) raylet->Notify(MethodId::kActorOutOfScope, request);
  }
}

PendingTaskPtr ActorService::CreationOf(const ActorId& actor) const {
  MutexLock lock(&mu_);
  const auto it = created_.find(actor);
  return it == created_.end() ? nullptr : it->second.task;
}

Status ActorService::AnnounceExiting(const ActorId& actor, const WorkerId& worker) {
  v1::ActorExitingRequest request;
  request.set_actor_id(actor.Binary());
  request.set_worker_id(worker.Binary());
  v1::ActorEmpty reply;
  return SyncCall(deps_.loop, deps_.peers->raylet(), MethodId::kActorExiting, request, {}, &reply, std::chrono::seconds(5));
}

}  // namespace ray::core
