#include "ray/gcs_server/services/gcs_state.h"

namespace ray::gcs {
namespace {

template <typename Message, typename Core>
void Serve(GcsState* gcs, rpc::Dispatcher* dispatcher, MethodId method, void (Core::*event)(const Message&, CallToken, Effects*)) {
  dispatcher->RegisterTyped<Message>(method, [gcs, event](const Message& message, rpc::Request&, rpc::Responder responder) {
    Effects out;
    (gcs->kv.*event)(message, gcs->runner.Hold(std::move(responder)), &out);
    gcs->runner.Run(std::move(out));
  });
}

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
  Serve(gcs, dispatcher, MethodId::kKvPut, &KvTableCore::Put);
  Serve(gcs, dispatcher, MethodId::kKvGet, &KvTableCore::Get);
  Serve(gcs, dispatcher, MethodId::kKvExists, &KvTableCore::Exists);
  Serve(gcs, dispatcher, MethodId::kKvDel, &KvTableCore::Del);
  Serve(gcs, dispatcher, MethodId::kKvKeys, &KvTableCore::Keys);
}

}  // namespace ray::gcs
