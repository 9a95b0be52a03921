#include "ray/raylet/drain/evacuation.h"

#include <algorithm>
#include <set>
#include <string>
#include <utility>

#include "ray/util/logging.h"
#include "ray/v1/worker_object.pb.h"

namespace ray::raylet {
namespace {

constexpr size_t kBatch = 1000;  // objects of one question

}  // namespace

// Ends with the last who still has something to say.
struct Evacuation::Pass {
  explicit Pass(std::function<void(size_t)> d) : done(std::move(d)) {}
  ~Pass() { done(left); }
  std::function<void(size_t)> done;
  size_t left = 0;
};

void Evacuation::Run(std::function<void(size_t)> done) {
  auto pass = std::make_shared<Pass>([alive = alive_, done = std::move(done)](size_t left) {
    if (*alive) done(left);
  });
  deps_.objects->ListPrimary([this, alive = alive_, pass = std::move(pass)](Copies copies) mutable {
    deps_.loop->Post("raylet.evacuate", [this, alive, copies = std::move(copies), pass = std::move(pass)] {
      if (*alive) Assign(copies, pass);
    });
  });
}

void Evacuation::Assign(const Copies& copies, const std::shared_ptr<Pass>& pass) {
  std::vector<Target> targets = deps_.targets();
  if (targets.empty()) return;  // nobody stays who could take them
  std::map<std::pair<WorkerId, NodeId>, std::pair<Address, std::vector<ObjectId>>> batches;
  for (const auto& copy : copies) {
    if (copy.owner.node_id.IsNil() || copy.owner.node_id == deps_.self) {
      // What this node has adopted, as the head, ends with it; what a worker owns is handed over when that leaves.
      const bool stays = deps_.is_local_driver(copy.owner.worker_id) || copy.owner.worker_id == RayletAsProcess(deps_.self).worker_id;
      if (!stays) ++pass->left;
      continue;
    }
    // To whoever has most room; a store that is full spills.
    Target& target = *std::ranges::max_element(targets, {}, &Target::free_bytes);
    target.free_bytes -= std::min(target.free_bytes, copy.size);
    auto& [owner, ids] = batches[{copy.owner.worker_id, target.node}];
    owner = copy.owner;
    ids.push_back(copy.id);
    if (ids.size() < kBatch) continue;
    Ask(owner, target.node, ids, pass);
    ids.clear();
  }
  for (const auto& [key, batch] : batches) {
    if (!batch.second.empty()) Ask(batch.first, key.second, batch.second, pass);
  }
}

void Evacuation::Ask(const Address& owner, const NodeId& target, const std::vector<ObjectId>& ids, const std::shared_ptr<Pass>& pass) {
  rpc::ConnectionPtr& connection = owners_[owner.worker_id];
  if (connection == nullptr || connection->closed()) {
    connection = owner == RayletAsProcess(owner.node_id) ? deps_.link(owner.node_id) : deps_.connect(owner);
  }
  if (connection == nullptr) {  // it is dead, and so is what it owned; or the next pass reaches it
    pass->left += ids.size();
    return;
  }
  v1::MoveCopiesRequest request;
  request.set_node_id(deps_.self.Binary());
  request.set_target_node_id(target.Binary());
  for (const NodeId& node : deps_.leaving()) request.add_leaving_node_ids(node.Binary());
  for (const ObjectId& id : ids) request.add_object_ids(id.Binary());
  rpc::CallOptions options;
  options.timeout = deps_.answer_timeout;
  rpc::CallTyped<v1::MoveCopiesReply>(
      *connection, MethodId::kMoveCopies, request, {},
      [this, alive = alive_, pass, ids](const Status& status, v1::MoveCopiesReply& reply, PartList) {
        if (!*alive) return;
        if (!status.ok()) {
          RAY_LOG(WARNING) << ids.size() << " object(s) are still only here: " << status.ToString();
          pass->left += ids.size();
          return;
        }
        const std::set<std::string> not_moved(reply.not_moved().begin(), reply.not_moved().end());
        pass->left += not_moved.size();
        std::vector<ObjectId> moved;
        for (const ObjectId& id : ids) {
          if (!not_moved.contains(id.Binary())) moved.push_back(id);
        }
        deps_.objects->Unkeep(std::move(moved));
      },
      options);
}

}  // namespace ray::raylet
