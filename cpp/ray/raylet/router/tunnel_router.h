// TunnelRouter: passes the envelopes of tunnels on: from the node's processes to the links, and from the links to the processes. It does not look into them.
//
// What comes over a link is passed on by the thread that received it, so that a call to another node costs one wake-up less in each direction: hence the lock. What
// leaves the node goes through the loop, which owns the links. It also tells processes what they cannot see: that their peer has ended, or that the way to it broke.
// Envelopes for a node whose link may still come up by itself wait for it a while. Owned by NodeServices.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "ray/async/loop.h"
#include "ray/raylet/deaths/met_nodes.h"
#include "ray/raylet/nodes/node_directory.h"
#include "ray/raylet/router/tunnel_routes.h"
#include "ray/rpc/core/dispatcher.h"
#include "ray/rpc/tunnel/tunnel_hub.h"
#include "ray/util/mutex.h"
#include "ray/util/recent_set.h"
#include "ray/v1/tunnel.pb.h"

namespace ray::raylet {

struct TunnelRouterConfig {
  Duration patience = std::chrono::seconds(5);  // how long envelopes wait for a link that may come up by itself
  size_t max_waiting_bytes = size_t{64} << 20;  // for one node; beyond, channels are closed
};

class TunnelRouter {
 public:
  struct Deps {
    async::Loop* loop;
    NodeId self;
    NodeDirectory* nodes;
  };
  // Registers its handlers with `nodes`.
  TunnelRouter(Deps deps, TunnelRouterConfig config);
  ~TunnelRouter();
  // kTunnel, kTunnelClosed.
  void RegisterHandlers(rpc::Dispatcher* dispatcher);
  // The raylet's own end of tunnels. Before the first message.
  void SetHub(std::shared_ptr<rpc::TunnelHub> hub) { hub_ = std::move(hub); }
  // What that hub sends. On the loop.
  void SendOwn(MethodId method, std::string_view control, const PartList& parts);

  // A worker or driver of this node is there / has ended; all that it said has been passed on. On the loop.
  void AddProcess(const WorkerId& worker, const rpc::ConnectionPtr& connection);
  // The answer: the nodes that it has met, as of MetNodes.
  std::optional<std::vector<NodeId>> RemoveProcess(const WorkerId& worker, const std::string& detail);
  // The end of that process of this node is to be told to that node, too. False: it has ended. Any thread.
  bool Meet(const WorkerId& worker, const NodeId& node);

 private:
  struct Waiting {
    MethodId method;
    std::string control;
    PartList parts;
  };
  struct Queue {
    std::deque<Waiting> messages;
    size_t bytes = 0;
    async::TimerId timer = 0;
  };
  template <typename Message>
  void Route(const Message& message, MethodId method, const rpc::Request& request);
  // To another node. On the loop.
  void SendOut(MethodId method, const Address& to, std::string_view control, const PartList& parts);
  // To a process of this node, or the raylet. False: there is no such process.
  bool Deliver(const WorkerId& to, MethodId method, std::string_view control, const PartList& parts) EXCLUDES(mu_);
  void Park(const NodeId& node, MethodId method, std::string_view control, const PartList& parts);
  void ServeWaiting(const NodeId& node);
  // Answers those who wait for that node.
  void FailWaiting(const NodeId& node, v1::TunnelCause cause, const std::string& reason);
  void Bounce(const Waiting& message, v1::TunnelCause cause, const std::string& reason);
  void CloseRoutes(const NodeId& node, v1::TunnelCause cause, const std::string& reason);

  const Deps deps_;
  const TunnelRouterConfig config_;
  std::shared_ptr<rpc::TunnelHub> hub_;
  std::map<NodeId, Queue> waiting_;  // on the loop

  Mutex mu_;
  std::unordered_map<WorkerId, rpc::ConnectionPtr, IdHash> processes_ GUARDED_BY(mu_);
  std::unordered_map<uint64_t, WorkerId> by_connection_ GUARDED_BY(mu_);
  RecentSet<NodeId, IdHash> dead_ GUARDED_BY(mu_);  // what they still say is not passed on
  TunnelRoutes routes_ GUARDED_BY(mu_);
  MetNodes met_ GUARDED_BY(mu_);                                // of processes_
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);  // on the loop; for posts
};

}  // namespace ray::raylet
