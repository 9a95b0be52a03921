#include "ray/testing/golden/golden.h"

#include <gtest/gtest.h>

namespace ray::testing {
namespace {

using std::chrono::milliseconds;

// Adds up, and says the sum whenever it is even.
Replayer Adder() {
  return [sum = uint64_t{0}](const GoldenEvent& event) mutable -> std::vector<std::string> {
    if (event.name() != "add") event.Fail("no such event");
    sum += event.Number(0) * event.Number("times", 1);
    if (sum % 2 != 0) return {};
    return {"even " + std::to_string(sum)};
  };
}

struct Outcome {
  std::vector<std::pair<int, std::string>> failures;
  std::string rewritten;
};
Outcome Replay(std::string_view text) {
  Outcome out;
  out.rewritten = ReplayGolden(text, Adder(), [&](int line, const std::string& message) { out.failures.emplace_back(line, message); });
  return out;
}

TEST(GoldenTest, AScenarioThatHoldsStaysAsItIs) {
  const std::string text = "# first\n> add 1\n\n# now even\n> add 1 times=3\neven 4\n# the end\n";
  const Outcome out = Replay(text);
  EXPECT_TRUE(out.failures.empty());
  EXPECT_EQ(out.rewritten, text);
}

TEST(GoldenTest, WhatDiffersIsToldAtItsEventAndRewritten) {
  const Outcome out = Replay("> add 2\neven 3\n\n> add 1\neven 7\n");
  ASSERT_EQ(out.failures.size(), 2u);
  EXPECT_EQ(out.failures[0].first, 1);
  EXPECT_NE(out.failures[0].second.find("even 2"), std::string::npos);
  EXPECT_EQ(out.failures[1].first, 4);
  EXPECT_EQ(out.rewritten, "> add 2\neven 2\n\n> add 1\n");
}

TEST(GoldenTest, ProblemsOfAnEvent) {
  EXPECT_EQ(Replay("> subtract 1\n").failures.at(0).second, "no such event");
  EXPECT_EQ(Replay("> add\neven 0\n").failures.at(0).second, "'add' lacks its argument 1");
  EXPECT_EQ(Replay("> add x\neven 0\n").failures.at(0).second, "'x' is no number");
  EXPECT_EQ(Replay("> add 1 2\n").failures.at(0).second, "'add' has no use for '2'");
  EXPECT_EQ(Replay("> add 1 time=2\n").failures.at(0).second, "'add' has no use for 'time='");
  EXPECT_EQ(Replay("even 0\n").failures.at(0).second, "effects before the first event");
}

TEST(GoldenTest, ArgumentsWithUnits) {
  const GoldenEvent event = GoldenEvent::Parse("go 2 64KiB 3MiB wait=50ms quickly");
  EXPECT_EQ(event.name(), "go");
  EXPECT_EQ(event.num_words(), 4u);
  EXPECT_EQ(event.Number(1), 65536u);
  EXPECT_EQ(event.Number(2), 3u << 20);
  EXPECT_EQ(event.Span("wait", {}), milliseconds(50));
  EXPECT_EQ(event.Span("pause", milliseconds(1)), milliseconds(1));
  EXPECT_TRUE(event.Has("quickly"));
  EXPECT_FALSE(event.Has("slowly"));
  EXPECT_EQ(event.Problem(), "'go' has no use for '2'");
  EXPECT_EQ(GoldenEvent::Parse("free 1 2 3").NumbersFrom(1), (std::vector<uint64_t>{2, 3}));
}

}  // namespace
}  // namespace ray::testing
