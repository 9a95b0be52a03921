// MetNodes: which nodes the processes of this node have met, so that the end of one is told to those only.
//
// A node is met when a channel between the process and one of that node is opened from either side, when it asks for the end to be told to it (WatchCore), and when
// the process is leased to one of that node. It stays met, whatever becomes of the channel. Pure.
#pragma once

#include <cstddef>
#include <optional>
#include <set>
#include <unordered_map>
#include <vector>

#include "ray/common/ids.h"

namespace ray::raylet {

class MetNodes {
 public:
  explicit MetNodes(size_t max_nodes = 128) : max_nodes_(max_nodes) {}

  void Meet(const WorkerId& worker, const NodeId& node) {
    std::set<NodeId>& nodes = met_[worker];
    if (nodes.size() <= max_nodes_) nodes.insert(node);
  }
  // It has ended, and is forgotten. In the order of their ids; nullopt: so many that they are not told apart.
  std::optional<std::vector<NodeId>> Ended(const WorkerId& worker) {
    const auto met = met_.extract(worker);
    if (!met) return std::vector<NodeId>();
    if (met.mapped().size() > max_nodes_) return std::nullopt;
    return std::vector<NodeId>(met.mapped().begin(), met.mapped().end());
  }
  size_t size() const { return met_.size(); }

 private:
  const size_t max_nodes_;
  std::unordered_map<WorkerId, std::set<NodeId>, IdHash> met_;  // one node more than max_nodes_: all
};

}  // namespace ray::raylet
