#include "ray/object_manager/table/remote_owners.h"

#include <algorithm>

namespace ray::object_manager {

RemoteOwners::Noted RemoteOwners::Note(const WorkerId& owner, const NodeId& node) {
  if (dead_.contains(owner) || dead_nodes_.contains(node)) return Noted::kDead;
  return nodes_.insert_or_assign(owner, node).second ? Noted::kNew : Noted::kKnown;
}

void RemoteOwners::OnWorkerDied(const WorkerId& owner) {
  dead_.insert(owner);
  nodes_.erase(owner);
}

std::vector<WorkerId> RemoteOwners::OnNodeDied(const NodeId& node) {
  dead_nodes_.insert(node);
  std::vector<WorkerId> owners;
  for (const auto& [owner, its_node] : nodes_) {
    if (its_node == node) owners.push_back(owner);
  }
  for (const WorkerId& owner : owners) nodes_.erase(owner);
  std::ranges::sort(owners);
  return owners;
}

NodeId RemoteOwners::NodeOf(const WorkerId& owner) const {
  const auto it = nodes_.find(owner);
  return it == nodes_.end() ? NodeId() : it->second;
}

}  // namespace ray::object_manager
