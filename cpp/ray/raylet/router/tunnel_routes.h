// TunnelRoutes: which processes of this node have had a channel with which processes of other nodes, so that the end of one is told to the other. Pure.
#pragma once

#include <map>
#include <set>
#include <unordered_map>
#include <utility>
#include <vector>

#include "ray/common/address.h"

namespace ray::raylet {

class TunnelRoutes {
 public:
  struct Route {
    WorkerId local;  // nil: the raylet
    Address remote;
  };
  // Idempotent. A route stays until one of its ends does not.
  void Add(const WorkerId& local, const Address& remote) {
    if (by_local_[local].emplace(remote.node_id, remote.worker_id).second) by_node_[remote.node_id].emplace(remote.worker_id, local);
  }
  // What that process had routes to.
  std::vector<Address> LocalGone(const WorkerId& local) {
    std::vector<Address> remotes;
    const auto it = by_local_.find(local);
    if (it == by_local_.end()) return remotes;
    for (const auto& [node, worker] : it->second) {
      remotes.push_back({node, worker});
      Erase(&by_node_, node, std::pair(worker, local));
    }
    by_local_.erase(it);
    return remotes;
  }
  void RemoteGone(const WorkerId& local, const Address& remote) {
    Erase(&by_node_, remote.node_id, std::pair(remote.worker_id, local));
    Erase(&by_local_, local, std::pair(remote.node_id, remote.worker_id));
  }
  std::vector<Route> NodeGone(const NodeId& node) {
    std::vector<Route> routes;
    const auto it = by_node_.find(node);
    if (it == by_node_.end()) return routes;
    for (const auto& [worker, local] : it->second) {
      routes.push_back({local, {node, worker}});
      Erase(&by_local_, local, std::pair(node, worker));
    }
    by_node_.erase(it);
    return routes;
  }
  bool empty() const { return by_local_.empty() && by_node_.empty(); }

 private:
  template <typename Map, typename Value>
  static void Erase(Map* map, const typename Map::key_type& key, const Value& value) {
    const auto it = map->find(key);
    if (it == map->end()) return;
    it->second.erase(value);
    if (it->second.empty()) map->erase(it);
  }
  std::unordered_map<WorkerId, std::set<std::pair<NodeId, WorkerId>>, IdHash> by_local_;
  std::map<NodeId, std::set<std::pair<WorkerId, WorkerId>>> by_node_;  // remote worker, local
};

}  // namespace ray::raylet
