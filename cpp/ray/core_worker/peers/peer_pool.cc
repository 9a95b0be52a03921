#include "ray/core_worker/peers/peer_pool.h"

#include "ray/v1/raylet_worker.pb.h"
#include "ray/wire/convert.h"

namespace ray::core {
namespace {

// A worker that sends its last reply and leaves must not lose it to the news of its death, which travels another way.
constexpr Duration kLastWords = std::chrono::seconds(1);

}  // namespace

std::shared_ptr<PeerPool> PeerPool::Make(Connector connector, async::Loop* loop) {
  return std::shared_ptr<PeerPool>(new PeerPool(std::move(connector), loop));
}

Result<rpc::ConnectionPtr> PeerPool::Get(const Address& peer) {
  {
    MutexLock lock(&mu_);
    if (auto it = outgoing_.find(peer.worker_id); it != outgoing_.end() && !it->second->closed()) return it->second;
    if (closed_) return Status(StatusCode::kFailedPrecondition, "this process is shutting down");
    if (dead_.contains(peer.worker_id)) return Status::Unavailable("worker " + peer.worker_id.Hex() + " has died");
  }
  if (IsRemote(peer)) return Tunnel(peer);
  // Without the lock: connecting is a system call. Of two threads that come here at once one throws its connection away.
  auto made = connector_(WorkerSocketName(peer.worker_id));
  if (!made.ok()) {
    // That it is out of reach for want of descriptors says nothing about the worker. What it has opened itself will do.
    if (made.status().code() == StatusCode::kResourceExhausted) {
      MutexLock lock(&mu_);
      if (auto it = incoming_.find(peer.worker_id); it != incoming_.end() && !it->second->closed()) return it->second;
      return made.status();
    }
    return Status::Unavailable("worker " + peer.worker_id.Hex() + " does not answer: " + made.status().message());
  }
  rpc::ConnectionPtr mine = *std::move(made), winner;
  {
    MutexLock lock(&mu_);
    auto& slot = outgoing_[peer.worker_id];
    if (closed_ || dead_.contains(peer.worker_id)) {
      outgoing_.erase(peer.worker_id);
    } else if (slot != nullptr && !slot->closed()) {
      winner = slot;
    } else {
      winner = slot = mine;
    }
  }
  if (winner != mine) mine->Close(Status::Cancelled("another connection to this worker is in use"));
  if (winner == nullptr) return Status::Unavailable("worker " + peer.worker_id.Hex() + " has died");
  if (winner == mine) ForgetOnClose(peer.worker_id, mine);
  return winner;
}

Result<rpc::ConnectionPtr> PeerPool::Tunnel(const Address& peer) {
  rpc::ConnectionPtr made;
  {
    MutexLock lock(&mu_);
    if (closed_) return Status(StatusCode::kFailedPrecondition, "this process is shutting down");
    if (dead_nodes_.contains(peer.node_id)) return Status::Unavailable("node " + peer.node_id.Hex() + " is dead, and with it the worker");
    if (dead_.contains(peer.worker_id)) return Status::Unavailable("worker " + peer.worker_id.Hex() + " has died");
    auto& slot = outgoing_[peer.worker_id];
    if (slot != nullptr && !slot->closed()) return slot;
    remote_[peer.worker_id] = peer.node_id;
    made = slot = tunnels_->Connect(peer);  // neither blocks nor calls back
  }
  ForgetOnClose(peer.worker_id, made);
  return made;
}

Result<rpc::ConnectionPtr> PeerPool::GetRaylet(const NodeId& node) {
  if (!IsRemote({node, WorkerId::Nil()})) {
    if (auto own = raylet()) return own;
    return Status::Unavailable("not connected to the raylet");
  }
  MutexLock lock(&mu_);
  if (closed_) return Status(StatusCode::kFailedPrecondition, "this process is shutting down");
  if (dead_nodes_.contains(node)) return Status::Unavailable("node " + node.Hex() + " is dead");
  auto& slot = raylets_[node];
  if (slot == nullptr || slot->closed()) slot = tunnels_->Connect({node, WorkerId::Nil()});
  return slot;
}

void PeerPool::SetNode(const NodeId& self, std::shared_ptr<rpc::TunnelHub> tunnels) {
  node_ = self;
  tunnels_ = std::move(tunnels);
}

Result<rpc::ConnectionPtr> PeerPool::ReplyRoute(const Address& peer) {
  {
    MutexLock lock(&mu_);
    if (auto it = incoming_.find(peer.worker_id); it != incoming_.end() && !it->second->closed()) return it->second;
  }
  return Get(peer);
}

void PeerPool::Adopt(const Address& peer, const rpc::ConnectionPtr& incoming) {
  {
    MutexLock lock(&mu_);
    if (closed_ || peer.worker_id.IsNil() || dead_.contains(peer.worker_id)) return;
    auto& slot = incoming_[peer.worker_id];
    if (slot == incoming) return;
    slot = incoming;
    if (IsRemote(peer)) remote_[peer.worker_id] = peer.node_id;
  }
  ForgetOnClose(peer.worker_id, incoming);
}

void PeerPool::SetRaylet(rpc::ConnectionPtr raylet) {
  MutexLock lock(&mu_);
  raylet_ = std::move(raylet);
}

rpc::ConnectionPtr PeerPool::raylet() const {
  MutexLock lock(&mu_);
  return raylet_;
}

void PeerPool::MarkDead(const WorkerId& worker) {
  std::vector<rpc::ConnectionPtr> ended;
  std::vector<DeathHandler> handlers;
  {
    MutexLock lock(&mu_);
    if (!dead_.insert(worker)) return;
    remote_.erase(worker);
    for (auto* connections : {&outgoing_, &incoming_}) {
      if (auto node = connections->extract(worker)) ended.push_back(std::move(node.mapped()));
    }
    handlers = handlers_;
    if (!ended.empty()) last_words_.insert(worker);
  }
  if (!ended.empty()) {
    loop_->AddTimer(kLastWords, [pool = weak_from_this(), worker, ended = std::move(ended)] {
      for (const auto& connection : ended) connection->Close(Status::Unavailable("the worker has died"));
      const auto self = pool.lock();
      if (self == nullptr) return;
      {
        MutexLock lock(&self->mu_);
        self->last_words_.erase(worker);
      }
      self->RunAfterLastWords();
    });
  }
  for (const auto& handler : handlers) handler(worker);
  RunAfterLastWords();
}

void PeerPool::AfterLastWords(const Address& process, std::function<void()> then) {
  LastWords words{process, std::move(then)};
  bool silent;
  {
    MutexLock lock(&mu_);
    silent = IsSilent(words);
    if (!silent) after_.push_back(std::move(words));
  }
  if (silent) return words.then();
  loop_->AddTimer(kLastWords, [pool = weak_from_this(), process] {
    const auto self = pool.lock();
    if (self == nullptr) return;
    {
      MutexLock lock(&self->mu_);
      for (LastWords& words : self->after_) words.waited = words.waited || words.process == process;
    }
    self->RunAfterLastWords();
  });
}

bool PeerPool::IsSilent(const LastWords& words) const {
  const Address& process = words.process;
  if (last_words_.contains(process.worker_id)) return false;
  if (dead_.contains(process.worker_id) || dead_nodes_.contains(process.node_id)) return true;
  const auto raylet = process == RayletAsProcess(process.node_id) ? raylets_.find(process.node_id) : raylets_.end();
  return words.waited && !outgoing_.contains(process.worker_id) && !incoming_.contains(process.worker_id) &&
         (raylet == raylets_.end() || raylet->second->closed());
}

void PeerPool::RunAfterLastWords() {
  std::list<LastWords> due;
  {
    MutexLock lock(&mu_);
    for (auto it = after_.begin(); it != after_.end();) {
      const auto words = it++;
      if (IsSilent(*words)) due.splice(due.end(), after_, words);
    }
  }
  for (const LastWords& words : due) words.then();
}

void PeerPool::Watch(const Address& process) {
  if (process.node_id.IsNil() || process.node_id == node_) return;
  const rpc::ConnectionPtr own = raylet();
  if (own == nullptr) return;
  v1::WatchProcessNotice notice;
  ToProto(process, notice.mutable_process());
  own->Notify(MethodId::kWatchProcess, notice);
}

bool PeerPool::IsDead(const WorkerId& worker) const {
  MutexLock lock(&mu_);
  return dead_.contains(worker);
}

bool PeerPool::IsDead(const Address& peer) const {
  MutexLock lock(&mu_);
  return dead_.contains(peer.worker_id) || dead_nodes_.contains(peer.node_id);
}

std::vector<WorkerId> PeerPool::WorkersOf(const NodeId& node) const {
  std::vector<WorkerId> workers;
  MutexLock lock(&mu_);
  for (const auto& [worker, where] : remote_) {
    if (where == node) workers.push_back(worker);
  }
  return workers;
}

void PeerPool::MarkNodeDead(const NodeId& node) {
  std::vector<NodeDeathHandler> handlers;
  rpc::ConnectionPtr raylet;
  {
    MutexLock lock(&mu_);
    if (!dead_nodes_.insert(node)) return;
    if (auto it = raylets_.extract(node)) raylet = std::move(it.mapped());
    handlers = node_handlers_;
  }
  if (raylet != nullptr) raylet->Close(Status::Unavailable("node " + node.Hex() + " is dead"));
  for (const WorkerId& worker : WorkersOf(node)) MarkDead(worker);
  for (const auto& handler : handlers) handler(node);
  RunAfterLastWords();
}

void PeerPool::OnNodeDied(NodeDeathHandler handler) {
  MutexLock lock(&mu_);
  node_handlers_.push_back(std::move(handler));
}

void PeerPool::OnWorkerDied(DeathHandler handler) {
  MutexLock lock(&mu_);
  handlers_.push_back(std::move(handler));
}

void PeerPool::Close() {
  std::vector<rpc::ConnectionPtr> open;
  {
    MutexLock lock(&mu_);
    closed_ = true;
    for (auto* connections : {&outgoing_, &incoming_}) {
      for (auto& [worker, connection] : *connections) open.push_back(std::move(connection));
      connections->clear();
    }
    for (auto& [node, connection] : raylets_) open.push_back(std::move(connection));
    raylets_.clear();
  }
  for (const auto& connection : open) connection->Close(Status::Cancelled("this process is shutting down"));
}

void PeerPool::Forget(const WorkerId& worker, const rpc::Connection* connection) {
  rpc::ConnectionPtr last;  // dies outside the lock
  {
    MutexLock lock(&mu_);
    for (auto* connections : {&outgoing_, &incoming_}) {
      auto it = connections->find(worker);
      if (it != connections->end() && it->second.get() == connection) {
        last = std::move(it->second);
        connections->erase(it);
      }
    }
  }
  RunAfterLastWords();
}

void PeerPool::ForgetOnClose(const WorkerId& worker, const rpc::ConnectionPtr& connection) {
  connection->OnClose([pool = weak_from_this(), worker, raw = connection.get()](const Status&) {
    if (auto self = pool.lock()) self->Forget(worker, raw);
  });
}

}  // namespace ray::core
