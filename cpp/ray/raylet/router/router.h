// Router: the node's way to the GCS. It passes on what its processes ask of the GCS and relays the answers, and spreads what the GCS publishes.
//
// Subscriptions are kept per connection. Every Subscribe goes on to the GCS (idempotent there), which publishes the key's present state
// again: so a late subscriber gets it without a copy kept here; the others see a version that they know. The node itself follows what becomes of other nodes
// and their workers (SubscribeNode). Definitions of functions are the one thing that is answered here (FunctionCache): every new worker asks for them.
// On the loop only; owned by Raylet.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>

#include "ray/common/ids.h"
#include "ray/raylet/router/function_cache.h"
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
};

class Router {
 public:
  Router(const NodeId& node, RouterHooks hooks) : node_(node), hooks_(std::move(hooks)) {}
  ~Router() { *alive_ = false; }
  void RegisterHandlers(rpc::Dispatcher* dispatcher);
  // The link to the GCS; until it is set, and after it has closed, calls fail with UNAVAILABLE.
  void SetGcs(rpc::ConnectionPtr gcs) { gcs_ = std::move(gcs); }
  // Once registered: from now on on_news hears of nodes and of workers' deaths, beginning with all nodes alive.
  void SubscribeNode();

 private:
  using Key = std::pair<int, std::string>;  // channel, key
  void Forward(rpc::Request request, rpc::Responder responder);
  void KvGet(const v1::KvGetRequest& message, rpc::Request& request, rpc::Responder responder);
  void Subscribe(const v1::SubscribeRequest& message, rpc::Request& request, rpc::Responder responder);
  void Unsubscribe(const v1::SubscribeRequest& message, rpc::Request& request, rpc::Responder responder);
  void Publish(const v1::PublishNotice& message, rpc::Request& request);
  void Drop(const rpc::ConnectionPtr& connection, const Key& key);
  void OnSubscriberClosed(uint64_t connection_id);

  struct Subscriber {
    rpc::ConnectionPtr connection;
    std::set<Key> keys;
  };
  const NodeId node_;
  const RouterHooks hooks_;
  rpc::ConnectionPtr gcs_;
  FunctionCache functions_;
  std::map<uint64_t, Subscriber> subscribers_;  // by connection
  std::map<Key, std::set<uint64_t>> by_key_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);  // for callbacks that connections keep
};

}  // namespace ray::raylet
