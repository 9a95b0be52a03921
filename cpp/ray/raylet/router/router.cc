#include "ray/raylet/router/router.h"

#include <string_view>

#include "ray/util/logging.h"

namespace ray::raylet {

void Router::RegisterHandlers(rpc::Dispatcher* dispatcher) {
  dispatcher->RegisterTyped<v1::SubscribeRequest>(
      MethodId::kSubscribe, [this](const v1::SubscribeRequest& message, rpc::Request& request, rpc::Responder responder) {
        Subscribe(message, request, std::move(responder));
      });
  dispatcher->RegisterTyped<v1::SubscribeRequest>(
      MethodId::kUnsubscribe, [this](const v1::SubscribeRequest& message, rpc::Request& request, rpc::Responder responder) {
        Unsubscribe(message, request, std::move(responder));
      });
  dispatcher->RegisterTyped<v1::PublishNotice>(MethodId::kPublish,
                                               [this](const v1::PublishNotice& message, rpc::Request& request, rpc::Responder responder) {
                                                 if (request.connection == gcs_) Publish(message, request);
                                                 if (responder.valid()) responder.Send(v1::PubSubEmpty());
                                               });
  dispatcher->RegisterTyped<v1::KvGetRequest>(MethodId::kKvGet,
                                              [this](const v1::KvGetRequest& message, rpc::Request& request, rpc::Responder responder) {
                                                KvGet(message, request, std::move(responder));
                                              });
  dispatcher->RegisterFallback(
      [this](rpc::Request request, rpc::Responder responder) { Forward(std::move(request), std::move(responder)); });
}

void Router::Forward(rpc::Request request, rpc::Responder responder) {
  if (!IsGcsMethod(request.method) || request.connection == gcs_) {
    if (responder.valid()) responder.Fail(Status::Unimplemented("the raylet does not serve " + std::string(MethodName(request.method))));
    return;
  }
  if (gcs_ == nullptr || gcs_->closed()) {
    if (responder.valid()) responder.Fail(Status::Unavailable("this node has no connection to the GCS"));
    return;
  }
  if (!responder.valid()) {
    gcs_->NotifyRaw(request.method, request.control, request.parts);
    return;
  }
  JobId finishing;
  v1::JobInfo adding;
  if (request.method == MethodId::kFinishJob) {
    v1::FinishJobRequest message;
    if (message.ParseFromArray(request.control.data(), static_cast<int>(request.control.size())))
      finishing = JobId::FromBinaryOrNil(message.job_id());
  }
  std::string_view control = request.control;
  std::string completed;
  if (request.method == MethodId::kAddJob) {  // its driver does not know yet where it is
    v1::AddJobRequest message;
    if (message.ParseFromArray(control.data(), static_cast<int>(control.size()))) {
      message.mutable_job()->set_driver_node_id(node_.Binary());
      control = completed = message.SerializeAsString();
      adding.Swap(message.mutable_job());
    }
  }
  auto answer = std::make_shared<rpc::Responder>(std::move(responder));  // std::function wants a copyable callback
  gcs_->CallRaw(request.method, control, request.parts,
                [this, answer, finishing, adding = std::move(adding), method = request.method, alive = alive_](Status status,
                                                                                                               rpc::Reply reply) mutable {
                  if (!status.ok()) {
                    answer->Fail(status);
                    return;
                  }
                  if (*alive && method == MethodId::kAddJob && answer->connection() != nullptr) {
                    v1::AddJobReply added;
                    if (added.ParseFromArray(reply.control.data(), static_cast<int>(reply.control.size()))) {
                      adding.set_job_id(added.job_id());
                      hooks_.on_job_added(answer->connection()->id(), adding);
                    }
                  }
                  if (*alive && !finishing.IsNil()) {
                    hooks_.on_job_finishing(finishing, [answer, control = std::string(reply.control)] { answer->SendRaw(control, {}); });
                    return;
                  }
                  answer->SendRaw(reply.control, reply.parts);
                });
}

void Router::KvGet(const v1::KvGetRequest& message, rpc::Request& request, rpc::Responder responder) {
  if (message.ns() != FunctionCache::kNamespace || !responder.valid()) return Forward(std::move(request), std::move(responder));
  if (const std::string* known = functions_.Find(message.key())) {
    responder.SendRaw(*known, {});
    return;
  }
  if (gcs_ == nullptr || gcs_->closed()) {
    responder.Fail(Status::Unavailable("this node has no connection to the GCS"));
    return;
  }
  auto answer = std::make_shared<rpc::Responder>(std::move(responder));
  gcs_->CallRaw(MethodId::kKvGet, request.control, {},
                [this, answer, key = message.key(), alive = alive_](Status status, rpc::Reply reply) {
                  if (!status.ok()) {
                    answer->Fail(status);
                    return;
                  }
                  v1::KvGetReply found;
                  if (*alive && found.ParseFromArray(reply.control.data(), static_cast<int>(reply.control.size())) && found.found()) {
                    functions_.Put(key, std::string(reply.control));
                  }
                  answer->SendRaw(reply.control, reply.parts);
                });
}

void Router::Subscribe(const v1::SubscribeRequest& message, rpc::Request& request, rpc::Responder responder) {
  const uint64_t id = request.connection->id();
  auto [it, added] = subscribers_.try_emplace(id);
  if (added) {
    it->second.connection = request.connection;
    request.connection->OnClose([this, id, alive = alive_](const Status&) {
      if (*alive) OnSubscriberClosed(id);
    });
  }
  const Key key(message.channel(), message.key());
  it->second.keys.insert(key);
  by_key_[key].insert(id);
  if (gcs_ == nullptr || gcs_->closed()) {
    if (responder.valid()) responder.Fail(Status::Unavailable("this node has no connection to the GCS"));
    return;
  }
  auto answer = std::make_shared<rpc::Responder>(std::move(responder));
  gcs_->CallRaw(MethodId::kSubscribe, request.control, {}, [answer](Status status, rpc::Reply reply) {
    if (!answer->valid()) return;
    if (status.ok()) {
      answer->SendRaw(reply.control, reply.parts);
    } else {
      answer->Fail(status);
    }
  });
}

void Router::Unsubscribe(const v1::SubscribeRequest& message, rpc::Request& request, rpc::Responder responder) {
  const Key key(message.channel(), message.key());
  if (const auto it = subscribers_.find(request.connection->id()); it != subscribers_.end()) {
    it->second.keys.erase(key);
    Drop(request.connection, key);
  }
  if (responder.valid()) responder.Send(v1::PubSubEmpty());
}

void Router::Drop(const rpc::ConnectionPtr& connection, const Key& key) {
  const auto it = by_key_.find(key);
  if (it == by_key_.end()) return;
  it->second.erase(connection->id());
  if (!it->second.empty()) return;
  by_key_.erase(it);
  if (gcs_ == nullptr || gcs_->closed()) return;
  if (key.first == v1::CHANNEL_NODE || key.first == v1::CHANNEL_WORKER) return;  // the node itself goes on listening
  v1::SubscribeRequest message;
  message.set_channel(static_cast<v1::Channel>(key.first));
  message.set_key(key.second);
  gcs_->Notify(MethodId::kUnsubscribe, message);
}

void Router::OnSubscriberClosed(uint64_t connection_id) {
  const auto it = subscribers_.find(connection_id);
  if (it == subscribers_.end()) return;
  const Subscriber gone = std::move(it->second);
  subscribers_.erase(it);
  for (const auto& key : gone.keys) Drop(gone.connection, key);
}

void Router::SubscribeNode() {
  for (const v1::Channel channel : {v1::CHANNEL_NODE, v1::CHANNEL_WORKER}) {
    v1::SubscribeRequest message;
    message.set_channel(channel);
    gcs_->Call(MethodId::kSubscribe, message, {}, [](const Status& status, const rpc::Reply&) {
      if (!status.ok() && status.code() != StatusCode::kUnavailable)
        RAY_LOG(ERROR) << "following the cluster's nodes: " << status.ToString();
    });
  }
}

void Router::Publish(const v1::PublishNotice& message, rpc::Request& request) {
  if (hooks_.on_news != nullptr) hooks_.on_news(message);
  const auto it = by_key_.find(Key(message.channel(), message.key()));
  if (it == by_key_.end()) return;
  for (const uint64_t id : it->second) subscribers_.at(id).connection->NotifyRaw(MethodId::kPublish, request.control, {});
}

}  // namespace ray::raylet
