// PeerPool: the connections of this process to other workers and drivers, one per peer, made when first needed: a Unix socket to those of its node,
// a tunnel to those of others.
//
// Also knows who is dead: a worker whose death was told is refused at once, and death handlers run. Ownership hand-over needs an order across the
// two directions: what we tell a peer after a reply to it has to arrive after that reply, and replies leave on the connection that the *peer*
// opened. So incoming connections are adopted once their peer is known, and ReplyRoute prefers them.
// Thread-safe. Handlers and OnClose run on the loop; nothing is called with the lock held.
#pragma once

#include <functional>
#include <list>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "ray/async/loop.h"
#include "ray/common/address.h"
#include "ray/common/socket_name.h"
#include "ray/rpc/core/connection.h"
#include "ray/rpc/tunnel/tunnel_hub.h"
#include "ray/util/mutex.h"
#include "ray/util/recent_set.h"

namespace ray::core {

// Opens a connection to the socket of that name in the session's folder, or says why not. Does not block for long (a Unix connect).
using Connector = std::function<Result<rpc::ConnectionPtr>(const std::string& socket_name)>;
using DeathHandler = std::function<void(const WorkerId& worker)>;

class PeerPool : public std::enable_shared_from_this<PeerPool> {
 public:
  // `loop` runs the delayed closing of MarkDead.
  static std::shared_ptr<PeerPool> Make(Connector connector, async::Loop* loop);

  // The connection that we opened to the peer, opening it now if there is none. UNAVAILABLE when it is dead or does not answer;
  // FAILED_PRECONDITION after Close.
  Result<rpc::ConnectionPtr> Get(const Address& peer);
  // Like Get, but the connection that the peer opened to us where one lives: frames on it follow the replies that we sent it.
  Result<rpc::ConnectionPtr> ReplyRoute(const Address& peer);
  // Tells that `incoming` was opened by `peer`. Handlers of requests that name their sender call it (PushTask, GetObject, AddBorrowers)
  // before they answer. Cheap when known.
  void Adopt(const Address& peer, const rpc::ConnectionPtr& incoming);

  // This process's node, and its way to others. Before that, and for addresses without a node, every peer is on this one. Once, before other threads come.
  void SetNode(const NodeId& self, std::shared_ptr<rpc::TunnelHub> tunnels);
  bool IsRemote(const Address& peer) const { return tunnels_ != nullptr && !peer.node_id.IsNil() && peer.node_id != node_; }
  // The raylet of that node: ours, or by a tunnel. UNAVAILABLE when the node is dead.
  Result<rpc::ConnectionPtr> GetRaylet(const NodeId& node);

  void SetRaylet(rpc::ConnectionPtr raylet);
  // Null before SetRaylet.
  rpc::ConnectionPtr raylet() const;

  // The worker has ended (kWorkerDied): it is refused from now on, handlers run here and now. Its connections get a second to deliver
  // what it said last, then they are closed, in case a child of it still holds its sockets open. Idempotent.
  void MarkDead(const WorkerId& worker);
  // For one who was told, by another, that the process is dead: once nothing that it sent can come any more. Its death need not have been heard of here, nor
  // be remembered: then that is once it has no connection here, and a second has passed in which one could have come. `then` may run at once, on this
  // thread; else on the loop, or where its death was told.
  void AfterLastWords(const Address& process, std::function<void()> then);
  // MarkDead is to be called when that process ends, which need never have met this node. Those of this node are told of anyway.
  void Watch(const Address& process);
  bool IsDead(const WorkerId& worker) const;
  bool IsDead(const Address& peer) const;
  // The node has died (kNodeDied): so have all its processes that are known here, as by MarkDead, and it is refused from now on. Idempotent.
  void MarkNodeDead(const NodeId& node);
  // Known processes of that node that are not dead.
  std::vector<WorkerId> WorkersOf(const NodeId& node) const;
  using NodeDeathHandler = std::function<void(const NodeId& node)>;
  // As OnWorkerDied; runs after those of the node's workers.
  void OnNodeDied(NodeDeathHandler handler);
  // REQUIRES: before the first MarkDead. Run in the order of registration.
  void OnWorkerDied(DeathHandler handler);

  // Closes all but the raylet's; later Gets fail.
  void Close();

 private:
  PeerPool(Connector connector, async::Loop* loop) : connector_(std::move(connector)), loop_(loop) {}
  // Connects to a peer on another node.
  Result<rpc::ConnectionPtr> Tunnel(const Address& peer);
  void Forget(const WorkerId& worker, const rpc::Connection* connection);
  struct LastWords {
    Address process;
    std::function<void()> then;
    bool waited = false;  // kLastWords
  };
  // Whether nothing can come any more from what is dead.
  bool IsSilent(const LastWords& words) const REQUIRES(mu_);
  // Those who wait for that.
  void RunAfterLastWords();
  void ForgetOnClose(const WorkerId& worker, const rpc::ConnectionPtr& connection);

  const Connector connector_;
  async::Loop* const loop_;
  NodeId node_;                              // constant after SetNode
  std::shared_ptr<rpc::TunnelHub> tunnels_;  // the same
  mutable Mutex mu_;
  std::unordered_map<WorkerId, rpc::ConnectionPtr, IdHash> outgoing_ GUARDED_BY(mu_);
  std::unordered_map<WorkerId, rpc::ConnectionPtr, IdHash> incoming_ GUARDED_BY(mu_);
  RecentSet<WorkerId, IdHash> dead_ GUARDED_BY(mu_);
  std::vector<DeathHandler> handlers_ GUARDED_BY(mu_);
  std::vector<NodeDeathHandler> node_handlers_ GUARDED_BY(mu_);
  std::unordered_map<WorkerId, NodeId, IdHash> remote_ GUARDED_BY(mu_);  // known processes of other nodes, until they die
  RecentSet<NodeId, IdHash> dead_nodes_ GUARDED_BY(mu_);
  std::unordered_map<NodeId, rpc::ConnectionPtr, IdHash> raylets_ GUARDED_BY(mu_);  // of other nodes
  std::unordered_set<WorkerId, IdHash> last_words_ GUARDED_BY(mu_);                 // dead ones whose connections are still open
  std::list<LastWords> after_ GUARDED_BY(mu_);                                      // what AfterLastWords was called with
  rpc::ConnectionPtr raylet_ GUARDED_BY(mu_);
  bool closed_ GUARDED_BY(mu_) = false;
};

}  // namespace ray::core
