// Where an actor goes: choice of a node over the GCS's view. Pure value; part of ActorTableCore.
//
// The view is what raylets reported last, less what was placed since. It may be wrong: the raylet queues what it cannot run yet.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "ray/common/ids.h"
#include "ray/common/resources.h"

namespace ray::gcs {

class PlacementView {
 public:
  // Replaces what is known of the node.
  void Set(const NodeId& node, const ResourceSet& total, const ResourceSet& available) { nodes_[node] = {total, available}; }
  void Remove(const NodeId& node) { nodes_.erase(node); }
  bool Has(const NodeId& node) const { return nodes_.contains(node); }

  struct Wish {
    ResourceSet demand;
    NodeId node;        // nil: any
    bool soft = false;  // with `node`: others will do
  };
  // A node that could ever serve the demand; one that can serve it now where there is one, and of these the one with the smallest share of
  // its resources in use. The demand counts against it until its next report. Nullopt: there is none.
  std::optional<NodeId> Place(const Wish& wish);
  ResourceSet Total() const;

 private:
  struct Node {
    ResourceSet total;
    ResourceSet available;
  };
  static double UsedShare(const Node& node);
  std::map<NodeId, Node> nodes_;
};

}  // namespace ray::gcs
