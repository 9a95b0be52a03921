// WatchService: hears of the ends of processes of other nodes that matter to this one, and sees to it that others hear of those here. Shell of the WatchCore.
// On the loop only; owned by NodeServices. docs/architecture/flow-node-death.md, "Who is told".
#pragma once

#include <functional>
#include <memory>

#include "ray/async/loop.h"
#include "ray/async/tick_timer.h"
#include "ray/common/address.h"
#include "ray/raylet/deaths/watch_core.h"
#include "ray/rpc/core/connection.h"
#include "ray/rpc/core/dispatcher.h"
#include "ray/v1/node_link.pb.h"

namespace ray::raylet {

class WatchService {
 public:
  struct Deps {
    async::Loop* loop = nullptr;
    NodeId self;
    // The control link to another raylet; null: it is dead or cannot be reached now.
    std::function<rpc::ConnectionPtr(const NodeId&)> link;
    // The end of that process of this node is to be told to that node. False: it has ended.
    std::function<bool(const WorkerId& worker, const NodeId& node)> meet;
    // It had ended before this node asked.
    std::function<void(const Address& process)> ended;
  };
  explicit WatchService(Deps deps);
  ~WatchService();
  // kWatchProcess, kLinkWatch.
  void RegisterHandlers(rpc::Dispatcher* dispatcher);

  // Its end will be told to this node, or has been. Those of this node, and raylets, need no watching.
  void Watch(const Address& process);
  void OnEnded(const Address& process) { core_.OnEnded(process); }
  void OnNodeDead(const NodeId& node) { core_.OnNodeDead(node); }

 private:
  void HandleWatch(const v1::WatchRequest& message, rpc::Responder responder);
  // Carries out what has gathered.
  void Run();
  void Ask(const AskNode& effect);
  Time Now() const { return deps_.loop->clock().Now(); }

  const Deps deps_;
  WatchCore core_;
  WatchEffects out_;
  bool running_ = false;
  async::TickTimer timer_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);  // for answers
};

}  // namespace ray::raylet
