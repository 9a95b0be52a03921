#include "ray/gcs_server/health/health_core.h"

#include <gtest/gtest.h>

namespace ray::gcs {
namespace {

TEST(HealthCoreTest, EndOfTheNewestLinkIsDeath) {
  HealthCore core;
  NodeId node = NodeId::FromRandom();
  EXPECT_TRUE(core.LinkUp(node, 1));
  EXPECT_FALSE(core.LinkUp(node, 1));
  EXPECT_TRUE(core.LinkUp(node, 2));
  EXPECT_FALSE(core.LinkDown(node, 1)) << "it came back with a newer link";
  EXPECT_TRUE(core.LinkDown(node, 2));
  EXPECT_FALSE(core.LinkDown(node, 2));
}

TEST(HealthCoreTest, LeftInGoodOrder) {
  HealthCore core;
  NodeId node = NodeId::FromRandom();
  core.LinkUp(node, 1);
  core.Left(node);
  EXPECT_FALSE(core.LinkDown(node, 1));
}

constexpr Duration kSecond = std::chrono::seconds(1);
using Verdict = HealthCore::Verdict;

TEST(HealthCoreTest, NodeThatMissesProbesIsDead) {
  HealthCore core({.period = 3 * kSecond, .timeout = kSecond, .threshold = 3});
  const NodeId node = NodeId::FromRandom();
  Time now{0};
  core.LinkUp(node, 1, now);
  EXPECT_TRUE(core.Due(now).empty());
  auto probe = [&](Duration wait) {
    now = now + wait;
    EXPECT_EQ(core.NextDue(), now);
    EXPECT_EQ(core.Due(now).size(), 1u);
    EXPECT_TRUE(core.Due(now + 5 * kSecond).empty()) << "one at a time";
    EXPECT_TRUE(core.NextDue().is_infinite());
  };
  auto miss = [&] {
    now = now + kSecond;
    return core.OnProbe(node, 1, false, now);
  };
  probe(3 * kSecond);
  EXPECT_EQ(miss(), Verdict::kSuspect);
  probe(Duration::zero());
  EXPECT_EQ(miss(), Verdict::kSuspect);
  probe(Duration::zero());
  EXPECT_EQ(core.MissesOf(node), 2);
  EXPECT_EQ(core.OnProbe(node, 1, true, now), Verdict::kAlive);
  EXPECT_EQ(core.MissesOf(node), 0);
  probe(3 * kSecond);
  const Time begin = now;
  EXPECT_EQ(miss(), Verdict::kSuspect);
  probe(Duration::zero());
  EXPECT_EQ(miss(), Verdict::kSuspect);
  probe(Duration::zero());
  EXPECT_EQ(miss(), Verdict::kDead) << "the third in a row";
  EXPECT_EQ(now - begin, 3 * kSecond);
  EXPECT_EQ(core.OnProbe(node, 1, false, now), Verdict::kAlive) << "it is known no more";
  EXPECT_FALSE(core.LinkDown(node, 1)) << "it is dead already";
}

TEST(HealthCoreTest, MissesOfAProcessThatStoodStillItselfDoNotCount) {
  HealthCore core({.period = 3 * kSecond, .timeout = kSecond, .threshold = 1});
  const NodeId node = NodeId::FromRandom();
  Time now{0};
  core.LinkUp(node, 1, now);
  for (int i = 0; i < 5; ++i) {
    now = core.NextDue();
    ASSERT_EQ(core.Due(now).size(), 1u);
    now = now + 60 * kSecond;  // stopped for a minute: what came meanwhile has not been read
    EXPECT_EQ(core.OnProbe(node, 1, false, now), Verdict::kAlive);
    EXPECT_EQ(core.NextDue(), now) << "it is asked again at once";
  }
  ASSERT_EQ(core.Due(now).size(), 1u);
  EXPECT_EQ(core.OnProbe(node, 1, false, now + kSecond), Verdict::kDead) << "this one had its time";
}

TEST(HealthCoreTest, NodesAreProbedTogether) {
  HealthCore core({.period = 4 * kSecond, .timeout = kSecond, .threshold = 3});
  std::vector<NodeId> nodes;
  for (int i = 0; i < 10; ++i) {
    nodes.push_back(NodeId::FromRandom());
    core.LinkUp(nodes.back(), 1, Time{0} + i * kSecond / 10);
  }
  for (int round = 1; round <= 3; ++round) {
    EXPECT_EQ(core.NextDue(), Time{0} + 4 * round * kSecond);
    EXPECT_EQ(core.Due(core.NextDue()).size(), 10u);
    for (const NodeId& node : nodes) core.OnProbe(node, 1, true, Time{0});
  }
}

TEST(HealthCoreTest, NewLinkStartsAnew) {
  HealthCore core({.period = kSecond, .timeout = kSecond, .threshold = 1});
  const NodeId node = NodeId::FromRandom();
  core.LinkUp(node, 1, Time{0});
  ASSERT_EQ(core.Due(Time{0} + kSecond).size(), 1u);
  core.LinkUp(node, 2, Time{0} + kSecond);
  EXPECT_EQ(core.OnProbe(node, 1, false, Time{0} + kSecond), Verdict::kAlive) << "of the old link";
  EXPECT_EQ(core.Due(Time{0} + 2 * kSecond).size(), 1u);
}

TEST(HealthCoreTest, NoProbesWithoutAPeriod) {
  HealthCore core;
  core.LinkUp(NodeId::FromRandom(), 1);
  EXPECT_TRUE(core.Due(Time{0} + std::chrono::hours(1)).empty());
}

}  // namespace
}  // namespace ray::gcs
