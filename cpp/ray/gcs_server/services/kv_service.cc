#include "ray/gcs_server/services/gcs_state.h"

namespace ray::gcs {
namespace {

template <typename Message, typename Core>
void Serve(GcsState* gcs, rpc::Dispatcher* dispatcher, MethodId method, void (Core::*event)(const Message&, CallToken, Effects*) const) {
  dispatcher->RegisterTyped<Message>(method, [gcs, event](const Message& message, rpc::Request&, rpc::Responder responder) {
    Effects out;
    (gcs->kv.*event)(message, gcs->runner.Hold(std::move(responder)), &out);
    gcs->runner.Run(std::move(out));
  });
}

}  // namespace

void RegisterKvService(GcsState* gcs, rpc::Dispatcher* dispatcher) {
  dispatcher->RegisterTyped<v1::KvPutRequest>(
      MethodId::kKvPut, [gcs](const v1::KvPutRequest& message, rpc::Request&, rpc::Responder responder) {
        RunOnce<v1::KvPutReply>(gcs, message.request_id(), std::move(responder), [&](CallToken call, Effects* out) {
          gcs->kv.Put(message, call, out);
          // It may come behind the end of its job.
          if (!message.job_id().empty()) DropDefinitions(gcs, JobId::FromBinaryOrNil(message.job_id()), out);
        });
      });
  dispatcher->RegisterTyped<v1::KvDelRequest>(
      MethodId::kKvDel, [gcs](const v1::KvDelRequest& message, rpc::Request&, rpc::Responder responder) {
        RunOnce<v1::KvDelReply>(gcs, message.request_id(), std::move(responder),
                                [&](CallToken call, Effects* out) { gcs->kv.Del(message, call, out); });
      });
  Serve(gcs, dispatcher, MethodId::kKvGet, &KvTableCore::Get);
  Serve(gcs, dispatcher, MethodId::kKvExists, &KvTableCore::Exists);
  Serve(gcs, dispatcher, MethodId::kKvKeys, &KvTableCore::Keys);
}

}  // namespace ray::gcs
