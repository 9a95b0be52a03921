// Evacuation: has the owners of objects whose only copy is on this node bring them to other nodes, before it leaves.
//
// Owners know what is still wanted, where else it is, and of which attempt a copy is; so they are asked, and this node chooses where it goes. Objects of
// this node's own workers wait until these have handed them over (core_worker/objects/handover); those of its drivers go with them.
// On the loop only, but for what the store posts to it; owned by NodeServices.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "ray/async/loop.h"
#include "ray/common/address.h"
#include "ray/object_manager/store/store_service.h"
#include "ray/raylet/objects/node_objects.h"
#include "ray/rpc/core/connection.h"

namespace ray::raylet {

class Evacuation {
 public:
  struct Target {
    NodeId node;
    uint64_t free_bytes = 0;  // of its store
  };
  struct Deps {
    async::Loop* loop = nullptr;
    NodeId self;
    NodeObjects* objects = nullptr;
    // Nodes that stay, and those that are about to leave.
    std::function<std::vector<Target>()> targets;
    std::function<std::vector<NodeId>()> leaving;
    std::function<bool(const WorkerId& process)> is_local_driver;
    std::function<rpc::ConnectionPtr(const NodeId& node)> link;
    std::function<rpc::ConnectionPtr(const Address& process)> connect;
    Duration answer_timeout = std::chrono::seconds(60);  // of an owner; what it has not told by then counts as left
  };
  explicit Evacuation(Deps deps) : deps_(std::move(deps)) {}
  ~Evacuation() { *alive_ = false; }
  // One pass. `done(left)`: so many objects have their only copy here still, and could be elsewhere. One pass at a time.
  void Run(std::function<void(size_t left)> done);

 private:
  using Copies = std::vector<object_manager::StoreService::PrimaryCopy>;
  struct Pass;
  void Assign(const Copies& copies, const std::shared_ptr<Pass>& pass);
  void Ask(const Address& owner, const NodeId& target, const std::vector<ObjectId>& ids, const std::shared_ptr<Pass>& pass);

  const Deps deps_;
  std::map<WorkerId, rpc::ConnectionPtr> owners_;  // to those that were asked
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace ray::raylet
