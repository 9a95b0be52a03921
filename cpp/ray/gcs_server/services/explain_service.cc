#include "ray/gcs_server/services/gcs_state.h"
#include "ray/v1/explain.pb.h"
#include "ray/wire/wait_fact.h"

namespace ray::gcs {

void RegisterExplainService(GcsState* gcs, rpc::Dispatcher* dispatcher) {
  dispatcher->RegisterTyped<v1::ExplainRequest>(
      MethodId::kExplainGcs, [gcs](const v1::ExplainRequest& message, rpc::Request&, rpc::Responder responder) {
        if (!responder.valid()) return;
        v1::ExplainReply reply;
        v1::WaitFact fact;
        bool known = false;
        if (message.kind() == v1::SUBJECT_KIND_ACTOR) {
          known = gcs->actors.Explain(ActorId::FromBinaryOrNil(message.id()), gcs->wall_ms(), &fact);
        } else if (message.kind() == v1::SUBJECT_KIND_PLACEMENT_GROUP) {
          known = gcs->groups.Explain(PlacementGroupId::FromBinaryOrNil(message.id()), gcs->wall_ms(), &fact);
        }
        if (known) *reply.add_facts() = std::move(fact);
        responder.Send(reply);
      });
}

}  // namespace ray::gcs
