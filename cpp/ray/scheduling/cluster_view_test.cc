#include "ray/scheduling/cluster_view.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>

#include "ray/scheduling/test_nodes.h"

namespace ray::scheduling {
namespace {

using Fit = ClusterView::Fit;

TEST(ClusterViewTest, NewsAreOrderedByVersion) {
  ClusterView view;
  EXPECT_TRUE(view.Set(N(1), Set({{"CPU", 4}}), Set({{"CPU", 4}}), {}, 3));
  EXPECT_FALSE(view.SetAvailable(N(1), Set({{"CPU", 1}}), 3));
  EXPECT_TRUE(view.SetAvailable(N(1), Set({{"CPU", 1}}), 4));
  EXPECT_FALSE(view.Set(N(1), Set({{"CPU", 9}}), Set({{"CPU", 9}}), {}, 2));
  EXPECT_EQ(view.Find(N(1))->available(), Set({{"CPU", 1}}));
  EXPECT_EQ(view.RankOf(*view.Find(N(1)), {}), std::bit_cast<uint64_t>(0.75)) << "the share in use";
  EXPECT_FALSE(view.SetAvailable(N(2), {}, 1));
}

TEST(ClusterViewTest, FindsARareNodeAmongMany) {
  ClusterView view;
  for (uint32_t n = 0; n < 2000; ++n) view.Set(N(n), Set({{"CPU", 4}}), Set({{"CPU", 0}}), {{"zone", std::to_string(n % 7)}}, 1);
  view.Set(N(2000), Set({{"CPU", 4}, {"rare", 1}}), Set({{"CPU", 1}, {"rare", 1}}), {{"zone", "z"}}, 1);
  const ResourceSet rare = Set({{"rare", 1}}), cpu = Set({{"CPU", 1}}), none = Set({{"GPU", 1}});
  auto found = view.Search({&rare}, Fit::kNow, {3});
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].node->id, N(2000));
  found = view.Search({&cpu}, Fit::kNow, {3});  // the only one that has a CPU free
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].node->id, N(2000));
  EXPECT_TRUE(view.Search({&none}, Fit::kEver, {1}).empty());
  EXPECT_EQ(view.Search({&cpu}, Fit::kEver, {10}).size(), 10u);
  const std::map<std::string, std::string> z{{"zone", "z"}}, nowhere{{"zone", "mars"}};
  const LabelSelector in_z(z), on_mars(nowhere);
  EXPECT_EQ(view.Search({&cpu, &in_z}, Fit::kEver, {10}).size(), 1u);
  EXPECT_TRUE(view.Search({&cpu, &on_mars}, Fit::kEver, {10}).empty());
  EXPECT_EQ(view.Next({&cpu}, Fit::kNow, N(5))->id, N(2000));
}

TEST(ClusterViewTest, RemembersWhatIsInVainUntilSomeNodeHasMore) {
  ClusterView view;
  for (uint32_t n = 0; n < 500; ++n) view.Set(N(n), Set({{"CPU", 4}}), Set({{"CPU", 0}}), {}, 1);
  const ResourceSet cpu = Set({{"CPU", 1}});
  EXPECT_TRUE(view.Search({&cpu}, Fit::kNow, {1}).empty());
  const uint64_t epoch = view.epoch();
  EXPECT_TRUE(view.Search({&cpu}, Fit::kNow, {1}).empty());
  view.Take(N(3), Set({{"CPU", 1}}));
  EXPECT_EQ(view.epoch(), epoch);
  view.SetAvailable(N(77), Set({{"CPU", 1}}), 2);
  EXPECT_GT(view.epoch(), epoch);
  ASSERT_EQ(view.Search({&cpu}, Fit::kNow, {1}).size(), 1u);
  view.Remove(N(77));
  EXPECT_TRUE(view.Search({&cpu}, Fit::kNow, {1}).empty());
}

TEST(ClusterViewTest, OnlyShapesThatComeOftenAreWorthALens) {
  ClusterView view;
  constexpr uint32_t kNodes = 3000;
  for (uint32_t n = 0; n < kNodes; ++n) view.Set(N(n), Set({{"CPU", 40}}), Set({{"CPU", 40}}), {}, 1);
  // Each of many shapes finds something near, were it only there where one looks; what changes meanwhile is seen all the same.
  for (int round = 0; round < 3; ++round) {
    for (int i = 1; i <= 1500; ++i) {
      const ResourceSet need = Set({{"CPU", static_cast<double>(i) / 100}});
      EXPECT_EQ(view.Search({&need}, Fit::kNow, {5}).size(), 5u);
      EXPECT_TRUE(view.Any({&need}, Fit::kEver));
      EXPECT_TRUE(view.HasMoreThan({&need}, Fit::kNow, 64));
    }
    for (uint32_t n = 0; n < kNodes; ++n) view.SetAvailable(N(n), Set({{"CPU", 15}}), static_cast<uint64_t>(round + 2));
  }
  const ResourceSet large = Set({{"CPU", 16}});
  EXPECT_TRUE(view.Search({&large}, Fit::kNow, {1}).empty());
  view.SetAvailable(N(1234), Set({{"CPU", 16}}), 9);
  ASSERT_EQ(view.Search({&large}, Fit::kNow, {1}).size(), 1u);
  EXPECT_EQ(view.Next({&large}, Fit::kNow, N(2000))->id, N(1234));
}

TEST(ClusterViewTest, LabelsAndAmountsOfAll) {
  ClusterView view;
  view.Set(N(1), Set({{"CPU", 4}}), Set({{"CPU", 4}}), {{"zone", "b"}}, 1);
  view.Set(N(2), Set({{"CPU", 2}, {"GPU", 1}}), Set({{"CPU", 2}}), {{"zone", "a"}}, 1);
  view.Set(N(3), Set({{"CPU", 1}}), Set({{"CPU", 1}}), {{"zone", "a"}}, 1);
  EXPECT_EQ(view.LabelValues("zone"), (std::map<std::string, size_t>{{"a", 2}, {"b", 1}}));
  EXPECT_TRUE(view.LabelValues("rack").empty());
  EXPECT_EQ(view.Total(), Set({{"CPU", 7}, {"GPU", 1}}));
  view.Remove(N(2));
  view.Set(N(3), Set({{"CPU", 1}}), Set({{"CPU", 1}}), {}, 2);
  EXPECT_EQ(view.LabelValues("zone"), (std::map<std::string, size_t>{{"b", 1}}));
  EXPECT_EQ(view.TotalOf("CPU"), 5 * ResourceSet::kUnit);
  EXPECT_EQ(view.TotalOf("GPU"), 0);
}

TEST(ClusterViewTest, WhatIsTaken) {
  ClusterView view;
  view.Set(N(1), Set({{"CPU", 4}, {"GPU", 1}}), Set({{"CPU", 4}, {"GPU", 1}}), {}, 1);
  const ClusterView::Handle node = view.HandleOf(N(1));
  const ResourceSet gpu = Set({{"GPU", 1}});
  EXPECT_TRUE(view.SetTaken(node, std::vector<int64_t>{10000, 10000}, 2));
  EXPECT_EQ(view.Find(N(1))->available(), Set({{"CPU", 3}}));
  EXPECT_FALSE(view.Any({&gpu}, Fit::kNow));
  EXPECT_FALSE(view.SetTaken(node, std::vector<int64_t>{0, 0}, 2)) << "no news";
  EXPECT_FALSE(view.SetTaken(node, std::vector<int64_t>{0}, 3)) << "of another total";
  EXPECT_FALSE(view.SetTaken(view.HandleOf(N(2)), std::vector<int64_t>{0, 0}, 3));
  EXPECT_FALSE(view.SetTaken({}, std::vector<int64_t>{0, 0}, 3));
  EXPECT_EQ(view.Find(N(1))->version, 2u);
  EXPECT_TRUE(view.SetTaken(node, std::vector<int64_t>{10000, 0}, 3));
  EXPECT_TRUE(view.Any({&gpu}, Fit::kNow)) << "more than before";
}

TEST(ClusterViewTest, AHandleEndsWithItsNode) {
  ClusterView view;
  view.Set(N(1), Set({{"CPU", 4}}), Set({{"CPU", 4}}), {}, 1);
  const ClusterView::Handle left = view.HandleOf(N(1));
  view.Remove(N(1));
  EXPECT_FALSE(view.SetTaken(left, std::vector<int64_t>{10000}, 2));
  view.Set(N(2), Set({{"CPU", 4}}), Set({{"CPU", 4}}), {}, 1);  // in the place of the first
  EXPECT_FALSE(view.SetTaken(left, std::vector<int64_t>{10000}, 2));
  EXPECT_TRUE(view.SetTaken(view.HandleOf(N(2)), std::vector<int64_t>{20000}, 2));
  EXPECT_EQ(view.Find(N(2))->available(), Set({{"CPU", 2}}));
}

TEST(ClusterViewTest, WhatANodeHasNotInTotalCountsForNothing) {
  ClusterView view;
  const ResourceSet rare = Set({{"rare", 1}});
  view.Set(N(1), Set({{"CPU", 4}}), Set({{"CPU", 4}, {"rare", 1}}), {}, 1);
  view.GiveBack(N(1), rare);
  EXPECT_EQ(view.Find(N(1))->available(), Set({{"CPU", 4}}));
  EXPECT_FALSE(view.Fits(*view.Find(N(1)), {&rare}, Fit::kNow));
  EXPECT_EQ(view.TotalOf("rare"), 0);
}

TEST(ClusterViewTest, DrainingNodesAreNotFound) {
  ClusterView view;
  view.Set(N(1), Set({{"CPU", 4}}), Set({{"CPU", 4}}), {}, 1, /*draining=*/true);
  const ResourceSet cpu = Set({{"CPU", 1}});
  EXPECT_TRUE(view.Search({&cpu}, Fit::kEver, {1}).empty());
}

// Against a plain list: whatever is found fits, and something is found whenever something fits.
TEST(ClusterViewTest, SearchAgreesWithAPlainList) {
  for (uint64_t seed = 1; seed <= 30; ++seed) {
    SplitMix random(seed);
    ClusterView view(seed);
    struct Plain {
      ResourceSet total, available;
      Labels labels;
      uint64_t version = 0;
    };
    std::map<NodeId, Plain> plain;
    for (int step = 0; step < 2000; ++step) {
      const NodeId id = N(static_cast<uint32_t>(random.Below(300)));
      const uint64_t action = random.Below(10);
      if (action == 0) {
        view.Remove(id);
        plain.erase(id);
      } else if (action < 6) {
        std::map<std::string, double> total{{"CPU", static_cast<double>(random.Below(4))}}, available;
        if (random.Below(10) == 0) total["rare"] = 1;
        for (const auto& [name, amount] : total) available[name] = static_cast<double>(random.Below(static_cast<uint64_t>(amount) + 1));
        Plain node{Set(total), Set(available), {{"zone", std::to_string(random.Below(5))}}, 0};
        node.version = plain.contains(id) ? plain[id].version + 1 : 1;
        view.Set(id, node.total, node.available, node.labels, node.version);
        plain[id] = node;
      } else if (action < 8 && plain.contains(id)) {
        view.Take(id, Set({{"CPU", 1}}));
        if (plain[id].total.Get("CPU") > 0) plain[id].available.Subtract(Set({{"CPU", 1}}));  // else there is nothing to take
      } else {
        std::map<std::string, double> amounts{{"CPU", static_cast<double>(random.Below(3))}};
        if (random.Below(3) == 0) amounts["rare"] = 1;
        const ResourceSet need = Set(amounts);
        const std::map<std::string, std::string> text{{"zone", random.Below(2) == 0 ? "3" : "!3"}};
        const LabelSelector labels = random.Below(2) == 0 ? LabelSelector(text) : LabelSelector();
        const Fit fit = random.Below(2) == 0 ? Fit::kNow : Fit::kEver;
        const ClusterView::Want want{&need, labels.empty() ? nullptr : &labels};
        size_t fitting = 0;
        for (const auto& [n, node] : plain) {
          fitting += (fit == Fit::kNow ? node.available : node.total).Covers(need) && labels.Matches(node.labels);
        }
        const auto found = view.Search(want, fit, {5});
        EXPECT_EQ(found.empty(), fitting == 0) << "seed " << seed << " step " << step;
        EXPECT_LE(found.size(), std::min<size_t>(fitting, 5));
        std::set<NodeId> distinct;
        for (const auto& [node, rank] : found) {
          EXPECT_TRUE(view.Fits(*node, want, fit));
          EXPECT_EQ(node->available(), plain[node->id].available);
          distinct.insert(node->id);
        }
        EXPECT_EQ(distinct.size(), found.size());
        EXPECT_EQ(view.Next(want, fit, id) == nullptr, fitting == 0);
        EXPECT_EQ(view.Search(want, fit, {5, 1}, {false, 0.5}).empty(), fitting == 0) << "seed " << seed << " step " << step;
        EXPECT_EQ(view.Search(want, fit, {1000}).size(), fitting) << "all, where there is no limit";
        for (const size_t limit : {0, 2, 40}) {
          EXPECT_EQ(view.HasMoreThan(want, fit, limit), fitting > limit) << "seed " << seed << " step " << step;
        }
      }
    }
    EXPECT_EQ(view.size(), plain.size());
    ResourceSet total;
    for (const auto& [id, node] : plain) total.Add(node.total);
    EXPECT_EQ(view.Total(), total);
  }
}

}  // namespace
}  // namespace ray::scheduling
