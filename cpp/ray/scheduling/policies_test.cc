#include "ray/scheduling/policies.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "ray/scheduling/test_nodes.h"

namespace ray::scheduling {
namespace {

using Text = std::map<std::string, std::string>;

class Policy : public testing::Test {
 protected:
  void Join(uint32_t n, const std::map<std::string, double>& total, const std::map<std::string, double>& available, Labels labels = {}) {
    view_.Set(N(n), Set(total), Set(available), std::move(labels), ++version_);
  }
  void Cpus(uint32_t n, double total, double free, Labels labels = {}) { Join(n, {{"CPU", total}}, {{"CPU", free}}, std::move(labels)); }
  // "3", "3!" (bound to it), "wait", "never", "refused".
  std::string Choose(const PlacementRequest& request, uint32_t preferred = 1, std::set<NodeId> except = {}) {
    const Placement p = policy_.Choose(request, N(preferred), except);
    switch (p.kind) {
      case Placement::kNode: return std::to_string(Number(p.node));
      case Placement::kBind: return std::to_string(Number(p.node)) + "!";
      case Placement::kWait: return "wait";
      case Placement::kInfeasible: reason_ = p.reason; return "never";
      case Placement::kRefused: reason_ = p.reason; return "refused";
    }
    return "";
  }
  static PlacementRequest Want(const std::map<std::string, double>& need = {{"CPU", 1}}) {
    PlacementRequest request;
    request.need = Set(need);
    return request;
  }

  ClusterView view_{7};
  PlacementPolicy policy_{{}, &view_};
  uint64_t version_ = 0;
  std::string reason_;
};

TEST_F(Policy, StaysHereBelowHalfThenTakesTheLeastUsed) {
  Cpus(1, 4, 3);
  Cpus(2, 4, 4);
  EXPECT_EQ(Choose(Want()), "1");
  Cpus(1, 4, 2);  // half
  EXPECT_EQ(Choose(Want()), "2");
  Cpus(2, 4, 1);
  EXPECT_EQ(Choose(Want()), "1");
  Cpus(2, 4, 2);
  EXPECT_EQ(Choose(Want()), "1") << "of equals the nearer one";
  Cpus(1, 4, 0);
  Cpus(2, 4, 0);
  EXPECT_EQ(Choose(Want()), "wait");
  EXPECT_EQ(Choose(Want({{"CPU", 5}})), "never");
  EXPECT_EQ(reason_, "no node has {CPU: 5}");
}

TEST_F(Policy, ChanceDecidesAmongTheBestFew) {
  for (uint32_t n = 1; n <= 20; ++n) Cpus(n, 10, n <= 5 ? 10 : 3);
  std::map<std::string, int> hits;
  for (int i = 0; i < 400; ++i) ++hits[Choose(Want(), 99)];
  EXPECT_EQ(hits.size(), 4u);  // a fifth of twenty
  for (const auto& [node, count] : hits) {
    EXPECT_LE(std::stoi(node), 5);
    EXPECT_GT(count, 50);
  }
}

TEST_F(Policy, TheBusiestResourceCounts) {
  Join(1, {{"CPU", 10}, {"memory", 10}}, {{"CPU", 10}, {"memory", 2}});
  Join(2, {{"CPU", 10}, {"memory", 10}}, {{"CPU", 6}, {"memory", 9}});
  EXPECT_EQ(Choose(Want()), "2");
}

TEST_F(Policy, WorkWithoutGpusAvoidsThem) {
  Join(1, {{"CPU", 4}, {"GPU", 1}}, {{"CPU", 4}, {"GPU", 1}});
  EXPECT_EQ(Choose(Want()), "1") << "there is nothing else";
  Cpus(2, 2, 1);
  EXPECT_EQ(Choose(Want()), "2");
  EXPECT_EQ(Choose(Want({{"GPU", 1}})), "1");
  Cpus(2, 2, 0);
  EXPECT_EQ(Choose(Want()), "1");
}

TEST_F(Policy, WhoStaysWithItsArgumentsMindsNeitherGpusNorLoad) {
  Join(1, {{"CPU", 4}, {"GPU", 1}}, {{"CPU", 1}, {"GPU", 1}});
  Cpus(2, 4, 4);
  PlacementRequest request = Want();
  EXPECT_EQ(Choose(request), "2");
  request.stick = true;
  EXPECT_EQ(Choose(request), "1");
  Join(1, {{"CPU", 4}, {"GPU", 1}}, {{"CPU", 0}, {"GPU", 1}});
  EXPECT_EQ(Choose(request), "2");
}

TEST_F(Policy, SpreadTakesTurns) {
  for (uint32_t n = 1; n <= 3; ++n) Cpus(n, 2, 2);
  PlacementRequest request = Want();
  request.strategy = Strategy::kSpread;
  std::string order;
  for (int i = 0; i < 6; ++i) order += Choose(request);
  EXPECT_EQ(order, "1!2!3!1!2!3!");
  Cpus(2, 2, 0);
  order.clear();
  for (int i = 0; i < 4; ++i) order += Choose(request);
  EXPECT_EQ(order, "1!3!1!3!");
  EXPECT_EQ(Choose(Want({{"CPU", 3}})), "never");
}

TEST_F(Policy, SpreadCanWaitAtTheNodeWhoseTurnItIs) {
  PlacementPolicy patient({.spread_waits_its_turn = true}, &view_);
  for (uint32_t n = 1; n <= 3; ++n) Cpus(n, 2, n == 2 ? 0 : 2);
  PlacementRequest request = Want();
  request.strategy = Strategy::kSpread;
  auto next = [&](const std::set<NodeId>& except = {}) { return patient.Choose(request, {}, except).node; };
  EXPECT_EQ(next(), N(1));
  EXPECT_EQ(next(), N(2));
  EXPECT_EQ(next(), N(3));
  EXPECT_EQ(next({N(2)}), N(1));  // it waited there in vain
  EXPECT_EQ(next(), N(3));
  EXPECT_EQ(next(), N(1));
  Cpus(2, 2, 2);
  EXPECT_EQ(next(), N(2));
  EXPECT_EQ(next(), N(3));
}

TEST_F(Policy, Affinity) {
  Cpus(1, 2, 2);
  Cpus(2, 2, 0);
  struct Case {
    uint32_t node;
    bool soft, spill, fail;
    double need;
    const char* expected;
  };
  for (const Case& c :
       {Case{2, false, false, false, 1, "2!"}, Case{2, true, false, false, 1, "2!"}, Case{2, true, true, false, 1, "1"},
        Case{2, false, false, true, 1, "refused"}, Case{1, false, false, true, 1, "1!"}, Case{9, false, false, false, 1, "refused"},
        Case{9, true, false, false, 1, "1"}, Case{2, false, false, false, 3, "refused"}, Case{2, true, false, false, 3, "never"}}) {
    PlacementRequest request = Want({{"CPU", c.need}});
    request.strategy = Strategy::kNodeAffinity;
    request.affinity_node = N(c.node);
    request.soft = c.soft;
    request.spill_on_unavailable = c.spill;
    request.fail_on_unavailable = c.fail;
    EXPECT_EQ(Choose(request), c.expected) << c.node << c.soft << c.spill << c.fail << c.need;
  }
}

TEST_F(Policy, LabelsAndAlternatives) {
  Cpus(1, 2, 2, {{"zone", "home"}});
  Cpus(2, 2, 2, {{"zone", "east"}, {"tier", "gold"}});
  Cpus(3, 2, 2, {{"zone", "west"}, {"tier", "silver"}});
  auto choose = [this](std::vector<Text> selectors, Text preferred = {}) {
    PlacementRequest request = Want();
    for (const Text& selector : selectors) request.selectors.emplace_back(selector);
    request.preferred = LabelSelector(preferred);
    return Choose(request);
  };
  EXPECT_EQ(choose({{{"zone", "east"}}}), "2");
  EXPECT_EQ(choose({{{"zone", "!home"}, {"tier", "silver"}}}), "3");
  EXPECT_EQ(choose({{{"zone", "in(home,west)"}, {"tier", "!silver"}}}), "1");
  EXPECT_EQ(choose({{{"zone", "mars"}}}), "never");
  EXPECT_EQ(reason_, "no node has {CPU: 1} with labels {zone: mars}");
  EXPECT_EQ(choose({{{"zone", "mars"}}, {{"tier", "silver"}}, {{"zone", "east"}}}), "3");
  Cpus(3, 2, 0, {{"zone", "west"}, {"tier", "silver"}});
  EXPECT_EQ(choose({{{"tier", "silver"}}, {{"zone", "east"}}}), "wait") << "full is not unfulfillable";
  EXPECT_EQ(choose({}, {{"tier", "gold"}}), "2");
  EXPECT_EQ(choose({}, {{"tier", "silver"}}), "1") << "preferred, not demanded";
}

TEST_F(Policy, ANodeThatIsNamedHasToHaveTheLabelsToo) {
  Cpus(1, 2, 2, {{"zone", "home"}});
  Cpus(2, 2, 2, {{"zone", "east"}});
  auto choose = [this](bool soft, std::vector<Text> selectors) {
    PlacementRequest request = Want();
    request.strategy = Strategy::kNodeAffinity;
    request.affinity_node = N(1);
    request.soft = soft;
    for (const Text& selector : selectors) request.selectors.emplace_back(selector);
    return Choose(request);
  };
  EXPECT_EQ(choose(false, {{{"zone", "home"}}}), "1!");
  EXPECT_EQ(choose(false, {{{"zone", "east"}}, {{"zone", "home"}}}), "1!");
  EXPECT_EQ(choose(false, {{{"zone", "east"}}}), "refused");
  EXPECT_EQ(choose(true, {{{"zone", "east"}}}), "2");
}

TEST_F(Policy, ThoseThatTurnedItAwayAreLeftOut) {
  Cpus(1, 2, 1);
  Cpus(2, 2, 2);
  EXPECT_EQ(Choose(Want(), 1), "2");
  EXPECT_EQ(Choose(Want(), 1, {N(2)}), "1");
  EXPECT_EQ(Choose(Want(), 1, {N(1), N(2)}), "wait");
}

// Whatever is chosen has room (or could have) and the labels, and something is chosen whenever there is such a node.
TEST(PolicyProperties, ChoicesAreValidAndComplete) {
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    SplitMix random(seed);
    ClusterView view(seed);
    PlacementPolicy policy({}, &view);
    const uint32_t count = 1 + static_cast<uint32_t>(random.Below(200));
    for (uint32_t n = 1; n <= count; ++n) {
      std::map<std::string, double> total{{"CPU", 1 + static_cast<double>(random.Below(8))}}, available;
      if (random.Below(4) == 0) total["GPU"] = 1;
      for (const auto& [name, amount] : total) available[name] = static_cast<double>(random.Below(static_cast<uint64_t>(amount) + 1));
      view.Set(N(n), Set(total), Set(available), {{"zone", std::to_string(random.Below(3))}}, 1);
    }
    for (int i = 0; i < 50; ++i) {
      PlacementRequest request;
      request.need = Set({{"CPU", 1 + static_cast<double>(random.Below(4))}});
      if (random.Below(3) == 0) request.strategy = Strategy::kSpread;
      if (random.Below(3) == 0) request.selectors.emplace_back(Text{{"zone", std::to_string(random.Below(4))}});
      std::set<NodeId> except;
      for (uint64_t k = random.Below(4); k > 0; --k) except.insert(N(1 + static_cast<uint32_t>(random.Below(count))));
      const Placement p = policy.Choose(request, N(1 + static_cast<uint32_t>(random.Below(count))), except);
      bool fits_now = false, fits_ever = false;
      view.ForEach([&](const ClusterView::Node& node) {
        const bool labels = request.selectors.empty() || request.selectors[0].Matches(node.labels);
        fits_ever |= labels && node.Covers(request.need, ClusterView::Fit::kEver);
        fits_now |= labels && node.Covers(request.need, ClusterView::Fit::kNow) && !except.contains(node.id);
      });
      EXPECT_EQ(p.kind == Placement::kInfeasible, !fits_ever) << "seed " << seed;
      if (p.kind == Placement::kNode || p.kind == Placement::kBind) {
        const auto* node = view.Find(p.node);
        ASSERT_NE(node, nullptr);
        // One whose turn it is may be full.
        EXPECT_TRUE(node->Covers(request.need, p.kind == Placement::kNode ? ClusterView::Fit::kNow : ClusterView::Fit::kEver));
        EXPECT_TRUE(request.selectors.empty() || request.selectors[0].Matches(node->labels));
        EXPECT_FALSE(except.contains(p.node));
      } else if (request.strategy == Strategy::kDefault) {
        EXPECT_FALSE(fits_now) << "seed " << seed;
      }
    }
  }
}

}  // namespace
}  // namespace ray::scheduling
