#include "ray/rpc/tunnel/tunnel_hub.h"

#include <utility>

#include "ray/common/errors.h"
#include "ray/rpc/core/faulty_connection.h"
#include "ray/rpc/tunnel/tunnel_connection.h"
#include "ray/wire/convert.h"

namespace ray::rpc {

std::shared_ptr<TunnelHub> TunnelHub::Make(Deps deps) {
  std::shared_ptr<TunnelHub> hub(new TunnelHub(std::move(deps)));
  hub->deps_.loop->AddFlusher([weak = hub->weak_from_this()] {
    if (auto self = weak.lock()) self->FlushDirty();
  });
  return hub;
}

ConnectionPtr TunnelHub::Connect(const Address& peer) {
  TunnelPtr connection;
  bool refused;
  {
    MutexLock lock(&mu_);
    const uint64_t channel = ++last_channel_;
    connection = MakeConnection<TunnelConnection>(deps_.faults, shared_from_this(), peer, channel, /*opener=*/true);
    refused = shut_down_;
    if (!refused) opened_.emplace(channel, connection);
  }
  if (refused) connection->End(Status::Unavailable("this process is shutting down"), /*tell_peer=*/false);
  return connection;
}

TunnelHub::TunnelPtr TunnelHub::Find(const v1::TunnelFrames& envelope) {
  const Address from = FromProto(envelope.from());
  MutexLock lock(&mu_);
  if (!envelope.from_opener()) {
    const auto it = opened_.find(envelope.channel());
    return it == opened_.end() || it->second->peer() != from ? nullptr : it->second;
  }
  const Incoming key{from, envelope.channel()};
  const auto it = incoming_.find(key);
  if (it != incoming_.end()) return it->second;
  // Later envelopes of a channel that has ended here do not open it again.
  if (envelope.sequence() != 0 || shut_down_) return nullptr;
  auto connection = MakeConnection<TunnelConnection>(deps_.faults, shared_from_this(), from, envelope.channel(), /*opener=*/false);
  incoming_.emplace(key, connection);
  return connection;
}

void TunnelHub::OnFrames(const v1::TunnelFrames& envelope, const PartList& parts) {
  if (TunnelPtr connection = Find(envelope)) {
    connection->Receive(envelope, parts);
  } else if (!parts.empty()) {
    Refuse(envelope);
  }
}

void TunnelHub::Refuse(const v1::TunnelFrames& envelope) {
  v1::TunnelClosed message;
  *message.mutable_to() = envelope.from();
  *message.mutable_from() = envelope.to();
  message.set_channel(envelope.channel());
  message.set_from_opener(!envelope.from_opener());
  message.set_cause(v1::TUNNEL_CAUSE_CLOSED);
  message.set_reason("the peer has closed the connection");
  deps_.send(MethodId::kTunnelClosed, message.SerializeAsString(), {});
}

std::vector<TunnelHub::TunnelPtr> TunnelHub::Matching(const std::function<bool(const TunnelConnection&)>& wanted) const {
  std::vector<TunnelPtr> found;
  MutexLock lock(&mu_);
  for (const auto& [channel, connection] : opened_) {
    if (wanted(*connection)) found.push_back(connection);
  }
  for (const auto& [key, connection] : incoming_) {
    if (wanted(*connection)) found.push_back(connection);
  }
  return found;
}

void TunnelHub::OnClosed(const v1::TunnelClosed& message) {
  const Address from = FromProto(message.from());
  const uint64_t channel = message.channel();
  const bool mine = !message.from_opener(), gone = message.cause() == v1::TUNNEL_CAUSE_GONE;
  for (const TunnelPtr& connection : Matching([&](const TunnelConnection& c) {
         return c.peer() == from && (channel == 0 || (c.channel() == channel && c.opener() == mine));
       })) {
    connection->End(Status(StatusCode::kUnavailable, message.reason(), gone ? static_cast<int32_t>(ErrorType::kWorkerDied) : -1),
                    /*tell_peer=*/false);
  }
  if (gone && deps_.on_peer_gone) deps_.on_peer_gone(from);
}

void TunnelHub::CloseNode(const NodeId& node, const std::string& reason) {
  for (const TunnelPtr& connection : Matching([&](const TunnelConnection& c) { return c.peer().node_id == node; })) {
    connection->End(Status::Unavailable(reason), /*tell_peer=*/false);
  }
}

void TunnelHub::Shutdown() {
  {
    MutexLock lock(&mu_);
    shut_down_ = true;
  }
  for (const TunnelPtr& connection : Matching([](const TunnelConnection&) { return true; })) {
    connection->Close(Status::Unavailable("this process shuts the connection down"));
  }
}

void TunnelHub::Drop() {
  const std::vector<TunnelPtr> connections = Matching([](const TunnelConnection&) { return true; });
  std::vector<TunnelPtr> dirty;
  {
    MutexLock lock(&mu_);
    shut_down_ = true;
    opened_.clear();
    incoming_.clear();
    dirty.swap(dirty_);
  }
  for (const TunnelPtr& connection : connections) connection->Drop();
}

void TunnelHub::Forget(const TunnelConnection& connection) {
  TunnelPtr last;  // dies outside the lock
  MutexLock lock(&mu_);
  if (connection.opener()) {
    const auto it = opened_.find(connection.channel());
    if (it == opened_.end()) return;
    last = std::move(it->second);
    opened_.erase(it);
  } else {
    const auto it = incoming_.find(Incoming{connection.peer(), connection.channel()});
    if (it == incoming_.end()) return;
    last = std::move(it->second);
    incoming_.erase(it);
  }
}

size_t TunnelHub::size() const {
  MutexLock lock(&mu_);
  return opened_.size() + incoming_.size();
}

void TunnelHub::AddDirty(TunnelPtr connection) {
  MutexLock lock(&mu_);
  dirty_.push_back(std::move(connection));
}

void TunnelHub::FlushDirty() {
  std::vector<TunnelPtr> dirty;
  {
    MutexLock lock(&mu_);
    if (dirty_.empty()) return;
    dirty.swap(dirty_);
  }
  for (const TunnelPtr& connection : dirty) connection->Flush();
  deps_.flush();
}

}  // namespace ray::rpc
