// Where the bundles of a placement group go. Pure function over a ClusterView.
//
// STRICT_PACK puts all on one node, STRICT_SPREAD each on another one; PACK uses as few nodes as a greedy search finds, SPREAD as many as there are,
// doubling up when there are more bundles. Distinct nodes are found by matching, so a group that can be spread is not missed because one
// bundle took the only node of another.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "ray/scheduling/cluster_view.h"

namespace ray::scheduling {

enum class BundleStrategy { kPack, kSpread, kStrictPack, kStrictSpread };

struct BundleWant {
  ResourceSet need;
  LabelSelector labels;
};

struct BundlePlanRequest {
  BundleStrategy strategy = BundleStrategy::kPack;
  std::vector<BundleWant> bundles;  // to be placed now
  std::vector<NodeId> placed;       // where the others of the group are
  NodeId soft_target;               // STRICT_PACK: this node if it fits; nil: none
  std::string topology_label;       // not empty: all nodes have the same value of this label
};

struct BundlePlan {
  std::vector<NodeId> nodes;  // one for each bundle; empty: it cannot be placed now
  std::string why_not;        // then: for people
  bool feasible = true;       // it could be placed on empty nodes, as far as each bundle alone is concerned
};

// Nothing is taken from the view: the caller does that with what it carries out.
BundlePlan PlanBundles(const BundlePlanRequest& request, ClusterView* view);

}  // namespace ray::scheduling
