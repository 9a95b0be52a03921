// Router: the node's way to the GCS. It passes on what its processes ask of the GCS and relays the answers, and spreads what the GCS publishes.
// While there is no GCS, what is asked waits for it (GcsCalls).
//
// Subscriptions are kept per connection. The first Subscribe of a key goes on to the GCS (idempotent there), which publishes the key's present state. It is kept
// while anybody here is subscribed, so that later ones are answered here: a worker that is handed an actor that others of its node call does not wait for the GCS,
// and the others are not told again. The node itself follows what becomes of other nodes and their workers (SubscribeNode). Definitions of functions are answered
// here, too (FunctionCache): every new worker asks for them.
// On the loop only; owned by NodeServices.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>

#include "ray/common/ids.h"
#include "ray/raylet/router/function_cache.h"
#include "ray/raylet/router/gcs_calls.h"
#include "ray/rpc/core/dispatcher.h"
#include "ray/v1/gcs_job.pb.h"
#include "ray/v1/gcs_kv.pb.h"
#include "ray/v1/pubsub.pb.h"

namespace ray::raylet {

struct RouterHooks {
  std::function<void(uint64_t connection_id, const v1::JobInfo& job)> on_job_added;  // before its caller gets the answer
  // Its caller gets the answer when `done` is called, once, on the loop.
  std::function<void(const JobId& job, std::function<void()> done)> on_job_finishing;
  std::function<void(const v1::PublishNotice& news)> on_news = nullptr;  // what the GCS publishes, before its subscribers here get it
  // By that process, with which the actor ends; not a detached one.
  std::function<void(uint64_t connection_id, const ActorId& actor)> on_actor_made = nullptr;
  // It is dead, or was never registered. Its owner is subscribed to it until then, or has failed it itself, so this comes whatever happens to the GCS meanwhile.
  std::function<void(const ActorId& actor)> on_actor_ended = nullptr;
};

class Router {
 public:
  Router(const NodeId& node, RouterHooks hooks) : node_(node), hooks_(std::move(hooks)) {}
  ~Router() { *alive_ = false; }
  void RegisterHandlers(rpc::Dispatcher* dispatcher);
  // The link over which the node is registered. From now on on_news hears of nodes and of workers' deaths, beginning with all nodes alive. `resume`: after
  // an earlier link, what was missed is told as well, and whoever subscribed here hears of the present state.
  void SetGcs(rpc::ConnectionPtr gcs, bool resume);
  // It has ended; another one will come, and calls wait for it.
  void WaitForGcs() { calls_.Wait(); }
  // None will come: calls fail.
  void LoseGcs(const Status& reason) { calls_.Fail(reason); }
  // A call of the node itself.
  void Ask(MethodId method, const rpc::MessageLite& message, rpc::ReplyCallback callback) {
    calls_.Call(method, message.SerializeAsString(), {}, std::move(callback));
  }

 private:
  using Key = std::pair<int, std::string>;  // channel, key
  void Forward(rpc::Request request, rpc::Responder responder);
  // Of a registration: tells on_actor_made. Nil: there is nothing to tell.
  ActorId NoteActor(const rpc::Request& request);
  void EndWith(const rpc::ConnectionPtr& driver, const std::string& job);
  void KvPut(const v1::KvPutRequest& message, rpc::Request& request, rpc::Responder responder);
  void KvGet(const v1::KvGetRequest& message, rpc::Request& request, rpc::Responder responder);
  void Subscribe(const v1::SubscribeRequest& message, rpc::Request& request, rpc::Responder responder);
  void Unsubscribe(const v1::SubscribeRequest& message, rpc::Request& request, rpc::Responder responder);
  void Publish(const v1::PublishNotice& message, rpc::Request& request);
  void Drop(const rpc::ConnectionPtr& connection, const Key& key);
  // Nobody here is subscribed to it any more.
  void TellOfEnd(const Key& key);
  void OnSubscriberClosed(uint64_t connection_id);

  struct Subscriber {
    rpc::ConnectionPtr connection;
    std::set<Key> keys;
  };
  struct Topic {
    std::set<uint64_t> subscribers;  // connections; never empty
    std::string latest;              // the newest PublishNotice of an actor or a placement group; empty: none has come
  };
  const NodeId node_;
  const RouterHooks hooks_;
  GcsCalls calls_;
  FunctionCache functions_;
  std::map<uint64_t, Subscriber> subscribers_;  // by connection
  std::map<Key, Topic> by_key_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);  // for callbacks that connections keep
};

}  // namespace ray::raylet
