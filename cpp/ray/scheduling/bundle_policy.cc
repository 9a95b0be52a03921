#include "ray/scheduling/bundle_policy.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <optional>

namespace ray::scheduling {
namespace {

constexpr size_t kCandidates = 64;
constexpr std::string_view kGpu = "GPU";

using Fit = ClusterView::Fit;
using Found = ClusterView::Found;
using Node = ClusterView::Node;

bool NeedsGpu(const std::vector<BundleWant>& bundles) {
  return std::any_of(bundles.begin(), bundles.end(), [](const BundleWant& b) { return b.need.Get(kGpu) > 0; });
}

// Better nodes first; of equals the one that was found first.
bool Better(const Found& a, const Found& b) { return a.rank < b.rank; }

class Planner {
 public:
  Planner(const BundlePlanRequest& request, ClusterView* view)
      : request_(request), bundles_(request.bundles), view_(view), order_{!NeedsGpu(request.bundles)}, nodes_(bundles_.size()) {}

  bool Plan() {
    switch (request_.strategy) {
      case BundleStrategy::kStrictPack: return StrictPack();
      case BundleStrategy::kPack: return Pack();
      case BundleStrategy::kSpread: Match(); return DoubleUp();
      case BundleStrategy::kStrictSpread: return Match();
    }
    return false;
  }
  std::vector<NodeId> Take() { return std::move(nodes_); }
  void Constrain(const std::string& label, const std::string& value) {
    for (BundleWant& bundle : bundles_) bundle.labels.Add(LabelSelector::Constraint{.key = label, .values = {value}});
  }
  // As far as each bundle, or their sum, is concerned; empty: nothing stands against it.
  std::string Infeasible() {
    if (request_.strategy == BundleStrategy::kStrictPack) {
      const BundleWant sum = Sum();
      return view_->Any(WantOf(sum), Fit::kEver) ? "" : NoNode(sum);
    }
    for (const BundleWant& bundle : bundles_) {
      if (!view_->Any(WantOf(bundle), Fit::kEver)) return NoNode(bundle);
    }
    if (request_.strategy == BundleStrategy::kStrictSpread && view_->size() < bundles_.size() + request_.placed.size()) {
      return "it needs " + std::to_string(bundles_.size() + request_.placed.size()) + " nodes, the cluster has " +
             std::to_string(view_->size());
    }
    return {};
  }

 private:
  static ClusterView::Want WantOf(const BundleWant& bundle) {
    return {&bundle.need, bundle.labels.empty() ? nullptr : &bundle.labels, nullptr};
  }
  static std::string NoNode(const BundleWant& bundle) {
    return "no node has " + bundle.need.ToString() + (bundle.labels.empty() ? "" : " with labels " + bundle.labels.ToString());
  }
  BundleWant Sum() const {
    BundleWant sum;
    for (const BundleWant& bundle : bundles_) {
      sum.need.Add(bundle.need);
      for (const auto& constraint : bundle.labels.constraints()) sum.labels.Add(constraint);
    }
    return sum;
  }
  const Node* BestFor(const ClusterView::Want& want) {
    const std::vector<Found> found = view_->Search(want, Fit::kNow, {kCandidates}, order_);
    const auto best = std::min_element(found.begin(), found.end(), Better);
    return best == found.end() ? nullptr : best->node;
  }
  bool StrictPack() {
    const BundleWant sum = Sum();
    const auto want = WantOf(sum);
    const Node* chosen = nullptr;
    if (const Node* target = view_->Find(request_.soft_target); target != nullptr && view_->Fits(*target, want, Fit::kNow)) {
      chosen = target;
    } else {
      chosen = BestFor(want);
    }
    if (chosen == nullptr) return false;
    std::fill(nodes_.begin(), nodes_.end(), chosen->id);
    return true;
  }

  // What the plan leaves of a resource on a node.
  int64_t Left(const Node& node, const std::string& resource) const {
    if (const auto it = left_.find(node.id); it != left_.end()) return it->second.Get(resource);
    const ClusterView::Amount* amount = node.Find(resource);
    return amount == nullptr ? 0 : amount->free;
  }
  void TakeFrom(const Node& node, const ResourceSet& need) {
    auto it = left_.find(node.id);
    if (it == left_.end()) it = left_.emplace(node.id, node.available()).first;
    it->second.Subtract(need);
  }
  bool FitsLeft(const Node& node, const BundleWant& bundle) const {
    const auto it = left_.find(node.id);
    const bool covers = it == left_.end() ? node.Covers(bundle.need, Fit::kNow) : it->second.Covers(bundle.need);
    return !node.draining && covers && bundle.labels.Matches(node.labels);
  }

  // The hardest to place first: those that the fewest nodes could ever hold, then the largest.
  std::vector<size_t> HardestFirst() {
    std::map<std::pair<ResourceSet, LabelSelector>, size_t> places;
    std::vector<size_t> order(bundles_.size());
    std::iota(order.begin(), order.end(), 0);
    auto places_of = [&](size_t i) {
      auto [it, fresh] = places.try_emplace({bundles_[i].need, bundles_[i].labels});
      if (fresh) it->second = view_->Search(WantOf(bundles_[i]), Fit::kEver, {kCandidates}).size();
      return it->second;
    };
    std::vector<std::pair<size_t, int64_t>> key(bundles_.size());
    for (size_t i = 0; i < bundles_.size(); ++i) {
      int64_t size = 0;
      for (const auto& [name, amount] : bundles_[i].need.items()) {
        if (name != "memory" && name != "object_store_memory") size += amount;
      }
      key[i] = {places_of(i), -size};
    }
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return key[a] < key[b]; });
    return order;
  }

  bool Pack() {
    std::vector<NodeId> chosen = request_.placed;
    // One node that takes all is the best there can be, and found without looking at what others would take. Of several one that the group is on already.
    const BundleWant sum = Sum();
    const auto takes_all = [&](const Node* node) { return node != nullptr && view_->Fits(*node, WantOf(sum), Fit::kNow); };
    std::vector<Found> known;
    for (const NodeId& id : chosen) {
      if (const Node* node = view_->Find(id); takes_all(node)) known.push_back({node, view_->RankOf(*node, order_)});
    }
    const auto nearest = std::min_element(known.begin(), known.end(), Better);
    if (const Node* one = nearest != known.end() ? nearest->node : BestFor(WantOf(sum)); one != nullptr) {
      std::fill(nodes_.begin(), nodes_.end(), one->id);
      return true;
    }
    std::vector<size_t> rest = HardestFirst();
    while (!rest.empty()) {
      std::vector<Found> candidates = view_->Search(WantOf(bundles_[rest[0]]), Fit::kNow, {kCandidates}, order_);
      for (const NodeId& id : chosen) {
        if (const Node* node = view_->Find(id)) candidates.push_back({node, view_->RankOf(*node, order_)});
      }
      Found best{nullptr, 0};
      std::vector<size_t> best_fill;
      bool best_known = false;
      for (const Found& candidate : candidates) {
        const Node* node = candidate.node;
        ResourceSet left;  // of what any bundle needs: nodes have much more
        for (const auto& [name, amount] : sum.need.items()) left.Set(name, Left(*node, name));
        std::vector<size_t> fill;
        for (const size_t i : rest) {
          if (node->draining || !left.Covers(bundles_[i].need) || !bundles_[i].labels.Matches(node->labels)) continue;
          left.Subtract(bundles_[i].need);
          fill.push_back(i);
        }
        // Only nodes that take the hardest one: otherwise it may be left with none.
        if (fill.empty() || fill[0] != rest[0]) continue;
        const bool is_known = std::find(chosen.begin(), chosen.end(), node->id) != chosen.end();
        const bool wins =
            best.node == nullptr || fill.size() > best_fill.size() ||
            (fill.size() == best_fill.size() && (is_known > best_known || (is_known == best_known && Better(candidate, best))));
        if (!wins) continue;
        best = candidate;
        best_fill = std::move(fill);
        best_known = is_known;
      }
      if (best.node == nullptr) return false;
      for (const size_t i : best_fill) {
        TakeFrom(*best.node, bundles_[i].need);
        nodes_[i] = best.node->id;
      }
      chosen.push_back(best.node->id);
      std::erase_if(rest, [&](size_t i) { return !nodes_[i].IsNil(); });
    }
    return true;
  }

  // Each bundle on a node of its own, as far as that is possible: maximum matching by augmenting paths. True if all are placed. With as many
  // candidates for each bundle as there are bundles, the matching among them is as large as any.
  bool Match() {
    const std::set<NodeId> used(request_.placed.begin(), request_.placed.end());
    const size_t limit = std::max(kCandidates, bundles_.size());
    std::map<std::pair<ResourceSet, LabelSelector>, std::vector<Found>> found;
    std::vector<const std::vector<Found>*> candidates(bundles_.size());
    for (size_t i = 0; i < bundles_.size(); ++i) {
      auto [it, fresh] = found.try_emplace({bundles_[i].need, bundles_[i].labels});
      if (fresh) {
        ClusterView::Want want = WantOf(bundles_[i]);
        want.except = &used;
        it->second = view_->Search(want, Fit::kNow, {limit, 0, bundles_.size()}, order_);
        // As many of the best ones as there are bundles.
        std::stable_sort(it->second.begin(), it->second.end(), Better);
        if (it->second.size() > bundles_.size()) it->second.resize(bundles_.size());
      }
      candidates[i] = &it->second;
    }
    std::map<NodeId, size_t> taken;  // node -> bundle
    bool all = true;
    for (const size_t first : HardestFirst()) {
      // Breadth first from the bundle: its candidates, the bundles on those, their candidates ...
      std::map<NodeId, size_t> reached_by;
      std::vector<size_t> queue{first};
      std::optional<NodeId> free;
      for (size_t at = 0; at < queue.size() && !free; ++at) {
        for (const auto& [node, rank] : *candidates[queue[at]]) {
          if (!reached_by.try_emplace(node->id, queue[at]).second) continue;
          const auto holder = taken.find(node->id);
          if (holder == taken.end()) {
            free = node->id;
            break;
          }
          queue.push_back(holder->second);
        }
      }
      if (!free) {
        all = false;
        continue;
      }
      for (NodeId node = *free;;) {
        const size_t bundle = reached_by.at(node);
        const NodeId before = nodes_[bundle];
        nodes_[bundle] = node;
        taken[node] = bundle;
        if (bundle == first) break;
        node = before;
      }
    }
    for (size_t i = 0; i < bundles_.size(); ++i) {
      if (const Node* node = view_->Find(nodes_[i])) TakeFrom(*node, bundles_[i].need);
    }
    return all;
  }

  // What found no node of its own goes where the fewest are. Each node that could take it has something of the group already, or the matching would have used it.
  bool DoubleUp() {
    std::map<NodeId, size_t> count;
    for (const NodeId& node : request_.placed) ++count[node];
    for (const NodeId& node : nodes_) {
      if (!node.IsNil()) ++count[node];
    }
    for (const size_t i : HardestFirst()) {
      if (!nodes_[i].IsNil()) continue;
      Found best{nullptr, 0};
      size_t fewest = 0;
      for (const auto& [id, bundles] : count) {
        const Node* node = view_->Find(id);
        if (node == nullptr || !FitsLeft(*node, bundles_[i])) continue;
        const Found candidate{node, view_->RankOf(*node, order_)};
        if (best.node != nullptr && std::pair(fewest, best.rank) <= std::pair(bundles, candidate.rank)) continue;
        best = candidate;
        fewest = bundles;
      }
      if (best.node == nullptr) return false;
      nodes_[i] = best.node->id;
      ++count[best.node->id];
      TakeFrom(*best.node, bundles_[i].need);
    }
    return true;
  }

  const BundlePlanRequest& request_;
  std::vector<BundleWant> bundles_;
  ClusterView* const view_;
  const ClusterView::Order order_;  // without GPUs where none are needed, then the less used ones
  std::vector<NodeId> nodes_;
  std::map<NodeId, ResourceSet> left_;
};

}  // namespace

BundlePlan PlanBundles(const BundlePlanRequest& request, ClusterView* view) {
  BundlePlan plan;
  if (request.topology_label.empty()) {
    Planner planner(request, view);
    if (planner.Plan()) {
      plan.nodes = planner.Take();
      return plan;
    }
  } else {
    std::vector<std::string> values;
    if (request.placed.empty()) {
      for (const auto& [value, nodes] : view->LabelValues(request.topology_label)) values.push_back(value);
    } else if (const Node* node = view->Find(request.placed[0])) {
      if (const auto it = node->labels.find(request.topology_label); it != node->labels.end()) values.push_back(it->second);
    }
    for (const std::string& value : values) {
      Planner planner(request, view);
      planner.Constrain(request.topology_label, value);
      if (!planner.Plan()) continue;
      plan.nodes = planner.Take();
      return plan;
    }
  }
  plan.why_not = Planner(request, view).Infeasible();
  plan.feasible = plan.why_not.empty();
  if (plan.feasible) plan.why_not = "it waits for resources to become free";
  return plan;
}

}  // namespace ray::scheduling
