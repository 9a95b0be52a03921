// ClusterView: what a scheduler knows of the cluster's nodes, and the search for nodes that fit.
//
// The view is what nodes reported last, less what was placed on them since; it may be wrong, and whoever it sends somewhere may be sent back.
// Searching costs a bounded number of looks: indexes by resource and by label give the shortest list of candidates; of a long one a run from
// a random place is tried, then the nodes with the most of the resource that the fewest have, as far as they have enough of it. What no node has, or has free, in such
// amount is known without a look. Only where each resource alone is there and a run finds no node with all of them, all nodes are looked at, and that nothing was found is
// remembered for the shape of the request: until some node has more than before, or, for what nodes have in total, until some node's totals change.
// Pure value; owned by a core or shared by the cores of one process; not thread-safe.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "ray/common/ids.h"
#include "ray/common/resources.h"
#include "ray/scheduling/labels.h"

namespace ray::scheduling {

// Small, fast, seeded: choices can be repeated.
class SplitMix {
 public:
  explicit SplitMix(uint64_t seed) : state_(seed) {}
  uint64_t Next();
  uint64_t Below(uint64_t bound) { return bound == 0 ? 0 : Next() % bound; }

 private:
  uint64_t state_;
};

class ClusterView {
 public:
  struct Node {
    NodeId id;
    ResourceSet total, available;
    Labels labels;
    uint64_t version = 0;
    bool draining = false;
    double used = 0;  // largest share of a resource that is in use
    bool has_gpu = false;
  };

  explicit ClusterView(uint64_t seed = 1) : random_(seed) {}

  // Replaces what is known of a node; older news are ignored (false), and so are those of the same version that say nothing new but what is
  // free. A draining node is never found.
  bool Set(const NodeId& id, ResourceSet total, ResourceSet available, Labels labels, uint64_t version, bool draining = false);
  bool SetAvailable(const NodeId& id, ResourceSet available, uint64_t version);
  void Remove(const NodeId& id);
  // What was placed counts until the node's next report; what failed to be placed counts no longer. Unknown nodes are fine.
  void Take(const NodeId& id, const ResourceSet& need);
  void GiveBack(const NodeId& id, const ResourceSet& need);

  const Node* Find(const NodeId& id) const;
  size_t size() const { return slot_of_.size(); }
  const ResourceSet& Total() const { return total_; }
  // Grows whenever some node may serve what it could not serve before.
  uint64_t epoch() const { return epoch_; }
  // In the order of ids.
  template <typename F>
  void ForEach(F visit) const {
    for (const auto& [id, slot] : slot_of_) visit(slots_[slot]);
  }

  // What a search asks of a node.
  struct Want {
    const ResourceSet* need;
    const LabelSelector* labels = nullptr;  // null: any
    const std::set<NodeId>* except = nullptr;
  };
  enum class Fit { kNow /* it is free */, kEver /* the totals cover it */ };
  // Some nodes that fit, at least one if there is one, at most `limit`; a random selection, in no order. `enough.count` nodes that are `good`, too, will do.
  struct Enough {
    std::function<bool(const Node&)> good;
    size_t count = 0;
  };
  std::vector<const Node*> Search(const Want& want, Fit fit, size_t limit, const Enough& enough);
  std::vector<const Node*> Search(const Want& want, Fit fit, size_t limit) { return Search(want, fit, limit, Enough()); }
  // Whether more than `limit` nodes fit, as far as a bounded number of looks tells: false may be wrong, true is not.
  bool HasMoreThan(const Want& want, Fit fit, size_t limit);
  bool Fits(const Node& node, const Want& want, Fit fit) const;
  // The first one that fits behind `after` in a ring of all nodes; null: none.
  const Node* Next(const Want& want, Fit fit, const NodeId& after);
  // Nodes without GPUs: work that needs none goes there first.
  size_t num_without_gpu() const { return num_without_gpu_; }
  SplitMix& random() { return random_; }

 private:
  using Slot = uint32_t;
  struct Index {
    std::set<Slot> slots;                             // nodes that have the resource at all
    std::set<std::pair<int64_t, Slot>> by_available;  // what of it is free
    std::map<int64_t, size_t> totals;                 // what nodes have of it -> how many do
  };
  struct Shape {
    ResourceSet need;
    LabelSelector labels;
    Fit fit;
    friend auto operator<=>(const Shape&, const Shape&) = default;
  };
  // What is known of a shape, as of an epoch.
  struct Known {
    uint64_t in_vain = 0;  // nothing was found
    uint64_t plenty = 0;   // more than `plenty_limit` nodes fit
    size_t plenty_limit = 0;
  };

  void Link(Slot slot);
  void Unlink(Slot slot);
  void Update(Slot slot, const ResourceSet& available);
  static double UsedShare(const Node& node);
  // The smallest set of slots that all fitting nodes are in; null: all nodes. `rarest`: its resource, if it is one's.
  const std::set<Slot>* Candidates(const Want& want, const Index** rarest) const;
  uint64_t EpochOf(Fit fit) const { return fit == Fit::kNow ? epoch_ : totals_epoch_; }
  // Whether some resource is nowhere in such amount.
  bool BeyondAll(const Want& want, Fit fit) const;
  // Whether it is known that none fits.
  bool KnownInVain(const Want& want, Fit fit) const;
  // Null: nothing can be remembered of it.
  Known* Remember(const Want& want, Fit fit);

  std::vector<Node> slots_;
  std::vector<Slot> free_;
  std::map<NodeId, Slot> slot_of_;
  std::set<Slot> all_;
  std::map<std::string, Index, std::less<>> by_resource_;
  std::map<std::pair<std::string, std::string>, std::set<Slot>> by_label_;
  std::map<Shape, Known> known_;
  ResourceSet total_;
  uint64_t epoch_ = 1;
  uint64_t totals_epoch_ = 1;  // grows when some node has more in total, or other labels
  size_t num_without_gpu_ = 0;
  SplitMix random_;
};

}  // namespace ray::scheduling
