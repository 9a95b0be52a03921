// Which node a task or actor goes to. Pure, over a ClusterView; used by raylets (leases) and the GCS (actors).
//
// Default: the preferred node while less than half of its busiest resource is in use and it has room; else one of the best few that have, where
// all below half count as equally good. Work without GPUs avoids nodes that have them. Spread: in turn. A raylet binds also
// to a node without room: views lag, and leases that nobody uses come back while the request waits there. One that kept somebody waiting in vain
// has had its turn, and is passed over until it has room. Affinity and labels narrow the choice. A choice compares a bounded number of nodes, and finding
// them costs O(log N) (see ClusterView).
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "ray/scheduling/cluster_view.h"
#include "ray/wire/task_spec.h"

namespace ray::scheduling {

enum class Strategy { kDefault, kSpread, kNodeAffinity };

struct PlacementRequest {
  ResourceSet need;
  Strategy strategy = Strategy::kDefault;
  NodeId affinity_node;                  // kNodeAffinity
  bool soft = false;                     // kNodeAffinity: others will do where that node is gone or can never run it
  bool spill_on_unavailable = false;     // soft: and while it is full
  bool fail_on_unavailable = false;      // not soft: refused while it is full
  std::vector<LabelSelector> selectors;  // alternatives, in order: the first one that some node fulfils counts; none: any node
  bool stick = false;                    // the preferred node it is as long as it has room, however used
  LabelSelector preferred;               // of those, nodes that fulfil this, too, come first
  friend auto operator<=>(const PlacementRequest&, const PlacementRequest&) = default;
};

// Of the strategy as it travels. What concerns placement groups is left out.
PlacementRequest MakePlacementRequest(ResourceSet need, const SchedulingStrategy& strategy);

struct PolicyConfig {
  double spread_threshold = 0.5;  // share in use below which nodes are equally good. Lower: work spreads earlier
  double top_share = 0.2;  // share of the candidates, best first, among which chance decides: so that many deciders do not hit one node
  size_t candidates = 64;  // nodes compared for one choice
  // Spread: whose turn it is gets the request even if it seems full. For who decides anew when it waited in vain. Else a node that has room may be
  // one turn ahead.
  bool spread_waits_its_turn = false;
};

struct Placement {
  enum Kind {
    kNode,        // `node` has room, as far as is known
    kBind,        // `node` and no other: it waits there if there is no room
    kWait,        // no node has room; some could
    kInfeasible,  // no node could ever run it; `reason`
    kRefused,     // it must not wait; `reason`
  };
  Kind kind = kWait;
  NodeId node;
  std::string reason;  // for people
};

class PlacementPolicy {
 public:
  // `view` must outlive it. `preferred` of Choose: the node that decides, or nil.
  PlacementPolicy(PolicyConfig config, ClusterView* view) : config_(config), view_(view) {}
  // Nodes of `except` have turned it away. What is chosen is not taken from the view.
  Placement Choose(const PlacementRequest& request, const NodeId& preferred, const std::set<NodeId>& except = {});
  // The alternative that counts: null: any node will do; `fulfilled`: some node could run it there.
  const LabelSelector* SelectorOf(const PlacementRequest& request, bool* fulfilled);

 private:
  Placement Affinity(const PlacementRequest& request, const NodeId& preferred, const std::set<NodeId>& except);
  Placement Anywhere(const PlacementRequest& request, const NodeId& preferred, const std::set<NodeId>& except);
  const ClusterView::Node* NextInTurn(const ClusterView::Want& want, const std::set<NodeId>& except);
  const ClusterView::Node* Best(const ClusterView::Want& want, const NodeId& preferred);
  // How many of `count` candidates chance decides among.
  size_t TopOf(size_t count) const;
  std::string Infeasible(const PlacementRequest& request) const;

  const PolicyConfig config_;
  ClusterView* const view_;
  NodeId last_spread_;
  struct Turns {
    uint64_t had = 0;
    bool full = false;  // it turned somebody away, and has had no room since
  };
  std::unordered_map<NodeId, Turns, IdHash> turns_;
};

}  // namespace ray::scheduling
