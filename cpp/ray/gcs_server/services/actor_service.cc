#include "ray/gcs_server/services/gcs_state.h"
#include "ray/util/logging.h"
#include "ray/v1/raylet_lease.pb.h"
#include "ray/wire/convert.h"

namespace ray::gcs {
namespace {

constexpr Duration kKillPatience =
    std::chrono::seconds(2);  // of who has an actor killed, with a node that does not answer: it is dead all the same

// Registers a handler that does one event: `event(message, request, token, effects)`.
template <typename Message, typename F>
void Serve(GcsState* gcs, rpc::Dispatcher* dispatcher, MethodId method, F event) {
  dispatcher->RegisterTyped<Message>(method, [gcs, event](const Message& message, rpc::Request& request, rpc::Responder responder) {
    Effects out;
    event(message, request, gcs->runner.Hold(std::move(responder)), &out);
    gcs->runner.Run(std::move(out));
  });
}

ActorId IdOf(const std::string& bytes) { return ActorId::FromBinaryOrNil(bytes); }

}  // namespace

void StartActorOnNode(GcsState* gcs, const StartOnNode& order) {
  rpc::ConnectionPtr link = gcs->LinkTo(order.node);
  if (!link) return;  // the node's death has moved the actor on
  v1::StartActorRequest request;
  if (!request.mutable_spec()->ParseFromString(order.spec->control)) RAY_LOG(ERROR) << "a creation spec that cannot be parsed";
  request.set_restart(order.restart);
  request.set_patience_ms(std::chrono::duration_cast<std::chrono::milliseconds>(order.patience).count());
  rpc::CallTyped<v1::StartActorReply>(
      *link, MethodId::kStartActor, request, order.spec->parts,
      [gcs, link, actor = order.actor, start = order.start](Status status, const v1::StartActorReply& reply, const PartList&) {
        // With the link the node is gone; from a raylet that lives, UNAVAILABLE is a failure as any other.
        if (status.code() == StatusCode::kUnavailable && !link->closed()) status = Status::Internal(status.message());
        Effects out;
        gcs->actors.Started(actor, start, status, reply, gcs->wall_ms(), &out);
        gcs->runner.Run(std::move(out));
      });
}

void KillActorOnNode(GcsState* gcs, const KillOnNode& order) {
  const auto answer = [gcs, call = order.call] {
    if (call == 0) return;
    Effects out;
    Reply(call, v1::ActorEmpty(), &out);
    gcs->runner.Run(std::move(out));
  };
  rpc::ConnectionPtr link = gcs->LinkTo(order.node);
  if (!link) return answer();  // it hears of it when it is back
  v1::KillActorOnNodeRequest request;
  request.set_actor_id(order.actor.Binary());
  if (!order.worker.IsNil()) request.set_worker_id(order.worker.Binary());
  request.set_force(order.force);
  request.set_reason(order.reason);
  request.set_move(order.move);
  rpc::CallOptions options;
  options.timeout = kKillPatience;
  link->Call(
      MethodId::kKillActorOnNode, request, {},
      [actor = order.actor, answer](const Status& status, const rpc::Reply&) {
        if (!status.ok()) RAY_LOG(WARNING) << "ending actor " << actor << ": " << status.ToString();
        answer();
      },
      options);
}

void TellDriverOfNode(GcsState* gcs, const TellDriver& message) {
  RAY_LOG(WARNING) << message.message;
  v1::DriverMessageNotice notice;
  notice.set_job_id(message.job.Binary());
  notice.set_kind(message.kind);
  notice.set_message(message.message);
  for (const auto& [node, link] : gcs->links) {
    if (message.node.IsNil() || message.node == node) link->Notify(MethodId::kDriverMessage, notice);
  }
}

void RegisterActorService(GcsState* gcs, rpc::Dispatcher* dispatcher) {
  Serve<v1::RegisterActorRequest>(
      gcs, dispatcher, MethodId::kRegisterActor,
      [gcs](const v1::RegisterActorRequest& message, const rpc::Request&, CallToken call, Effects* out) {
        gcs->actors.Register(message, call, gcs->wall_ms(), out);
        const v1::ActorCreation& creation = message.spec().creation();
        WorkerId owner = WorkerId::FromBinaryOrNil(creation.owner().worker_id());
        if (gcs->workers.IsDead(owner)) {
          gcs->actors.OwnerWasDead(IdOf(creation.actor_id()), gcs->workers.DetailOf(owner), gcs->wall_ms(), out);
        } else if (const NodeId node = NodeId::FromBinaryOrNil(creation.owner().node_id()); gcs->nodes.IsDead(node)) {
          gcs->actors.OwnerWasDead(IdOf(creation.actor_id()), "its node died: " + gcs->nodes.Find(node)->death_reason(), gcs->wall_ms(),
                                   out);
        }
        // As for placement groups: the request may come behind the end of who made it.
        if (const JobId job = JobId::FromBinaryOrNil(message.spec().template_().job_id()); gcs->jobs.IsOver(job))
          gcs->actors.JobFinished(job, gcs->wall_ms(), out);
      });
  Serve<v1::CreateActorRequest>(
      gcs, dispatcher, MethodId::kCreateActor,
      [gcs](const v1::CreateActorRequest& message, const rpc::Request& request, CallToken call, Effects* out) {
        auto spec = std::make_shared<const CreationSpec>(CreationSpec{message.spec().SerializeAsString(), request.parts});
        gcs->actors.Create(IdOf(message.spec().creation().actor_id()), std::move(spec), call, gcs->wall_ms(), out);
      });
  Serve<v1::FailActorRequest>(gcs, dispatcher, MethodId::kFailActor,
                              [gcs](const v1::FailActorRequest& message, const rpc::Request&, CallToken call, Effects* out) {
                                gcs->actors.FailCreation(IdOf(message.actor_id()), message.cause(), call, gcs->wall_ms(), out);
                              });
  Serve<v1::GetNamedActorRequest>(gcs, dispatcher, MethodId::kGetNamedActor,
                                  [gcs](const v1::GetNamedActorRequest& message, const rpc::Request&, CallToken call, Effects* out) {
                                    gcs->actors.GetNamed(message.ray_namespace(), message.name(), call, out);
                                  });
  Serve<v1::GetActorRequest>(gcs, dispatcher, MethodId::kGetActor,
                             [gcs](const v1::GetActorRequest& message, const rpc::Request&, CallToken call, Effects* out) {
                               gcs->actors.Get(IdOf(message.actor_id()), call, out);
                             });
  Serve<v1::ListActorsRequest>(gcs, dispatcher, MethodId::kListActors,
                               [gcs](const v1::ListActorsRequest& message, const rpc::Request&, CallToken call, Effects* out) {
                                 gcs->actors.List(message, call, out);
                               });
  dispatcher->RegisterTyped<v1::KillActorRequest>(
      MethodId::kKillActor, [gcs](const v1::KillActorRequest& message, rpc::Request&, rpc::Responder responder) {
        RunOnce<v1::ActorEmpty>(gcs, message.request_id(), std::move(responder), [&](CallToken call, Effects* out) {
          gcs->actors.Kill(IdOf(message.actor_id()), message.no_restart(), call, gcs->wall_ms(), out);
        });
      });
  Serve<v1::ActorOutOfScopeRequest>(gcs, dispatcher, MethodId::kActorOutOfScope,
                                    [gcs](const v1::ActorOutOfScopeRequest& message, const rpc::Request&, CallToken call, Effects* out) {
                                      gcs->actors.OutOfScope(IdOf(message.actor_id()), call, gcs->wall_ms(), out);
                                    });
  Serve<v1::ActorExitingRequest>(gcs, dispatcher, MethodId::kActorExiting,
                                 [gcs](const v1::ActorExitingRequest& message, const rpc::Request&, CallToken call, Effects* out) {
                                   gcs->actors.Exiting(IdOf(message.actor_id()), WorkerId::FromBinaryOrNil(message.worker_id()), call, out);
                                 });
}

}  // namespace ray::gcs
