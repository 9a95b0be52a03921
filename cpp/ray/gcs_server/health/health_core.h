// HealthCore: decides that a node is dead. A raylet holds one link to the GCS; when it closes the node is dead at once, unless it has come
// with a newer link. Pure; owned by NodeService; on the loop.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <utility>

#include "ray/common/ids.h"

namespace ray::gcs {

class HealthCore {
 public:
  // The node registered over this link. True if the link is new to it: its end is to be reported with LinkDown.
  bool LinkUp(const NodeId& node, uint64_t link) {
    auto [it, is_new] = links_.try_emplace(node, link);
    return std::exchange(it->second, link) != link || is_new;
  }
  // True if the node is dead by that.
  bool LinkDown(const NodeId& node, uint64_t link) {
    auto it = links_.find(node);
    if (it == links_.end() || it->second != link) return false;
    links_.erase(it);
    return true;
  }
  // It left in good order: the end of its link says nothing new.
  void Left(const NodeId& node) { links_.erase(node); }
  std::optional<uint64_t> LinkOf(const NodeId& node) const {
    auto it = links_.find(node);
    if (it == links_.end()) return std::nullopt;
    return it->second;
  }

 private:
  std::map<NodeId, uint64_t> links_;  // of nodes that are alive
};

}  // namespace ray::gcs
