#include "ray/core_worker/execute/run_queue_core.h"

#include <gtest/gtest.h>

namespace ray::core {
namespace {

TEST(RunQueueCore, NormalTasksOneAtATimeInOrderOfReadiness) {
  RunQueueCore q;
  q.AddTask(1, false, false);
  q.AddTask(2, true, false);
  EXPECT_EQ(q.Next(), 2u);
  EXPECT_EQ(q.Next(), std::nullopt);
  q.SetReady(1);
  EXPECT_FALSE(q.HasRunnable());
  q.Finished(2);
  EXPECT_EQ(q.Next(), 1u);
}

TEST(RunQueueCore, TasksInOrderAreNotOvertaken) {
  RunQueueCore q;
  q.AddTask(1, false, false);
  q.AddTask(2, true, false);
  q.AddTask(3, false, true);
  q.AddTask(4, true, true);
  EXPECT_EQ(q.Next(), 2u);
  q.Finished(2);
  EXPECT_FALSE(q.HasRunnable());
  EXPECT_TRUE(q.IsStalled());
  EXPECT_EQ(q.Next(), std::nullopt);
  q.SetReady(3);
  EXPECT_EQ(q.Next(), 3u);
  q.Finished(3);
  EXPECT_EQ(q.Next(), 4u);
  q.Finished(4);
  q.AddTask(5, false, true);
  q.AddTask(6, true, true);
  EXPECT_TRUE(q.Remove(5));
  EXPECT_EQ(q.Next(), 6u);
}

TEST(RunQueueCore, CallsStartInOrderPerCaller) {
  RunQueueCore q;
  q.Configure(10, {});
  EXPECT_TRUE(q.AddCall(1, 7, 1, 1, "", false, true));
  EXPECT_EQ(q.Next(), std::nullopt);
  EXPECT_TRUE(q.AddCall(2, 8, 1, 0, "", false, true));  // another caller does not wait
  EXPECT_EQ(q.Next(), 2u);
  EXPECT_TRUE(q.AddCall(3, 7, 1, 0, "", false, false));
  EXPECT_TRUE(q.AddCall(4, 7, 1, 2, "", true, true));  // may overtake
  EXPECT_EQ(q.Next(), 4u);
  EXPECT_EQ(q.Next(), std::nullopt);
  q.SetReady(3);
  EXPECT_EQ(q.Next(), 3u);
  EXPECT_EQ(q.Next(), 1u);
  EXPECT_FALSE(q.AddCall(5, 7, 1, 2, "", false, true));
  EXPECT_TRUE(q.AddCall(6, 7, 1, 3, "", false, true));
  EXPECT_EQ(q.Next(), 6u);
}

TEST(RunQueueCore, NewEpochStartsAfresh) {
  RunQueueCore q;
  q.Configure(10, {});
  q.AddCall(1, 7, 1, 5, "", false, true);
  EXPECT_TRUE(q.AddCall(2, 7, 2, 0, "", false, true));
  EXPECT_EQ(q.Next(), 2u);
  EXPECT_EQ(q.unstarted(), 0u);
  EXPECT_FALSE(q.AddCall(3, 7, 1, 0, "", false, true));
}

TEST(RunQueueCore, GroupsHaveTheirOwnLimits) {
  RunQueueCore q;
  q.Configure(1, {{"io", 2}});
  for (uint64_t i = 0; i < 3; ++i) q.AddCall(10 + i, 7, 1, i, "io", false, true);
  q.AddCall(20, 7, 1, 3, "", false, true);
  q.AddCall(21, 7, 1, 4, "unknown", false, true);
  EXPECT_EQ(q.Next(), 20u);
  EXPECT_EQ(q.Next(), 10u);
  EXPECT_EQ(q.Next(), 11u);
  EXPECT_EQ(q.Next(), std::nullopt);
  q.Finished(10);
  EXPECT_EQ(q.Next(), 12u);
  q.Finished(20);
  EXPECT_EQ(q.Next(), 21u);
}

TEST(RunQueueCore, StealRemoveAndDrop) {
  RunQueueCore q;
  for (uint64_t i = 1; i <= 4; ++i) q.AddTask(i, true, false);
  EXPECT_EQ(q.Next(), 1u);
  EXPECT_EQ(q.TakeUnstarted(2), (std::vector<RunNo>{4, 3}));
  EXPECT_TRUE(q.Remove(2));
  EXPECT_FALSE(q.Remove(1));
  EXPECT_TRUE(q.TakeUnstarted(0).empty());
  RunQueueCore a;
  a.Configure(1, {});
  a.AddCall(1, 7, 1, 0, "", false, true);
  a.AddCall(2, 7, 1, 1, "", false, false);
  a.AddCall(3, 7, 1, 3, "", false, true);
  EXPECT_EQ(a.DropCaller(7), (std::vector<RunNo>{3}));  // number 2 will never come
  EXPECT_EQ(a.Next(), 1u);
  a.Finished(1);
  a.SetReady(2);
  EXPECT_EQ(a.Next(), 2u);
  EXPECT_EQ(a.num_callers(), 0u);
}

TEST(RunQueueCore, ForgetsACallerThatIsGoneWithTheLastThatWaited) {
  RunQueueCore q;
  q.Configure(1, {});
  for (uint64_t i = 0; i < 3; ++i) EXPECT_TRUE(q.AddCall(i + 1, 7, 1, i, "", false, false));
  EXPECT_TRUE(q.DropCaller(7).empty());
  EXPECT_EQ(q.num_callers(), 1u);
  q.SetReady(2);
  EXPECT_TRUE(q.Remove(1));
  EXPECT_EQ(q.num_callers(), 1u);
  EXPECT_TRUE(q.Remove(3));
  EXPECT_EQ(q.num_callers(), 0u);
  EXPECT_EQ(q.Next(), 2u);
}

TEST(RunQueueCore, StallsWhileAllThatItHasWaitsForArguments) {
  RunQueueCore q;
  EXPECT_FALSE(q.IsStalled()) << "there is nothing to run";
  q.AddTask(1, false, false);
  q.AddTask(2, false, false);
  EXPECT_TRUE(q.IsStalled());
  q.SetReady(2);
  EXPECT_FALSE(q.IsStalled()) << "one could run";
  EXPECT_EQ(q.Next(), 2u);
  EXPECT_FALSE(q.IsStalled()) << "one runs";
  q.Finished(2);
  EXPECT_TRUE(q.IsStalled());
  q.Remove(1);
  EXPECT_FALSE(q.IsStalled());
}

}  // namespace
}  // namespace ray::core
