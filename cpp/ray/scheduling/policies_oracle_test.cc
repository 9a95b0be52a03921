// The policies against plain ones that look at every node: the same events, the same seed of chance, the same decisions.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <map>
#include <optional>
#include <tuple>

#include "ray/scheduling/bundle_policy.h"
#include "ray/scheduling/policies.h"
#include "ray/scheduling/test_nodes.h"

namespace ray::scheduling {
namespace {

using Text = std::map<std::string, std::string>;

// What the rules say, in as many looks as there are nodes.
class Plain {
 public:
  struct Node {
    NodeId id;
    ResourceSet total, available;
    Labels labels;
    bool draining = false;

    double Used() const {
      double used = 0;
      for (const auto& [name, amount] : total.items()) {
        used = std::max(used, 1.0 - static_cast<double>(available.Get(name)) / static_cast<double>(amount));
      }
      return used;
    }
    bool HasGpu() const { return total.Get("GPU") > 0; }
    bool Could(const ResourceSet& need, const LabelSelector& labels_wanted) const {
      return !draining && total.Covers(need) && labels_wanted.Matches(labels);
    }
    bool Can(const ResourceSet& need, const LabelSelector& labels_wanted) const {
      return Could(need, labels_wanted) && available.Covers(need);
    }
  };

  explicit Plain(uint64_t seed) : random_(seed) {}

  Node* Find(const NodeId& id) {
    const auto it = std::find_if(nodes.begin(), nodes.end(), [&](const auto& node) { return node && node->id == id; });
    return it == nodes.end() ? nullptr : &**it;
  }
  bool AnyCould(const ResourceSet& need, const LabelSelector& labels) const {
    return std::any_of(nodes.begin(), nodes.end(), [&](const auto& node) { return node && node->Could(need, labels); });
  }

  Placement Choose(const PlacementRequest& request, const NodeId& preferred, const std::set<NodeId>& except) {
    std::optional<LabelSelector> selector;
    if (request.selectors.empty()) selector.emplace();
    for (const LabelSelector& alternative : request.selectors) {
      if (!selector && AnyCould(request.need, alternative)) selector = alternative;
    }
    if (!selector) return {Placement::kInfeasible, {}, {}};
    if (!request.preferred.empty()) {
      LabelSelector narrow = *selector;
      for (const auto& constraint : request.preferred.constraints()) narrow.Add(constraint);
      if (const Node* best = Best(request.need, narrow, preferred, except)) return {Placement::kNode, best->id, {}};
    }
    if (request.strategy == Strategy::kSpread) {
      if (const Node* next = NextInRing(request.need, *selector, except)) {
        last_ = next->id;
        return {Placement::kBind, next->id, {}};
      }
    } else if (const Node* best = Best(request.need, *selector, preferred, except)) {
      return {Placement::kNode, best->id, {}};
    }
    return {AnyCould(request.need, *selector) ? Placement::kWait : Placement::kInfeasible, {}, {}};
  }

  // As they joined; a place that is empty is taken by the next that joins.
  std::vector<std::optional<Node>> nodes;
  std::vector<size_t> places;

 private:
  const Node* Best(const ResourceSet& need, const LabelSelector& labels, const NodeId& preferred, const std::set<NodeId>& except) {
    const bool avoid =
        need.Get("GPU") == 0 && std::any_of(nodes.begin(), nodes.end(), [](const auto& node) { return node && !node->HasGpu(); });
    auto score = [&](const Node& node) { return std::pair(avoid && node.HasGpu(), node.Used() < 0.5 ? 0.0 : node.Used()); };
    std::vector<const Node*> fit;
    const Node* near = nullptr;
    for (const auto& node : nodes) {
      if (!node || !node->Can(need, labels) || except.contains(node->id)) continue;
      fit.push_back(&*node);
      if (node->id == preferred) near = &*node;
    }
    if (fit.empty()) return nullptr;
    std::stable_sort(fit.begin(), fit.end(), [&](const Node* a, const Node* b) { return score(*a) < score(*b); });
    if (near != nullptr && (score(*near) == score(*fit[0]) || score(*near) == std::pair(false, 0.0))) return near;
    auto top = std::max<size_t>(1, static_cast<size_t>(static_cast<double>(fit.size()) * 0.2));
    while (top > 1 && avoid && fit[top - 1]->HasGpu() != fit[0]->HasGpu()) --top;
    return fit[random_.Below(top)];
  }

  // For more nodes than the policy keeps turns of.
  const Node* NextInRing(const ResourceSet& need, const LabelSelector& labels, const std::set<NodeId>& except) {
    const auto last = std::find_if(nodes.begin(), nodes.end(), [&](const auto& node) { return node && node->id == last_; });
    const size_t from = last == nodes.end() ? 0 : static_cast<size_t>(last - nodes.begin()) + 1;
    for (const bool now : {true, false}) {
      for (size_t i = 0; i < nodes.size(); ++i) {
        const auto& node = nodes[(from + i) % nodes.size()];
        if (node && (now ? node->Can(need, labels) : node->Could(need, labels)) && !except.contains(node->id)) return &*node;
      }
    }
    return nullptr;
  }

  SplitMix random_;
  NodeId last_;
};

class Both {
 public:
  Both(uint64_t seed, PolicyConfig config) : view(seed), policy(config, &view), plain(seed), random_(seed + 1000) {}

  uint64_t Below(uint64_t bound) { return random_.Below(bound); }
  NodeId AnyNode(uint32_t range) { return N(static_cast<uint32_t>(Below(range))); }

  void Join(const NodeId& id) {
    std::map<std::string, double> total{{"CPU", 1 + static_cast<double>(Below(8))}, {"memory", 8}}, available;
    if (Below(4) == 0) total["GPU"] = 1 + static_cast<double>(Below(2));
    if (Below(20) == 0) total["rare"] = 1;
    for (const auto& [name, amount] : total) available[name] = static_cast<double>(Below(static_cast<uint64_t>(amount) + 1));
    Labels labels{{"zone", std::to_string(Below(3))}, {"name", id.Hex()}};
    const bool draining = Below(15) == 0;
    view.Set(id, Set(total), Set(available), labels, ++version_, draining);
    Plain::Node node{id, Set(total), Set(available), labels, draining};
    if (Plain::Node* known = plain.Find(id)) {
      *known = node;
    } else if (plain.places.empty()) {
      plain.nodes.emplace_back(node);
    } else {
      plain.nodes[plain.places.back()] = node;
      plain.places.pop_back();
    }
  }
  void Leave(const NodeId& id) {
    view.Remove(id);
    for (size_t i = 0; i < plain.nodes.size(); ++i) {
      if (!plain.nodes[i] || plain.nodes[i]->id != id) continue;
      plain.nodes[i].reset();
      plain.places.push_back(i);
    }
  }
  void Report(const NodeId& id) {
    Plain::Node* node = plain.Find(id);
    if (node == nullptr) return;
    node->available = node->total;
    for (const auto& [name, amount] : node->total.items()) {
      node->available.Set(name, static_cast<int64_t>(Below(static_cast<uint64_t>(amount / ResourceSet::kUnit) + 1)) * ResourceSet::kUnit);
    }
    view.SetAvailable(id, node->available, ++version_);
  }
  void Take(const NodeId& id, const ResourceSet& need) {
    view.Take(id, need);
    if (Plain::Node* node = plain.Find(id)) node->available.Subtract(need);
  }
  PlacementRequest Request() {
    PlacementRequest request;
    std::map<std::string, double> need{{"CPU", static_cast<double>(Below(4))}};
    if (Below(4) == 0) need["GPU"] = 1;
    if (Below(10) == 0) need["rare"] = 1;
    if (Below(4) == 0) need["memory"] = 1 + static_cast<double>(Below(9));
    request.need = Set(need);
    if (Below(3) == 0) request.strategy = Strategy::kSpread;
    auto zone = [this] { return LabelSelector(Text{{"zone", (Below(3) == 0 ? "!" : "") + std::to_string(Below(4))}}); };
    for (uint64_t n = Below(3); n > 0; --n) request.selectors.push_back(zone());
    if (Below(4) == 0) request.preferred = zone();
    return request;
  }

  ClusterView view;
  PlacementPolicy policy;
  Plain plain;

 private:
  SplitMix random_;
  uint64_t version_ = 0;
};

// `range` nodes at most; `candidates` as the policy compares.
void DecideAlike(uint64_t seed, uint32_t range, size_t candidates, bool spread) {
  Both both(seed, {.candidates = candidates});
  for (uint32_t n = 0; n < range; ++n) both.Join(both.AnyNode(range));
  for (int step = 0; step < 600; ++step) {
    switch (both.Below(8)) {
      case 0: both.Join(both.AnyNode(range)); break;
      case 1: both.Leave(both.AnyNode(range)); break;
      case 2:
      case 3: both.Report(both.AnyNode(range)); break;
      default: {
        PlacementRequest request = both.Request();
        if (!spread) request.strategy = Strategy::kDefault;
        if (spread && request.strategy == Strategy::kSpread) request.selectors.clear();
        std::set<NodeId> except;
        for (uint64_t k = both.Below(4); k > 0; --k) except.insert(both.AnyNode(range));
        const NodeId preferred = both.AnyNode(range);
        const Placement expected = both.plain.Choose(request, preferred, except);
        const Placement chosen = both.policy.Choose(request, preferred, except);
        ASSERT_EQ(chosen.kind, expected.kind) << "seed " << seed << ", step " << step;
        ASSERT_EQ(chosen.node, expected.node) << "seed " << seed << ", step " << step;
        if (chosen.kind == Placement::kNode) both.Take(chosen.node, request.need);
      }
    }
  }
}

TEST(PoliciesOracle, TheSameDecisions) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    DecideAlike(seed, 4, 10000, false);
    DecideAlike(seed, 60, 10000, false);
    DecideAlike(seed, 400, 10000, false);
  }
}

// With more nodes than are compared spread is a ring.
TEST(PoliciesOracle, TheSameRing) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    Both both(seed, {.candidates = 1});
    for (uint32_t n = 0; n < 200; ++n) both.Join(N(n));
    for (int step = 0; step < 600; ++step) {
      if (const uint64_t action = both.Below(6); action == 0) {
        both.Leave(both.AnyNode(200));
      } else if (action == 1) {
        both.Join(both.AnyNode(200));
      } else if (action == 2) {
        both.Report(both.AnyNode(200));
      } else {
        PlacementRequest request;
        request.strategy = Strategy::kSpread;
        request.need = Set({{"CPU", static_cast<double>(both.Below(4))}});
        std::set<NodeId> except;
        for (uint64_t k = both.Below(4); k > 0; --k) except.insert(both.AnyNode(200));
        const Placement expected = both.plain.Choose(request, {}, except);
        const Placement chosen = both.policy.Choose(request, {}, except);
        ASSERT_EQ(chosen.node, expected.node) << "seed " << seed << ", step " << step;
        both.Take(chosen.node, request.need);
      }
    }
  }
}

// With a bounded number of candidates chance chooses which are compared; what holds then all the same.
TEST(PoliciesOracle, OfManyNodesSomeOfTheBest) {
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    Both both(seed, {});
    for (uint32_t n = 0; n < 1000; ++n) both.Join(N(n));
    for (int step = 0; step < 400; ++step) {
      if (both.Below(3) == 0) {
        both.Report(both.AnyNode(1000));
        continue;
      }
      PlacementRequest request = both.Request();
      request.strategy = Strategy::kDefault;
      request.preferred = LabelSelector();
      const Placement expected = both.plain.Choose(request, {}, {});
      const Placement chosen = both.policy.Choose(request, {}, {});
      ASSERT_EQ(chosen.kind, expected.kind) << "seed " << seed << ", step " << step;
      if (chosen.kind != Placement::kNode) continue;
      const Plain::Node* node = both.plain.Find(chosen.node);
      const bool labels = request.selectors.empty() || std::any_of(request.selectors.begin(), request.selectors.end(),
                                                                   [&](const auto& selector) { return selector.Matches(node->labels); });
      EXPECT_TRUE(labels && !node->draining && node->available.Covers(request.need)) << "seed " << seed << ", step " << step;
      both.Take(chosen.node, request.need);
    }
  }
}

// ---- bundles ----

// PACK as it is told: the node that takes most of what is left, the hardest bundle among it, until all are placed.
bool PackExists(const Plain& plain, const std::vector<BundleWant>& bundles, size_t* most_on_one) {
  *most_on_one = 0;
  bool all_fit_somewhere = true;
  for (const BundleWant& bundle : bundles) {
    all_fit_somewhere &= std::any_of(plain.nodes.begin(), plain.nodes.end(),
                                     [&](const auto& node) { return node && node->Can(bundle.need, bundle.labels); });
  }
  for (const auto& node : plain.nodes) {
    if (!node || node->draining) continue;
    ResourceSet left = node->available;
    size_t fill = 0;
    for (const BundleWant& bundle : bundles) {
      if (!left.Covers(bundle.need) || !bundle.labels.Matches(node->labels)) continue;
      left.Subtract(bundle.need);
      ++fill;
    }
    *most_on_one = std::max(*most_on_one, fill);
  }
  return all_fit_somewhere;
}

// The largest number of bundles that distinct nodes can hold.
size_t LargestMatching(const Plain& plain, const std::vector<BundleWant>& bundles) {
  std::map<size_t, size_t> holder;  // node -> bundle
  size_t matched = 0;
  for (size_t first = 0; first < bundles.size(); ++first) {
    std::set<size_t> seen;
    std::function<bool(size_t)> place = [&](size_t bundle) {
      for (size_t n = 0; n < plain.nodes.size(); ++n) {
        const auto& node = plain.nodes[n];
        if (!node || !node->Can(bundles[bundle].need, bundles[bundle].labels) || !seen.insert(n).second) continue;
        if (holder.contains(n) && !place(holder[n])) continue;
        holder[n] = bundle;
        return true;
      }
      return false;
    };
    matched += place(first);
  }
  return matched;
}

TEST(PoliciesOracle, BundlesGoWhereTheyCan) {
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    Both both(seed, {});
    const uint32_t range = seed % 3 == 0 ? 300 : 8;
    for (uint32_t n = 0; n < range; ++n) both.Join(N(n));
    for (int step = 0; step < 60; ++step) {
      both.Report(both.AnyNode(range));
      if (both.Below(4) == 0) both.Leave(both.AnyNode(range));
      if (both.Below(3) == 0) both.Join(both.AnyNode(range));
      BundlePlanRequest request;
      for (uint64_t i = 0, n = 1 + both.Below(5); i < n; ++i) {
        std::map<std::string, double> need{{"CPU", 1 + static_cast<double>(both.Below(4))}};
        if (both.Below(5) == 0) need["GPU"] = 1;
        BundleWant bundle{Set(need), {}};
        if (both.Below(4) == 0) bundle.labels = LabelSelector(Text{{"zone", std::to_string(both.Below(3))}});
        request.bundles.push_back(bundle);
        while (both.Below(2) == 0 && request.bundles.size() < n) request.bundles.push_back(bundle);
      }
      size_t most_on_one = 0;
      const bool all_fit_somewhere = PackExists(both.plain, request.bundles, &most_on_one);
      const size_t matching = LargestMatching(both.plain, request.bundles);
      for (const auto strategy :
           {BundleStrategy::kPack, BundleStrategy::kSpread, BundleStrategy::kStrictPack, BundleStrategy::kStrictSpread}) {
        request.strategy = strategy;
        const BundlePlan plan = PlanBundles(request, &both.view);
        const std::string where = "seed " + std::to_string(seed) + ", step " + std::to_string(step);
        const std::set<NodeId> distinct(plan.nodes.begin(), plan.nodes.end());
        std::map<NodeId, ResourceSet> used;
        for (size_t i = 0; i < plan.nodes.size(); ++i) {
          const Plain::Node* node = both.plain.Find(plan.nodes[i]);
          ASSERT_TRUE(node != nullptr && node->Can(request.bundles[i].need, request.bundles[i].labels)) << where;
          used[node->id].Add(request.bundles[i].need);
        }
        for (const auto& [id, need] : used) EXPECT_TRUE(both.plain.Find(id)->available.Covers(need)) << where;
        const bool on_one = most_on_one == request.bundles.size();
        switch (strategy) {
          case BundleStrategy::kStrictPack: EXPECT_EQ(distinct.size(), on_one ? 1u : 0u) << where; break;
          case BundleStrategy::kPack:
            EXPECT_TRUE(!on_one || distinct.size() == 1) << where;
            EXPECT_TRUE(all_fit_somewhere || plan.nodes.empty()) << where;
            break;
          case BundleStrategy::kStrictSpread:
            EXPECT_EQ(distinct.size(), matching == request.bundles.size() ? matching : 0u) << where;
            break;
          case BundleStrategy::kSpread:
            EXPECT_TRUE(plan.nodes.empty() ? matching < request.bundles.size() : distinct.size() == matching) << where;
            break;
        }
        if (plan.nodes.empty() && plan.feasible) {
          for (const BundleWant& bundle : request.bundles) EXPECT_TRUE(both.plain.AnyCould(bundle.need, bundle.labels)) << where;
        }
      }
    }
  }
}

}  // namespace
}  // namespace ray::scheduling
