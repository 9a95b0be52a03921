#include "ray/raylet/router/tunnel_router.h"

#include <optional>
#include <utility>

#include "ray/util/logging.h"
#include "ray/wire/convert.h"

namespace ray::raylet {
namespace {

bool Opens(const v1::TunnelFrames& message) { return message.from_opener() && message.sequence() == 0; }
bool Opens(const v1::TunnelClosed&) { return false; }

// The answer to an envelope that cannot be passed on.
v1::TunnelClosed Refusal(const v1::TunnelFrames& message, v1::TunnelCause cause, const std::string& reason) {
  v1::TunnelClosed closed;
  *closed.mutable_to() = message.from();
  *closed.mutable_from() = message.to();
  closed.set_channel(message.channel());
  closed.set_from_opener(!message.from_opener());
  closed.set_cause(cause);
  closed.set_reason(reason);
  return closed;
}

}  // namespace

TunnelRouter::TunnelRouter(Deps deps, TunnelRouterConfig config) : deps_(deps), config_(config) {
  deps_.nodes->OnNodeAdded([this](const NodeDescription& node) { ServeWaiting(node.id); });
  deps_.nodes->OnLinkUp([this](const NodeId& node) { ServeWaiting(node); });
  deps_.nodes->OnLinkBroke([this](const NodeId& node, const std::string& reason) {
    CloseRoutes(node, v1::TUNNEL_CAUSE_LINK, "the link to node " + node.Hex() + " broke: " + reason);
  });
  deps_.nodes->OnNodeDead([this](const NodeId& node, const std::string& reason) {
    {
      MutexLock lock(&mu_);
      dead_.insert(node);
    }
    const std::string text = "node " + node.Hex() + " is dead: " + reason;
    CloseRoutes(node, v1::TUNNEL_CAUSE_NODE, text);
    FailWaiting(node, v1::TUNNEL_CAUSE_NODE, text);
  });
}

TunnelRouter::~TunnelRouter() {
  *alive_ = false;
  for (auto& [node, queue] : waiting_) {
    if (queue.timer != 0) deps_.loop->CancelTimer(queue.timer);
  }
}

void TunnelRouter::RegisterHandlers(rpc::Dispatcher* dispatcher) {
  dispatcher->RegisterDirect(MethodId::kTunnel, [this](const rpc::Request& request, const rpc::Responder&) {
    static thread_local v1::TunnelFrames message;
    if (message.ParseFromArray(request.control.data(), static_cast<int>(request.control.size())))
      Route(message, MethodId::kTunnel, request);
  });
  dispatcher->RegisterDirect(MethodId::kTunnelClosed, [this](const rpc::Request& request, const rpc::Responder&) {
    v1::TunnelClosed message;
    if (message.ParseFromArray(request.control.data(), static_cast<int>(request.control.size())))
      Route(message, MethodId::kTunnelClosed, request);
  });
}

template <typename Message>
void TunnelRouter::Route(const Message& message, MethodId method, const rpc::Request& request) {
  const Address to = FromProto(message.to()), from = FromProto(message.from());
  const bool inward = to.node_id == deps_.self;
  bool drop, dead = false;
  {
    MutexLock lock(&mu_);
    const auto sender = by_connection_.find(request.connection->id());
    if (sender != by_connection_.end()) {
      // Nobody speaks for another.
      drop = from.node_id != deps_.self || from.worker_id != sender->second;
    } else {
      dead = dead_.contains(from.node_id);
      drop = from.node_id == deps_.self || !inward || dead;
    }
    if (!drop && Opens(message)) {
      if (!inward) {
        routes_.Add(from.worker_id, to);
        met_.Meet(from.worker_id, to.node_id);
      } else if (to.worker_id.IsNil() || processes_.contains(to.worker_id)) {
        routes_.Add(to.worker_id, from);
        if (!to.worker_id.IsNil()) met_.Meet(to.worker_id, from.node_id);
      }
    }
    if (!drop && inward && method == MethodId::kTunnelClosed) {
      if constexpr (std::is_same_v<Message, v1::TunnelClosed>) {
        if (message.cause() == v1::TUNNEL_CAUSE_GONE) routes_.RemoteGone(to.worker_id, from);
      }
    }
  }
  if (drop) {
    if (!dead) RAY_LOG(WARNING) << "an envelope from " << from.node_id << " to " << to.node_id << " that must not pass here";
    return;
  }
  deps_.loop->ExpectSoon();  // an answer
  if (!inward) return SendOut(method, to, request.control, request.parts);
  if (Deliver(to.worker_id, method, request.control, request.parts)) return;
  if constexpr (std::is_same_v<Message, v1::TunnelFrames>) {
    // By the way that its answers have gone, and so behind them: whoever hears of the end has heard all that the process had said.
    deps_.loop->Post("tunnel.refuse",
                     [this, alive = alive_, from, refusal = Refusal(message, v1::TUNNEL_CAUSE_GONE, "its process has ended")] {
                       if (*alive) SendOut(MethodId::kTunnelClosed, from, refusal.SerializeAsString(), {});
                     });
  }
}

void TunnelRouter::SendOwn(MethodId method, std::string_view control, const PartList& parts) {
  Address to;
  if (method == MethodId::kTunnel) {
    static thread_local v1::TunnelFrames message;
    if (!message.ParseFromArray(control.data(), static_cast<int>(control.size()))) return;
    to = FromProto(message.to());
    if (Opens(message)) {
      MutexLock lock(&mu_);
      routes_.Add(WorkerId::Nil(), to);
    }
  } else {
    v1::TunnelClosed message;
    if (!message.ParseFromArray(control.data(), static_cast<int>(control.size()))) return;
    to = FromProto(message.to());
  }
  if (to.node_id == deps_.self) {
    Deliver(to.worker_id, method, control, parts);
  } else {
    SendOut(method, to, control, parts);
  }
}

bool TunnelRouter::Deliver(const WorkerId& to, MethodId method, std::string_view control, const PartList& parts) {
  if (to.IsNil()) {
    // Always by a post, so that nothing overtakes what another thread has posted.
    deps_.loop->Post("tunnel", [hub = hub_, method, control = std::string(control), parts] {
      if (method == MethodId::kTunnel) {
        v1::TunnelFrames message;
        if (message.ParseFromString(control)) hub->OnFrames(message, parts);
      } else {
        v1::TunnelClosed message;
        if (message.ParseFromString(control)) hub->OnClosed(message);
      }
    });
    return true;
  }
  rpc::ConnectionPtr connection;
  {
    MutexLock lock(&mu_);
    const auto it = processes_.find(to);
    if (it == processes_.end()) return false;
    connection = it->second;
  }
  connection->NotifyRaw(method, control, parts);
  return true;
}

// ---- to other nodes ----

void TunnelRouter::SendOut(MethodId method, const Address& to, std::string_view control, const PartList& parts) {
  const auto queue = waiting_.find(to.node_id);
  if (queue == waiting_.end()) {
    if (const auto link = deps_.nodes->Link(to.node_id)) {
      link->NotifyRaw(method, control, parts);
      return;
    }
  }
  if (queue != waiting_.end() || deps_.nodes->MayComeUp(to.node_id)) return Park(to.node_id, method, control, parts);
  const bool dead = deps_.nodes->IsDead(to.node_id);
  Bounce({method, std::string(control), {}}, dead ? v1::TUNNEL_CAUSE_NODE : v1::TUNNEL_CAUSE_LINK,
         "node " + to.node_id.Hex() + (dead ? " is dead" : " cannot be reached"));
}

void TunnelRouter::Park(const NodeId& node, MethodId method, std::string_view control, const PartList& parts) {
  Queue& queue = waiting_[node];
  queue.messages.push_back({method, std::string(control), parts});
  queue.bytes += control.size();
  for (const BufferPtr& part : parts) queue.bytes += part->size();
  if (queue.bytes > config_.max_waiting_bytes) {
    return FailWaiting(node, v1::TUNNEL_CAUSE_LINK, "too much waits for a link to node " + node.Hex());
  }
  if (queue.timer != 0) return;
  queue.timer = deps_.loop->AddTimer(config_.patience, [this, node] {
    waiting_.at(node).timer = 0;
    FailWaiting(node, v1::TUNNEL_CAUSE_LINK, "node " + node.Hex() + " cannot be reached");
  });
}

void TunnelRouter::ServeWaiting(const NodeId& node) {
  const auto it = waiting_.find(node);
  if (it == waiting_.end()) return;
  const auto link = deps_.nodes->Link(node);
  if (link == nullptr) return;
  const Queue queue = std::move(it->second);
  waiting_.erase(it);
  if (queue.timer != 0) deps_.loop->CancelTimer(queue.timer);
  for (const Waiting& message : queue.messages) link->NotifyRaw(message.method, message.control, message.parts);
}

void TunnelRouter::FailWaiting(const NodeId& node, v1::TunnelCause cause, const std::string& reason) {
  const auto it = waiting_.find(node);
  if (it == waiting_.end()) return;
  const Queue queue = std::move(it->second);
  waiting_.erase(it);
  if (queue.timer != 0) deps_.loop->CancelTimer(queue.timer);
  for (const Waiting& message : queue.messages) Bounce(message, cause, reason);
}

void TunnelRouter::Bounce(const Waiting& message, v1::TunnelCause cause, const std::string& reason) {
  if (message.method != MethodId::kTunnel) return;  // who has closed a channel waits for nothing
  v1::TunnelFrames frames;
  if (!frames.ParseFromString(message.control)) return;
  Deliver(WorkerId::FromBinaryOrNil(frames.from().worker_id()), MethodId::kTunnelClosed, Refusal(frames, cause, reason).SerializeAsString(),
          {});
}

// ---- ends ----

void TunnelRouter::AddProcess(const WorkerId& worker, const rpc::ConnectionPtr& connection) {
  MutexLock lock(&mu_);
  processes_[worker] = connection;
  by_connection_[connection->id()] = worker;
}

bool TunnelRouter::Meet(const WorkerId& worker, const NodeId& node) {
  MutexLock lock(&mu_);
  if (!processes_.contains(worker)) return false;
  met_.Meet(worker, node);
  return true;
}

std::optional<std::vector<NodeId>> TunnelRouter::RemoveProcess(const WorkerId& worker, const std::string& detail) {
  std::vector<Address> remotes;
  std::optional<std::vector<NodeId>> met;
  {
    MutexLock lock(&mu_);
    met = met_.Ended(worker);
    const auto it = processes_.find(worker);
    if (it == processes_.end()) return met;
    by_connection_.erase(it->second->id());
    processes_.erase(it);
    remotes = routes_.LocalGone(worker);
  }
  v1::TunnelClosed closed;
  ToProto(Address{deps_.self, worker}, closed.mutable_from());
  closed.set_cause(v1::TUNNEL_CAUSE_GONE);
  closed.set_reason(detail);
  for (const Address& remote : remotes) {
    *closed.mutable_to() = ToProto(remote);
    SendOut(MethodId::kTunnelClosed, remote, closed.SerializeAsString(), {});
  }
  return met;
}

void TunnelRouter::CloseRoutes(const NodeId& node, v1::TunnelCause cause, const std::string& reason) {
  std::vector<TunnelRoutes::Route> routes;
  {
    MutexLock lock(&mu_);
    routes = routes_.NodeGone(node);
  }
  v1::TunnelClosed closed;
  closed.set_cause(cause);
  closed.set_reason(reason);
  for (const auto& route : routes) {
    *closed.mutable_to() = ToProto(Address{deps_.self, route.local});
    *closed.mutable_from() = ToProto(route.remote);
    Deliver(route.local, MethodId::kTunnelClosed, closed.SerializeAsString(), {});
  }
  if (cause != v1::TUNNEL_CAUSE_LINK) return;
  // The other node may have seen the break long before, and its processes have opened channels over another link since. These have gone here with the rest, so
  // they have to hear of it.
  const auto link = deps_.nodes->ExistingLink(node);
  if (link == nullptr) return;
  for (const auto& route : routes) {
    *closed.mutable_to() = ToProto(route.remote);
    *closed.mutable_from() = ToProto(Address{deps_.self, route.local});
    link->Notify(MethodId::kTunnelClosed, closed);
  }
}

}  // namespace ray::raylet
