#include <algorithm>
#include <optional>
#include <vector>

#include "ray/gcs_server/services/gcs_state.h"

namespace ray::gcs {
namespace {

// Whether the end of a process that only those nodes need to hear of (none: all) is told to the raylet of `node`; nil: a subscriber that is none.
bool HearsOf(const GcsState& gcs, const std::optional<std::vector<NodeId>>& nodes, const NodeId& node) {
  return !nodes || node.IsNil() || std::ranges::find(*nodes, node) != nodes->end() || gcs.watch_nothing.contains(node);
}

// What a new subscriber is told at once.
std::vector<v1::PublishNotice> PresentState(const GcsState& gcs, const v1::SubscribeRequest& request, const NodeId& node) {
  std::vector<v1::PublishNotice> notices;
  const v1::Channel channel = request.channel();
  const std::string& key = request.key();
  if (channel == v1::CHANNEL_ACTOR) {
    if (const v1::ActorInfo* actor = gcs.actors.Find(ActorId::FromBinaryOrNil(key))) {
      v1::PublishNotice& notice = notices.emplace_back();
      notice.set_key(key);
      *notice.mutable_actor() = *actor;
    }
  } else if (channel == v1::CHANNEL_NODE) {
    if (request.batches()) notices.emplace_back();
    for (const v1::NodeInfo* info : gcs.nodes.All()) {
      if (!info->alive() && !request.resume() && node.IsNil()) continue;
      v1::NodeInfo* told = request.batches() ? notices.back().add_nodes() : notices.emplace_back().mutable_node();
      if (info->alive() || request.resume()) {
        *told = *info;
        continue;
      }
      // A raylet that is new has to know of the dead, too: what their processes sent it may be there already, or still on its way.
      told->set_node_id(info->node_id());
      told->set_death_reason(info->death_reason());
    }
  } else if (channel == v1::CHANNEL_WORKER && request.resume()) {
    if (request.batches()) notices.emplace_back();
    gcs.workers.ForEach([&](const v1::WorkerDiedNotice& death, const std::optional<std::vector<NodeId>>& nodes) {
      if (!HearsOf(gcs, nodes, node)) return;
      *(request.batches() ? notices.back().add_workers() : notices.emplace_back().mutable_worker()) = death;
    });
  }
  if (channel == v1::CHANNEL_PLACEMENT_GROUP) {
    if (const v1::PlacementGroupInfo* group = gcs.groups.Find(PlacementGroupId::FromBinaryOrNil(key))) {
      v1::PublishNotice& notice = notices.emplace_back();
      notice.set_key(key);
      *notice.mutable_placement_group() = *group;
    }
  }
  for (v1::PublishNotice& notice : notices) notice.set_channel(channel);
  return notices;
}

void Subscribe(GcsState* gcs, const v1::SubscribeRequest& message, const rpc::Request& request, rpc::Responder responder) {
  Effects out;
  CallToken call = gcs->runner.Hold(std::move(responder));
  if (!v1::Channel_IsValid(message.channel()) || message.channel() == v1::CHANNEL_UNSPECIFIED) {
    Fail(call, Status::InvalidArgument("there is no channel " + std::to_string(message.channel())), &out);
    return gcs->runner.Run(std::move(out));
  }
  rpc::ConnectionPtr peer = request.connection;
  gcs->publisher.Subscribe(peer->id(), message.channel(), message.key());
  const auto [subscriber, is_new] = gcs->subscribers.try_emplace(peer->id());
  if (is_new) {
    subscriber->second.connection = peer;
    for (const auto& [node, link] : gcs->links) {
      if (link == peer) subscriber->second.node = node;
    }
    peer->OnClose([gcs, id = peer->id()](const Status&) {
      gcs->publisher.Drop(id);
      gcs->subscribers.erase(id);
    });
  }
  Reply(call, v1::PubSubEmpty(), &out);
  // Behind all that is published already: it must not overtake a newer state.
  gcs->runner.Run(std::move(out), [gcs, peer, message, node = subscriber->second.node] {
    for (const v1::PublishNotice& notice : PresentState(*gcs, message, node)) peer->Notify(MethodId::kPublish, notice);
  });
}

}  // namespace

void PublishToSubscribers(GcsState* gcs, const Publish& publish) {
  const v1::PublishNotice& notice = publish.notice;
  std::vector<uint64_t> ids = gcs->publisher.Subscribers(notice.channel(), notice.key());
  if (ids.empty()) return;
  const std::string bytes = notice.SerializeAsString();
  // A worker's own raylet knew first.
  rpc::ConnectionPtr source = notice.has_worker() ? gcs->LinkTo(NodeId::FromBinaryOrNil(notice.worker().node_id())) : nullptr;
  for (uint64_t id : ids) {
    const auto& [peer, node] = gcs->subscribers.at(id);
    if (peer != source && HearsOf(*gcs, publish.nodes, node)) peer->NotifyRaw(MethodId::kPublish, bytes, {});
  }
}

void RegisterPubSubService(GcsState* gcs, rpc::Dispatcher* dispatcher) {
  dispatcher->RegisterTyped<v1::SubscribeRequest>(
      MethodId::kSubscribe, [gcs](const v1::SubscribeRequest& message, rpc::Request& request, rpc::Responder responder) {
        Subscribe(gcs, message, request, std::move(responder));
      });
  dispatcher->RegisterTyped<v1::SubscribeRequest>(
      MethodId::kUnsubscribe, [gcs](const v1::SubscribeRequest& message, rpc::Request& request, rpc::Responder responder) {
        gcs->publisher.Unsubscribe(request.connection->id(), message.channel(), message.key());
        Effects out;
        Reply(gcs->runner.Hold(std::move(responder)), v1::PubSubEmpty(), &out);
        gcs->runner.Run(std::move(out));
      });
}

}  // namespace ray::gcs
