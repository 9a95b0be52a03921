// NodeDirectory: the other nodes of the cluster, as the GCS tells of them, and this node's links to them.
//
// Shell of the LinkCore. What is called over a link is served by the dispatcher of the raylet at its other end, by the same handlers as everybody else's calls.
// On the loop only, but for what is marked; owned by NodeServices. Handlers are registered before the first news.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "ray/async/loop.h"
#include "ray/async/tick_timer.h"
#include "ray/common/resources.h"
#include "ray/raylet/nodes/link_core.h"
#include "ray/rpc/core/dial.h"
#include "ray/rpc/core/dispatcher.h"
#include "ray/v1/gcs_node.pb.h"

namespace ray::raylet {

struct NodeDescription {
  NodeId id;
  std::string name, ip, address;  // address: "host:port" of its raylet; empty: it only dials out
  bool is_head = false;
  bool plain_links = false, plain_bulk = false;  // takes control links, bulk links, as frames on plain TCP
  ResourceSet total;
  std::map<std::string, std::string> labels;
};

class NodeDirectory {
 public:
  struct Deps {
    async::Loop* loop;
    NodeId self;
    bool listens;  // others can dial this node
    // Opens a link to "host:port". `plain`: the peer takes those of the lane as frames on plain TCP.
    std::function<rpc::ConnectionPtr(const std::string& address, Lane lane, bool plain, rpc::DialFailed on_failed)> dial;
    // Another raylet says that this node was declared dead, and refuses to speak to it.
    std::function<void(const Status&)> on_refused;
  };
  NodeDirectory(Deps deps, LinkConfig config);
  ~NodeDirectory();
  // kLinkHello.
  void RegisterHandlers(rpc::Dispatcher* dispatcher);

  // CHANNEL_NODE.
  void OnNews(const v1::NodeInfo& node);
  // Closes every link.
  void Close();

  // Alive ones, without this node. Null: unknown or dead.
  const NodeDescription* Find(const NodeId& node) const;
  const std::map<NodeId, NodeDescription>& nodes() const { return nodes_; }
  bool IsDead(const NodeId& node) const { return core_.IsDead(node); }
  // What to send frames on, dialled if need be; usable at once: what is sent on one that is still dialled waits for it. Null: no link now (unknown or dead node, back-off after
  // a failure, a node that dials out and has not done so yet). A link that breaks is not mended: ask again for the next call.
  rpc::ConnectionPtr Link(const NodeId& node) { return Get(node, Lane::kControl); }
  // The same for the chunks of objects, which go over a stream of their own.
  rpc::ConnectionPtr BulkLink(const NodeId& node) { return Get(node, Lane::kBulk); }
  // A link that there is; null: none. Never dials.
  rpc::ConnectionPtr ExistingLink(const NodeId& node) const;
  // Where Link gives null: whether one may come without our doing, as OnLinkUp or OnNodeAdded tells.
  bool MayComeUp(const NodeId& node) const { return core_.MayComeUp(node); }

  using NodeHandler = std::function<void(const NodeDescription& node)>;
  using DeathHandler = std::function<void(const NodeId& node, const std::string& reason)>;
  // A node has joined, or was there when this one came.
  void OnNodeAdded(NodeHandler handler) { added_.push_back(std::move(handler)); }
  // A node has died or left. Its links close after the handlers ran.
  void OnNodeDead(DeathHandler handler) { dead_.push_back(std::move(handler)); }
  // The control link is there again after Link gave null / has broken: what was under way on it may be lost.
  void OnLinkUp(std::function<void(const NodeId& node)> handler) { link_up_.push_back(std::move(handler)); }
  void OnLinkBroke(DeathHandler handler) { link_broke_.push_back(std::move(handler)); }

 private:
  rpc::ConnectionPtr Get(const NodeId& node, Lane lane);
  void Run(LinkEffects effects);
  void Dial(const DialLink& dial);
  void Watch(const NodeId& node, Lane lane, LinkNo link, const rpc::ConnectionPtr& connection);
  void OnDialFailed(const DialLink& dial, const Status& why, std::function<void()> again);
  void OnClosed(const NodeId& node, Lane lane, LinkNo link, const std::string& reason);
  void OnTick();
  Time Now() const { return deps_.loop->clock().Now(); }

  const Deps deps_;
  LinkCore core_;
  std::map<NodeId, NodeDescription> nodes_;
  std::map<NodeId, std::string> reasons_;               // of the deaths that are being told
  std::map<LinkNo, rpc::ConnectionPtr> links_;          // until they have closed
  std::map<LinkNo, std::function<void()>> dial_again_;  // of those that could not be reached; null: it is being dialled again
  std::vector<NodeHandler> added_;
  std::vector<DeathHandler> dead_, link_broke_;
  std::vector<std::function<void(const NodeId&)>> link_up_;
  async::TickTimer timer_;
  bool closed_ = false;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);  // for callbacks that connections keep
};

}  // namespace ray::raylet
