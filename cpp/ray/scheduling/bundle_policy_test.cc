#include "ray/scheduling/bundle_policy.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <map>

#include "ray/scheduling/test_nodes.h"

namespace ray::scheduling {
namespace {

void Join(ClusterView* view, uint32_t n, const std::map<std::string, double>& amounts, Labels labels = {}) {
  view->Set(N(n), Set(amounts), Set(amounts), std::move(labels), 1);
}
BundlePlanRequest Want(BundleStrategy strategy, const std::vector<std::map<std::string, double>>& bundles) {
  BundlePlanRequest request;
  request.strategy = strategy;
  for (const auto& bundle : bundles) request.bundles.push_back({Set(bundle), {}});
  return request;
}
std::vector<uint32_t> Numbers(const BundlePlan& plan) {
  std::vector<uint32_t> numbers;
  for (const NodeId& id : plan.nodes) numbers.push_back(Number(id));
  return numbers;
}
size_t Distinct(const BundlePlan& plan) { return std::set<NodeId>(plan.nodes.begin(), plan.nodes.end()).size(); }

const std::map<std::string, double> kOne{{"CPU", 1}};

TEST(BundlePolicyTest, Strategies) {
  ClusterView view;
  for (uint32_t n = 1; n <= 3; ++n) Join(&view, n, {{"CPU", 2}});
  EXPECT_EQ(Distinct(PlanBundles(Want(BundleStrategy::kStrictPack, {kOne, kOne}), &view)), 1u);
  EXPECT_TRUE(PlanBundles(Want(BundleStrategy::kStrictPack, {kOne, kOne, kOne}), &view).nodes.empty());
  EXPECT_EQ(Distinct(PlanBundles(Want(BundleStrategy::kStrictSpread, {kOne, kOne, kOne}), &view)), 3u);
  EXPECT_TRUE(PlanBundles(Want(BundleStrategy::kStrictSpread, {kOne, kOne, kOne, kOne}), &view).nodes.empty());
  EXPECT_EQ(Distinct(PlanBundles(Want(BundleStrategy::kPack, {kOne, kOne}), &view)), 1u);
  EXPECT_EQ(Distinct(PlanBundles(Want(BundleStrategy::kPack, {kOne, kOne, kOne, kOne}), &view)), 2u);
  EXPECT_EQ(Distinct(PlanBundles(Want(BundleStrategy::kSpread, {kOne, kOne, kOne, kOne, kOne}), &view)), 3u);
  EXPECT_TRUE(PlanBundles(Want(BundleStrategy::kSpread, std::vector(7, kOne)), &view).nodes.empty());
}

TEST(BundlePolicyTest, SaysWhyNot) {
  ClusterView view;
  Join(&view, 1, {{"CPU", 2}});
  BundlePlan plan = PlanBundles(Want(BundleStrategy::kPack, {{{"GPU", 1}}}), &view);
  EXPECT_FALSE(plan.feasible);
  EXPECT_EQ(plan.why_not, "no node has {GPU: 1}");
  plan = PlanBundles(Want(BundleStrategy::kStrictSpread, {kOne, kOne}), &view);
  EXPECT_FALSE(plan.feasible);
  EXPECT_EQ(plan.why_not, "it needs 2 nodes, the cluster has 1");
  view.Take(N(1), Set({{"CPU", 2}}));
  plan = PlanBundles(Want(BundleStrategy::kPack, {kOne}), &view);
  EXPECT_TRUE(plan.feasible);
}

TEST(BundlePolicyTest, CustomResourcesDecideTheNode) {
  ClusterView view;
  Join(&view, 1, {{"CPU", 2}, {"a", 1}});
  Join(&view, 2, {{"CPU", 2}, {"b", 1}});
  Join(&view, 3, {{"CPU", 2}, {"c", 1}});
  EXPECT_EQ(Numbers(PlanBundles(Want(BundleStrategy::kPack, {{{"c", 1}}, {{"b", 1}}, {{"a", 1}}}), &view)),
            (std::vector<uint32_t>{3, 2, 1}));
}

TEST(BundlePolicyTest, MatchingFindsWhatGreedMisses) {
  ClusterView view;
  Join(&view, 1, {{"a", 1}, {"b", 1}});
  Join(&view, 2, {{"a", 1}});
  EXPECT_EQ(Numbers(PlanBundles(Want(BundleStrategy::kStrictSpread, {{{"a", 1}}, {{"b", 1}}}), &view)), (std::vector<uint32_t>{2, 1}));
}

TEST(BundlePolicyTest, LabelsTopologyAndTarget) {
  ClusterView view;
  for (uint32_t n = 1; n <= 4; ++n) Join(&view, n, {{"CPU", 2}}, {{"zone", n <= 2 ? "x" : "y"}, {"name", std::to_string(n)}});
  auto request = Want(BundleStrategy::kPack, {kOne, kOne});
  const std::map<std::string, std::string> third{{"name", "3"}}, not_third{{"name", "!in(1,3,4)"}};
  request.bundles[0].labels = LabelSelector(third);
  request.bundles[1].labels = LabelSelector(not_third);
  EXPECT_EQ(Numbers(PlanBundles(request, &view)), (std::vector<uint32_t>{3, 2}));
  request.topology_label = "zone";  // no zone has both
  EXPECT_TRUE(PlanBundles(request, &view).nodes.empty());

  auto spread = Want(BundleStrategy::kStrictSpread, {kOne, kOne});
  spread.topology_label = "zone";
  view.Take(N(1), Set({{"CPU", 2}}));
  const auto chosen = Numbers(PlanBundles(spread, &view));
  EXPECT_TRUE(chosen == (std::vector<uint32_t>{3, 4}) || chosen == (std::vector<uint32_t>{4, 3}));

  auto target = Want(BundleStrategy::kStrictPack, {kOne});
  target.soft_target = N(4);
  EXPECT_EQ(Numbers(PlanBundles(target, &view)), (std::vector<uint32_t>{4}));
  target.soft_target = N(1);  // full
  EXPECT_EQ(PlanBundles(target, &view).nodes.size(), 1u);
}

// What the values of labels look like was checked only where the user gave them.
TEST(BundlePolicyTest, AValueOfATopologyLabelIsOneValueWhateverIsInIt) {
  for (const std::string odd : {"x,y", "x),in(y", "!x", "*"}) {
    SCOPED_TRACE(odd);
    ClusterView view;
    Join(&view, 1, {{"CPU", 1}}, {{"zone", odd}});
    Join(&view, 2, {{"CPU", 1}}, {{"zone", "x"}});
    Join(&view, 3, {{"CPU", 1}}, {{"zone", "y"}});
    auto request = Want(BundleStrategy::kStrictSpread, {kOne, kOne});
    request.topology_label = "zone";
    EXPECT_EQ(Numbers(PlanBundles(request, &view)), (std::vector<uint32_t>{}));
    Join(&view, 4, {{"CPU", 1}}, {{"zone", odd}});
    auto chosen = Numbers(PlanBundles(request, &view));
    std::ranges::sort(chosen);
    EXPECT_EQ(chosen, (std::vector<uint32_t>{1, 4}));
  }
}

TEST(BundlePolicyTest, LostBundlesKeepToTheStrategy) {
  ClusterView view;
  for (uint32_t n = 1; n <= 3; ++n) Join(&view, n, {{"CPU", 4}});
  auto request = Want(BundleStrategy::kStrictSpread, {kOne});
  request.placed = {N(1), N(3)};
  EXPECT_EQ(Numbers(PlanBundles(request, &view)), (std::vector<uint32_t>{2}));
  request.placed.push_back(N(2));
  EXPECT_TRUE(PlanBundles(request, &view).nodes.empty());
  request.strategy = BundleStrategy::kPack;
  request.placed = {N(2)};
  EXPECT_EQ(Numbers(PlanBundles(request, &view)), (std::vector<uint32_t>{2}));
}

TEST(BundlePolicyTest, WorkWithoutGpusLeavesThemAlone) {
  ClusterView view;
  Join(&view, 1, {{"CPU", 8}, {"GPU", 2}});
  Join(&view, 2, {{"CPU", 2}});
  EXPECT_EQ(Numbers(PlanBundles(Want(BundleStrategy::kStrictPack, {kOne}), &view)), (std::vector<uint32_t>{2}));
  EXPECT_EQ(Numbers(PlanBundles(Want(BundleStrategy::kStrictPack, {{{"GPU", 1}}}), &view)), (std::vector<uint32_t>{1}));
}

// Against exhaustive search on small clusters: every plan is valid, and one is found whenever STRICT_* or SPREAD have one for distinct nodes.
TEST(BundlePolicyTest, PlansAreValidAndStrictOnesComplete) {
  for (uint64_t seed = 1; seed <= 400; ++seed) {
    SplitMix random(seed);
    ClusterView view(seed);
    const uint32_t nodes = 1 + static_cast<uint32_t>(random.Below(5));
    for (uint32_t n = 1; n <= nodes; ++n) {
      std::map<std::string, double> amounts{{"CPU", static_cast<double>(random.Below(4))}};
      for (const char* name : {"a", "b"}) {
        if (random.Below(2) == 0) amounts[name] = static_cast<double>(random.Below(3));
      }
      Join(&view, n, amounts);
    }
    std::vector<std::map<std::string, double>> bundles;
    for (uint64_t i = 0, n = 1 + random.Below(4); i < n; ++i) {
      std::map<std::string, double> bundle{{"CPU", static_cast<double>(random.Below(3))}};
      if (random.Below(2) == 0) bundle[random.Below(2) == 0 ? "a" : "b"] = 1;
      bundles.push_back(bundle);
    }
    for (const auto strategy :
         {BundleStrategy::kPack, BundleStrategy::kSpread, BundleStrategy::kStrictPack, BundleStrategy::kStrictSpread}) {
      const BundlePlan plan = PlanBundles(Want(strategy, bundles), &view);
      const bool strict_spread = strategy == BundleStrategy::kStrictSpread;
      if (!plan.nodes.empty()) {
        std::map<NodeId, ResourceSet> used;
        for (size_t i = 0; i < bundles.size(); ++i) used[plan.nodes[i]].Add(Set(bundles[i]));
        for (const auto& [id, need] : used) EXPECT_TRUE(view.Find(id)->available().Covers(need)) << "seed " << seed;
        if (strict_spread) {
          EXPECT_EQ(Distinct(plan), bundles.size()) << "seed " << seed;
        } else if (strategy == BundleStrategy::kStrictPack) {
          EXPECT_EQ(Distinct(plan), 1u) << "seed " << seed;
        }
        continue;
      }
      EXPECT_FALSE(plan.why_not.empty());
      if (!strict_spread && strategy != BundleStrategy::kStrictPack) continue;
      // Is there any assignment?
      std::vector<uint32_t> at(bundles.size(), 0);
      bool exists = false;
      std::function<void(size_t)> go = [&](size_t i) {
        if (exists) return;
        if (i == bundles.size()) {
          std::map<uint32_t, ResourceSet> used;
          for (size_t j = 0; j < bundles.size(); ++j) used[at[j]].Add(Set(bundles[j]));
          exists = strict_spread ? used.size() == bundles.size() : used.size() == 1;
          for (const auto& [n, need] : used) exists = exists && view.Find(N(n))->available().Covers(need);
          return;
        }
        for (uint32_t n = 1; n <= nodes; ++n) {
          at[i] = n;
          go(i + 1);
        }
      };
      go(0);
      EXPECT_FALSE(exists) << "seed " << seed;
    }
  }
}

}  // namespace
}  // namespace ray::scheduling
