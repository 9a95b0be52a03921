#include "ray/raylet/router/router.h"

#include <string_view>

#include "ray/util/logging.h"
#include "ray/v1/gcs_actor.pb.h"

namespace ray::raylet {
namespace {

// What the GCS answered to RegisterActor: not if another actor has the name.
bool IsRegistered(const Status& status, const rpc::Reply& reply) {
  v1::RegisterActorReply message;
  return status.ok() && message.ParseFromArray(reply.control.data(), static_cast<int>(reply.control.size())) && !message.has_existing();
}

}  // namespace

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
                                                 if (request.connection == calls_.link()) Publish(message, request);
                                                 if (responder.valid()) responder.Send(v1::PubSubEmpty());
                                               });
  dispatcher->RegisterTyped<v1::KvGetRequest>(MethodId::kKvGet,
                                              [this](const v1::KvGetRequest& message, rpc::Request& request, rpc::Responder responder) {
                                                KvGet(message, request, std::move(responder));
                                              });
  dispatcher->RegisterTyped<v1::KvPutRequest>(MethodId::kKvPut,
                                              [this](const v1::KvPutRequest& message, rpc::Request& request, rpc::Responder responder) {
                                                KvPut(message, request, std::move(responder));
                                              });
  dispatcher->RegisterFallback(
      [this](rpc::Request request, rpc::Responder responder) { Forward(std::move(request), std::move(responder)); });
}

ActorId Router::NoteActor(const rpc::Request& request) {
  v1::RegisterActorRequest message;
  if (!message.ParseFromArray(request.control.data(), static_cast<int>(request.control.size()))) return ActorId::Nil();
  const v1::ActorCreation& creation = message.spec().creation();
  const ActorId actor = ActorId::FromBinaryOrNil(creation.actor_id());
  if (actor.IsNil() || creation.detached()) return ActorId::Nil();
  hooks_.on_actor_made(request.connection->id(), actor);
  return actor;
}

void Router::Forward(rpc::Request request, rpc::Responder responder) {
  if (!IsGcsMethod(request.method) || request.connection == calls_.link()) {
    if (responder.valid()) responder.Fail(Status::Unimplemented("the raylet does not serve " + std::string(MethodName(request.method))));
    return;
  }
  const ActorId making = request.method == MethodId::kRegisterActor && hooks_.on_actor_made ? NoteActor(request) : ActorId::Nil();
  ActorId failing;  // whose owner need not be subscribed to it: it may have given up its registration
  if (request.method == MethodId::kFailActor) {
    v1::FailActorRequest message;
    if (message.ParseFromArray(request.control.data(), static_cast<int>(request.control.size())))
      failing = ActorId::FromBinaryOrNil(message.actor_id());
  }
  // Also one-way: what is to be done must not be lost with the link.
  if (!responder.valid()) return calls_.Call(request.method, std::string(request.control), std::move(request.parts), nullptr);
  JobId finishing;
  v1::JobInfo adding;
  if (request.method == MethodId::kFinishJob) {
    v1::FinishJobRequest message;
    if (message.ParseFromArray(request.control.data(), static_cast<int>(request.control.size())))
      finishing = JobId::FromBinaryOrNil(message.job_id());
  }
  std::string control(request.control);
  if (request.method == MethodId::kAddJob) {  // its driver does not know yet where it is
    v1::AddJobRequest message;
    if (message.ParseFromString(control)) {
      message.mutable_job()->set_driver_node_id(node_.Binary());
      control = message.SerializeAsString();
      adding.Swap(message.mutable_job());
    }
  }
  auto answer = std::make_shared<rpc::Responder>(std::move(responder));  // std::function wants a copyable callback
  calls_.Call(request.method, std::move(control), std::move(request.parts),
              [this, answer, finishing, making, failing, adding = std::move(adding), method = request.method](Status status,
                                                                                                              rpc::Reply reply) mutable {
                if (hooks_.on_actor_ended) {
                  if (!making.IsNil() && !IsRegistered(status, reply)) hooks_.on_actor_ended(making);
                  if (!failing.IsNil() && status.ok()) hooks_.on_actor_ended(failing);
                }
                if (!status.ok()) return answer->Fail(status);
                if (method == MethodId::kAddJob && answer->connection() != nullptr) {
                  v1::AddJobReply added;
                  if (added.ParseFromArray(reply.control.data(), static_cast<int>(reply.control.size()))) {
                    EndWith(answer->connection(), added.job_id());
                    if (answer->connection()->closed()) return;
                    adding.set_job_id(added.job_id());
                    hooks_.on_job_added(answer->connection()->id(), adding);
                  }
                }
                if (!finishing.IsNil()) {
                  hooks_.on_job_finishing(finishing, [answer, control = std::string(reply.control)] { answer->SendRaw(control, {}); });
                  return;
                }
                answer->SendRaw(reply.control, reply.parts);
              });
}

// A driver that goes, or has gone, before it registers has nobody else to end its job; for others it ends twice, which is the same. That is why a job is also asked
// for again, over the next link, when nobody waits for it any more: the GCS that went with the last link may have written it down.
void Router::EndWith(const rpc::ConnectionPtr& driver, const std::string& job) {
  driver->OnClose([this, job, alive = alive_](const Status&) {
    if (!*alive) return;
    v1::FinishJobRequest finish;
    finish.set_job_id(job);
    calls_.Call(MethodId::kFinishJob, finish.SerializeAsString(), {}, nullptr);
  });
}

void Router::KvGet(const v1::KvGetRequest& message, rpc::Request& request, rpc::Responder responder) {
  if (message.ns() != FunctionCache::kNamespace) return Forward(std::move(request), std::move(responder));
  if (const std::string* known = functions_.Find(message.key())) {
    responder.SendRaw(*known, {});
    return;
  }
  auto answer = std::make_shared<rpc::Responder>(std::move(responder));
  calls_.Call(MethodId::kKvGet, std::string(request.control), {}, [this, answer, key = message.key()](Status status, rpc::Reply reply) {
    if (!status.ok()) return answer->Fail(status);
    v1::KvGetReply found;
    if (found.ParseFromArray(reply.control.data(), static_cast<int>(reply.control.size())) && found.found()) {
      functions_.Put(key, std::string(reply.control));
    }
    answer->SendRaw(reply.control, reply.parts);
  });
}

// A definition is its exporter's business no longer once it is here: the node's workers get it from here, and the GCS gets it from us, when it is there. So the
// first call of a function does not wait for the GCS.
void Router::KvPut(const v1::KvPutRequest& message, rpc::Request& request, rpc::Responder responder) {
  const bool definition = message.ns() == FunctionCache::kNamespace && !message.overwrite();
  if (!definition || request.connection == calls_.link()) return Forward(std::move(request), std::move(responder));
  v1::KvGetReply known;
  known.set_found(true);
  known.set_value(message.value());
  functions_.Put(message.key(), known.SerializeAsString());
  auto answer = std::make_shared<rpc::Responder>(std::move(responder));
  const bool here = functions_.Find(message.key()) != nullptr;
  calls_.Call(MethodId::kKvPut, std::string(request.control), {}, [answer](const Status& status, const rpc::Reply& reply) {
    if (!answer->valid()) {
      if (!status.ok()) RAY_LOG(WARNING) << "a function was not exported: " << status.ToString();
    } else if (status.ok()) {
      answer->SendRaw(reply.control, reply.parts);
    } else {
      answer->Fail(status);
    }
  });
  if (!here || !answer->valid()) return;  // too large to be kept, or refused
  v1::KvPutReply reply;
  reply.set_added(true);
  answer->Send(reply);
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
  Topic& topic = by_key_[key];
  topic.subscribers.insert(id);
  if (!topic.latest.empty()) {
    request.connection->NotifyRaw(MethodId::kPublish, topic.latest, {});
    if (responder.valid()) responder.Send(v1::PubSubEmpty());
    return;
  }
  auto answer = std::make_shared<rpc::Responder>(std::move(responder));
  calls_.Call(MethodId::kSubscribe, std::string(request.control), {}, [this, answer, key](const Status& status, const rpc::Reply&) {
    if (!status.ok()) return answer->Fail(status);
    // It may have ended while there was no GCS: then the one that has heard of it now was not told.
    if (!by_key_.contains(key)) TellOfEnd(key);
    answer->Send(v1::PubSubEmpty());
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
  it->second.subscribers.erase(connection->id());
  if (!it->second.subscribers.empty()) return;
  by_key_.erase(it);
  TellOfEnd(key);
}

void Router::TellOfEnd(const Key& key) {
  if (calls_.link() == nullptr) return;                                          // the next GCS will not be asked
  if (key.first == v1::CHANNEL_NODE || key.first == v1::CHANNEL_WORKER) return;  // the node itself goes on listening
  v1::SubscribeRequest message;
  message.set_channel(static_cast<v1::Channel>(key.first));
  message.set_key(key.second);
  calls_.link()->Notify(MethodId::kUnsubscribe, message);
}

void Router::OnSubscriberClosed(uint64_t connection_id) {
  const auto it = subscribers_.find(connection_id);
  if (it == subscribers_.end()) return;
  const Subscriber gone = std::move(it->second);
  subscribers_.erase(it);
  for (const auto& key : gone.keys) Drop(gone.connection, key);
}

void Router::SetGcs(rpc::ConnectionPtr gcs, bool resume) {
  // Subscriptions first: an answer that follows must not come before the news that it caused.
  const auto subscribe = [&gcs, resume](int channel, const std::string& key) {
    v1::SubscribeRequest message;
    message.set_channel(static_cast<v1::Channel>(channel));
    message.set_key(key);
    message.set_resume(resume);
    message.set_batches(true);
    gcs->Call(MethodId::kSubscribe, message, {}, [gcs](const Status& status, const rpc::Reply&) {
      if (!status.ok() && !gcs->closed()) RAY_LOG(ERROR) << "subscribing at the GCS: " << status.ToString();
    });
  };
  for (const v1::Channel channel : {v1::CHANNEL_NODE, v1::CHANNEL_WORKER}) subscribe(channel, "");
  for (const auto& [key, topic] : by_key_) subscribe(key.first, key.second);
  calls_.SetLink(std::move(gcs));
}

void Router::Publish(const v1::PublishNotice& message, rpc::Request& request) {
  if (hooks_.on_news != nullptr) hooks_.on_news(message);
  if (message.actor().state() == v1::ACTOR_STATE_DEAD && hooks_.on_actor_ended)
    hooks_.on_actor_ended(ActorId::FromBinaryOrNil(message.actor().actor_id()));
  const auto it = by_key_.find(Key(message.channel(), message.key()));
  if (it == by_key_.end()) return;
  if (message.has_actor() || message.has_placement_group()) it->second.latest.assign(request.control);
  for (const uint64_t id : it->second.subscribers) subscribers_.at(id).connection->NotifyRaw(MethodId::kPublish, request.control, {});
}

}  // namespace ray::raylet
