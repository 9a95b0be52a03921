// The check finds each kind of history that cannot be.
#include "ray/testing/workload/actor_history.h"

#include <gtest/gtest.h>

namespace ray::sim {
namespace {

Time At(int64_t ms) { return Time{} + std::chrono::milliseconds(ms); }

class ActorHistoryTest : public testing::Test {
 protected:
  void Done(CallId call, LogPlace place, int64_t made, int64_t ran, int64_t answered) {
    history_.Submitted(call, 0, At(made));
    history_.Executed(call, place, At(ran));
    history_.Settled(call, CallOutcome::kDone, place, At(answered));
  }
  bool Finds(const std::string& text) { return history_.Check().find(text) != std::string::npos; }
  ActorHistory history_;
};

TEST_F(ActorHistoryTest, AcceptsWhatCanBe) {
  Done({1, 0}, {0, 0}, 0, 2, 4);
  Done({2, 0}, {0, 1}, 1, 3, 5);
  history_.Submitted({1, 1}, 0, At(6));  // ran, and nobody was told
  history_.Executed({1, 1}, {0, 2}, At(7));
  history_.Settled({1, 1}, CallOutcome::kUnavailable, {}, At(8));
  Done({1, 2}, {1, 0}, 9, 10, 11);
  EXPECT_EQ(history_.Check(), "");
  EXPECT_EQ(history_.settled(CallOutcome::kDone), 3U);
  EXPECT_EQ(history_.executed(), 4U);
}

TEST_F(ActorHistoryTest, EveryCallHasOneOutcome) {
  history_.Submitted({1, 0}, 0, At(0));
  EXPECT_EQ(history_.Check(/*at_rest=*/false), "");
  EXPECT_TRUE(Finds("no outcome"));
  history_.CallerDied(1);
  EXPECT_EQ(history_.Check(), "");
  history_.Settled({1, 0}, CallOutcome::kDead, {}, At(1));
  history_.Settled({1, 0}, CallOutcome::kUnavailable, {}, At(2));
  EXPECT_TRUE(Finds("two outcomes"));
}

TEST_F(ActorHistoryTest, RunsAreCounted) {
  history_.Submitted({1, 0}, 1, At(0));
  history_.Executed({1, 0}, {0, 0}, At(1));
  history_.Executed({1, 0}, {1, 0}, At(2));
  EXPECT_EQ(history_.Check(/*at_rest=*/false), "");
  history_.Executed({1, 0}, {1, 1}, At(3));
  EXPECT_TRUE(Finds("ran 3 times, with 1 retries"));
}

TEST_F(ActorHistoryTest, AnswersTellWhatHappened) {
  history_.Submitted({1, 0}, 0, At(0));
  history_.Settled({1, 0}, CallOutcome::kDone, {0, 0}, At(1));
  EXPECT_TRUE(Finds("where it is not"));
}

TEST_F(ActorHistoryTest, CallsRunBeforeTheirAnswer) {
  Done({1, 0}, {0, 0}, 0, 5, 3);
  EXPECT_TRUE(Finds("between its call and its answer"));
}

TEST_F(ActorHistoryTest, CallersKeepTheirOrder) {
  Done({1, 0}, {0, 1}, 0, 5, 6);
  Done({1, 1}, {0, 0}, 1, 4, 7);
  EXPECT_TRUE(Finds("overtook"));
}

TEST_F(ActorHistoryTest, RealTimeIsKeptAcrossCallers) {
  Done({1, 0}, {0, 1}, 0, 1, 2);
  Done({2, 0}, {0, 0}, 3, 4, 5);
  EXPECT_TRUE(Finds("comes before it in the log"));
}

}  // namespace
}  // namespace ray::sim
