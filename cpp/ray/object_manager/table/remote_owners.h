// RemoteOwners: which processes of other nodes own objects that were made here.
//
// The death of such a process is told to this node, but no more once the process's own node is dead: then it is known from here which ones ended with it. Pure.
// Owned by StoreService; not thread-safe.
#pragma once

#include <cstddef>
#include <unordered_map>
#include <vector>

#include "ray/common/ids.h"
#include "ray/util/recent_set.h"

namespace ray::object_manager {

class RemoteOwners {
 public:
  enum class Noted {
    kNew,  // its death has to be told to this node from now on
    kKnown,
    kDead,  // the process is dead, and nobody will say so again
  };
  // An object of that process is made here.
  Noted Note(const WorkerId& owner, const NodeId& node);
  void OnWorkerDied(const WorkerId& owner);
  // Those of them that ended with it, in the order of their ids.
  std::vector<WorkerId> OnNodeDied(const NodeId& node);
  // Nil: it is none of them.
  NodeId NodeOf(const WorkerId& owner) const;
  size_t size() const { return nodes_.size(); }

 private:
  std::unordered_map<WorkerId, NodeId, IdHash> nodes_;  // of those that live
  RecentSet<WorkerId, IdHash> dead_;                    // so that objects that come late do not bring them back
  RecentSet<NodeId, IdHash> dead_nodes_;
};

}  // namespace ray::object_manager
