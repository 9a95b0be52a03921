#include "ray/raylet/drain/drain_core.h"

#include <gtest/gtest.h>

namespace ray::raylet {
namespace {

using std::chrono::seconds;

Time At(int s) { return Time{} + seconds(s); }

std::string Show(const DrainEffects& effects) {
  std::string text;
  for (const DrainEffect& effect : effects) {
    if (!text.empty()) text += "; ";
    if (std::holds_alternative<StopGrants>(effect)) text += "stop";
    if (const auto* tell = std::get_if<TellGcsDraining>(&effect))
      text += "tell " + tell->reason + " " + std::to_string(std::chrono::duration_cast<seconds>(tell->left).count());
    if (std::holds_alternative<LetWorkersFinish>(effect)) text += "finish";
    if (std::holds_alternative<LetWorkersGo>(effect)) text += "go";
    if (std::holds_alternative<SaveObjects>(effect)) text += "save";
    if (const auto* leave = std::get_if<LeaveNode>(&effect)) text += "leave " + leave->reason;
  }
  return text;
}

template <typename Event>
std::string After(Event event) {
  DrainEffects effects;
  event(&effects);
  return Show(effects);
}

constexpr char kDone[] = "leave drained (SIGTERM): nothing runs here, and what was here is elsewhere";

TEST(DrainCoreTest, WhatKeepsANodeFromBeingIdle) {
  EXPECT_EQ(DescribeLoad({}), "");
  EXPECT_EQ(DescribeLoad({.leases = 2}), "2 leases for tasks and actors");
  EXPECT_EQ(DescribeLoad({.drivers = 1, .objects = 3}), "1 drivers, 3 objects of which it has the primary copy");
}

TEST(DrainCoreTest, ANodeWithoutWorkOrObjectsLeavesAtOnce) {
  DrainCore core;
  EXPECT_EQ(After([&](auto* out) { core.OnWork(0, 0, out); }), "");
  EXPECT_FALSE(core.draining());
  EXPECT_EQ(After([&](auto* out) { core.Begin("SIGTERM", seconds(30), At(1), out); }), "stop; tell SIGTERM 30; finish; save");
  EXPECT_TRUE(core.draining());
  EXPECT_EQ(After([&](auto* out) { core.OnSaved(0, At(1), out); }), kDone);
  EXPECT_TRUE(core.NextDeadline().is_infinite());
}

TEST(DrainCoreTest, RunningWorkMayFinish) {
  DrainCore core;
  After([&](auto* out) { core.OnWork(2, 3, out); });
  EXPECT_EQ(After([&](auto* out) { core.Begin("SIGTERM", seconds(30), At(1), out); }), "stop; tell SIGTERM 30; finish; save");
  EXPECT_EQ(core.NextDeadline(), At(31));
  EXPECT_EQ(After([&](auto* out) { core.OnSaved(7, At(2), out); }), "") << "objects of those that still run";
  EXPECT_EQ(After([&](auto* out) { core.OnWork(1, 2, out); }), "");
  EXPECT_EQ(After([&](auto* out) { core.Tick(At(30), out); }), "");
  EXPECT_EQ(After([&](auto* out) { core.OnWork(0, 1, out); }), "go");
  EXPECT_EQ(After([&](auto* out) { core.OnWork(0, 0, out); }), "save");
  EXPECT_EQ(After([&](auto* out) { core.OnSaved(0, At(30), out); }), kDone);
  EXPECT_EQ(After([&](auto* out) { core.Tick(At(40), out); }), "") << "it leaves once";
}

TEST(DrainCoreTest, APassThatBeganTooEarlyIsNotTheLast) {
  DrainCore core;
  After([&](auto* out) { core.OnWork(1, 1, out); });
  After([&](auto* out) { core.Begin("SIGTERM", seconds(30), At(1), out); });
  EXPECT_EQ(After([&](auto* out) { core.OnWork(0, 0, out); }), "") << "one is under way";
  EXPECT_EQ(After([&](auto* out) { core.OnSaved(0, At(2), out); }), "save") << "it may have missed what the last worker left";
  EXPECT_EQ(After([&](auto* out) { core.OnSaved(0, At(3), out); }), kDone);
}

TEST(DrainCoreTest, WhatCouldNotBeSavedIsTriedAgainUntilTheDeadline) {
  DrainCore core;
  After([&](auto* out) { core.Begin("SIGTERM", seconds(10), At(1), out); });
  EXPECT_EQ(After([&](auto* out) { core.OnSaved(1, At(2), out); }), "");
  EXPECT_EQ(core.NextDeadline(), At(2) + std::chrono::milliseconds(200));
  EXPECT_EQ(After([&](auto* out) { core.Tick(At(3), out); }), "save");
  EXPECT_EQ(core.NextDeadline(), At(11));
  EXPECT_EQ(After([&](auto* out) { core.Tick(At(11), out); }), "leave drained (SIGTERM): the deadline is over");
  EXPECT_EQ(After([&](auto* out) { core.OnSaved(1, At(12), out); }), "");
}

TEST(DrainCoreTest, TheDeadlineEndsTheWait) {
  DrainCore core;
  After([&](auto* out) { core.OnWork(1, 1, out); });
  After([&](auto* out) { core.Begin("preemption", seconds(5), At(1), out); });
  EXPECT_EQ(After([&](auto* out) { core.Tick(At(6), out); }), "leave drained (preemption): the deadline is over");
  EXPECT_EQ(After([&](auto* out) { core.OnWork(0, 0, out); }), "");
  EXPECT_EQ(After([&](auto* out) { core.Begin("SIGTERM", seconds(1), At(7), out); }), "");
}

TEST(DrainCoreTest, ASecondOrderOnlyShortensTheTime) {
  DrainCore core;
  After([&](auto* out) { core.OnWork(1, 1, out); });
  After([&](auto* out) { core.Begin("SIGTERM", seconds(10), At(0), out); });
  EXPECT_EQ(After([&](auto* out) { core.Begin("again", seconds(10), At(5), out); }), "");
  EXPECT_EQ(core.NextDeadline(), At(10));
  EXPECT_EQ(After([&](auto* out) { core.Begin("again", seconds(2), At(5), out); }), "tell SIGTERM 2");
  EXPECT_EQ(core.NextDeadline(), At(7));
}

}  // namespace
}  // namespace ray::raylet
