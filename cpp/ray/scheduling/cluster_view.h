// ClusterView: what a scheduler knows of the cluster's nodes, and the search for nodes that fit.
//
// The view is what nodes reported last, less what was placed on them since; it may be wrong, and whoever it sends somewhere may be sent back.
//
// Problem: a decision must not cost more because there are more nodes. So for each shape of request (resources and labels) that is asked for often there is a
// *lens*: the set of nodes that could ever serve it and the set of those that have room now. Each change of a node is noted in a ring; a lens catches up with
// what was noted since it was used last, so that a shape which nobody asks for costs nothing. A search walks through a lens from a random place: it looks at
// nodes that fit and at no others. Costs, with N nodes: a change O(1), and for each lens in use O(log N) with base 64, once; a search for k nodes O(k + log N); the
// next one in turn and "is there any", O(log N).
//
// A lens costs N looks to build. It is built when searches without it, which look at a run of nodes from a random place, have looked at as many. Where such a
// run finds nothing, *ladders* show the nodes that have enough of the scarcest resource: what is free of it on each, and the largest of each eight and so on, kept like
// lenses. So shapes that come only once cost O(log N), too, as long as one resource is what is lacking; only where each is there, but nowhere together, a lens is built for
// them. That nothing was found is remembered, without a lens, too, until some node has more than before.
// Pure value; owned by a core or shared by the cores of one process; not thread-safe.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "ray/common/ids.h"
#include "ray/common/resources.h"
#include "ray/scheduling/labels.h"
#include "ray/scheduling/slot_index.h"
#include "ray/scheduling/slot_max.h"
#include "ray/scheduling/slot_set.h"

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
  enum class Fit { kNow /* it is free */, kEver /* the totals cover it */ };
  struct Amount {  // of one resource
    const std::string* name;
    int64_t total = 0, free = 0;
  };
  // Two lines of the cache, the amounts in a third: a view of thousands of nodes is looked through and written to all the time, and each node has some names to itself.
  struct alignas(64) Node {
    NodeId id;
    uint32_t generation = 0;  // of the place in the view, which others have when it has left
    uint64_t version = 0;
    std::vector<Amount> amounts;  // of its total, in the order of names. The names are the view's
    Labels labels;
    bool draining = false;

    ResourceSet total() const;
    ResourceSet available() const;
    const Amount* Find(std::string_view resource) const;  // null: it has none in total
    bool Covers(const ResourceSet& need, Fit fit) const;
  };
  // Names a node as long as it is there. Default: none.
  struct Handle {
    uint32_t slot = UINT32_MAX;
    uint32_t generation = 0;
  };

  explicit ClusterView(uint64_t seed = 1) : random_(seed), begin_(~seed) {}

  // Replaces what is known of a node; older news are ignored (false), and so are those of the same version that say nothing new but what is
  // free. What of `available` has no name in `total` counts for nothing. A draining node is never found.
  bool Set(const NodeId& id, const ResourceSet& total, const ResourceSet& available, Labels labels, uint64_t version,
           bool draining = false);
  bool SetAvailable(const NodeId& id, const ResourceSet& available, uint64_t version);
  Handle HandleOf(const NodeId& id) const;
  // As SetAvailable: what is taken of each item of its total, in the same order; of another number of items, or of a node that has left: false.
  bool SetTaken(Handle node, std::span<const int64_t> taken, uint64_t version);
  void Remove(const NodeId& id);
  // What was placed counts until the node's next report; what failed to be placed counts no longer. Unknown nodes are fine.
  void Take(const NodeId& id, const ResourceSet& need);
  void GiveBack(const NodeId& id, const ResourceSet& need);

  const Node* Find(const NodeId& id) const;
  size_t size() const { return index_.size(); }
  // In the order in which they joined, save that one which joins takes the place of one that has left.
  template <typename F>
  void ForEach(F visit) const {
    for (const Node& node : slots_) {
      if (!node.id.IsNil()) visit(node);
    }
  }
  // All nodes together: of everything (costs as much as there are resources), or of one resource.
  ResourceSet Total() const;
  int64_t TotalOf(std::string_view resource) const;
  // Grows whenever some node may serve what it could not serve before.
  uint64_t epoch() const { return epoch_; }
  // Those that some node has of this label, in order, with how many nodes have it.
  const std::map<std::string, size_t>& LabelValues(std::string_view key) const;
  // Nodes without GPUs: work that needs none goes there first.
  size_t num_without_gpu() const { return num_without_gpu_; }
  SplitMix& random() { return random_; }  // for those who decide: searches have one of their own

  // What a search asks of a node.
  struct Want {
    const ResourceSet* need;
    const LabelSelector* labels = nullptr;  // null: any
    const std::set<NodeId>* except = nullptr;
  };
  bool Fits(const Node& node, const Want& want, Fit fit) const;

  // Which nodes are better: those with GPUs come last if they are `shunned`; then the less used ones, where all below `threshold` are equal.
  struct Order {
    bool shun_gpus = false;
    double threshold = 0;
  };
  static bool Shunned(uint64_t rank) { return rank >> 63 != 0; }  // it is that of a node with GPUs
  struct Found {
    const Node* node;  // until the view changes
    uint64_t rank;     // in that order, the lowest is the best; 0: none is better
    bool shunned() const { return Shunned(rank); }
  };
  uint64_t RankOf(const Node& node, const Order& order) const;
  struct Extent {
    size_t limit;       // so many at most
    size_t enough = 0;  // > 0: so many of rank 0 will do
    size_t least = 1;   // so many, if that many fit; further ones only if they cost little
  };
  // Nodes that fit. All of them, if they are few, in the order in which they joined; else a run from a random place.
  std::vector<Found> Search(const Want& want, Fit fit, const Extent& extent, const Order& order);
  std::vector<Found> Search(const Want& want, Fit fit, const Extent& extent) { return Search(want, fit, extent, Order()); }
  bool Any(const Want& want, Fit fit) { return !Search(want, fit, Extent{1}).empty(); }
  // Whether more than `limit` nodes fit, those of `except` included.
  bool HasMoreThan(const Want& want, Fit fit, size_t limit);
  // The first one that fits behind `after` in a ring of all nodes; null: none.
  const Node* Next(const Want& want, Fit fit, const NodeId& after);

 private:
  using Slot = uint32_t;
  static constexpr Slot kNone = SlotIndex::kNone;
  // What of one resource nodes have in total.
  struct Totals {
    int64_t sum = 0;
    std::map<int64_t, size_t> of_nodes;  // amount -> how many have it
  };
  struct Shape {
    ResourceSet need;
    LabelSelector labels;
  };
  struct ShapeHash {
    using is_transparent = void;
    size_t operator()(const Shape& shape) const;
    size_t operator()(const Want& want) const;
  };
  struct ShapeEqual {
    using is_transparent = void;
    bool operator()(const Shape& a, const Shape& b) const { return a.need == b.need && a.labels == b.labels; }
    bool operator()(const Want& a, const Shape& b) const;
    bool operator()(const Shape& a, const Want& b) const { return (*this)(b, a); }
  };
  struct Lens {
    SlotSet ever, now;  // nodes that fit, by Fit
    uint64_t seen = 0;  // changes up to this one are in it
    uint64_t used_at = 0;
    const SlotSet& Of(Fit fit) const { return fit == Fit::kNow ? now : ever; }
  };
  struct Ladder {  // of a resource
    SlotMax free;
    uint64_t seen = 0;
  };
  struct Known {  // of a shape
    std::unique_ptr<Lens> lens;
    size_t looks = 0;           // that searches without a lens have cost
    uint64_t in_vain_now = 0;   // nothing was found, as of this epoch
    uint64_t in_vain_ever = 0;  // the same, of the totals
    uint64_t& InVain(Fit fit) { return fit == Fit::kNow ? in_vain_now : in_vain_ever; }
  };

  void Link(Slot slot, const ResourceSet& total, const ResourceSet& available);
  void Unlink(Slot slot);
  Slot SlotOf(const NodeId& id) const {  // kNone: it is not there
    return index_.Find(id.Hash(), [&](Slot slot) { return slots_[slot].id == id; });
  }
  Slot SlotOf(const Node& node) const { return static_cast<Slot>(&node - slots_.data()); }
  void SetFree(Slot slot, const ResourceSet& available, uint64_t version);
  // Adds `need`, or takes it, of what the node has.
  void Change(const NodeId& id, const ResourceSet& need, bool take);
  // By what the node has free now.
  void Rank(Slot slot, bool has_gpu);
  // What is free on a node has changed. `more`: it may serve what it could not serve before.
  void OnAvailable(Slot slot, bool more);
  void Note(Slot slot, bool structural);
  uint64_t EpochOf(Fit fit) const { return fit == Fit::kNow ? epoch_ : totals_epoch_; }
  // Whether no node has that much of some resource.
  bool BeyondTotals(const Want& want) const;
  // What is known of the shape; null: nothing can fit.
  Known* Remember(const Want& want);
  // Up to date; null: there is none yet, and it is not worth it.
  Lens* LensOf(Known* known, const Want& want);
  Lens* Build(Known* known, const Want& want);
  void Refresh(Lens* lens, const Want& want, Slot slot, bool structural);
  void DropOldestLens();
  // Up to date.
  SlotMax* LadderOf(const std::string& resource);
  // Visits nodes that have room, from a random one on, until `visit` returns true. True: it did, or there are no others; false: that is not known.
  template <typename F>
  bool Climb(const Want& want, F visit);
  // The first that fits of the `looks` slots from `from` on, and so on: `visit` returns true to end it.
  template <typename F>
  void LookAround(const Want& want, Fit fit, Slot from, size_t looks, F visit) const;

  std::vector<Node> slots_;  // free ones have a nil id
  std::vector<uint64_t>
      rank_;  // of each slot: whether it has GPUs, and how much of it is used; close together, since searches compare many
  std::vector<Slot> free_;
  SlotIndex index_;                                                             // of nodes, by their ids
  std::map<std::string, Totals, std::less<>> by_resource_;                      // the names in nodes' amounts are its keys
  std::map<std::string, std::map<std::string, size_t>, std::less<>> by_label_;  // key -> value -> how many nodes
  // The last changes: slot, and whether more than what is free has changed. Number i is at i modulo the size, which is a power of two.
  std::vector<std::pair<Slot, bool>> changes_;
  uint64_t change_ = 0;        // how many there were
  uint64_t oldest_noted_ = 0;  // those after this one are in the ring
  std::unordered_map<Shape, Known, ShapeHash, ShapeEqual> known_;
  std::map<std::string, Ladder, std::less<>> ladders_;
  size_t num_lenses_ = 0;
  uint64_t searches_ = 0;
  uint64_t epoch_ = 1;
  uint64_t totals_epoch_ = 1;  // grows when some node has more in total, or other labels
  size_t num_without_gpu_ = 0;
  SplitMix random_;
  SplitMix begin_;  // where searches do
};

}  // namespace ray::scheduling
