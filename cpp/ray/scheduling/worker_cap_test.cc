#include "ray/scheduling/worker_cap.h"

#include <gtest/gtest.h>

namespace ray::scheduling {
namespace {

Time At(int64_t ms) { return Time{ms * 1'000'000}; }

class WorkerCapTest : public testing::Test {
 protected:
  WorkerCap::Kind Kind(double cpus, int64_t depth = 0) { return {job, *ResourceSet::FromDoubles({{"CPU", cpus}}), depth}; }
  const JobId job = JobId::FromInt(1);
  WorkerCap cap{{.delay = std::chrono::seconds(1)}, 2 * ResourceSet::kUnit};
};

TEST_F(WorkerCapTest, BeyondTheCpusEachWaitsTwiceAsLong) {
  const auto kind = Kind(1);
  for (int i = 0; i < 2; ++i) {
    ASSERT_TRUE(cap.Allows(kind, At(0)));
    cap.Granted(kind, At(0));
  }
  EXPECT_TRUE(cap.NextDeadline().is_infinite());
  EXPECT_FALSE(cap.Allows(kind, At(0)));
  EXPECT_EQ(cap.NextDeadline(), At(1000));
  EXPECT_FALSE(cap.Allows(kind, At(999)));
  int64_t now = 0;
  for (int64_t delay : {1000, 2000, 4000, 8000, 10000, 10000}) {
    EXPECT_FALSE(cap.Allows(kind, At(now)));
    now += delay;
    EXPECT_EQ(cap.NextDeadline(), At(now));
    cap.Tick(At(now));
    EXPECT_TRUE(cap.NextDeadline().is_infinite());  // it may go from now on, whenever it asks
    ASSERT_TRUE(cap.Allows(kind, At(now)));
    cap.Granted(kind, At(now));
  }
}

TEST_F(WorkerCapTest, ReturnsMakeRoomAndStartOver) {
  const auto kind = Kind(2);  // one at a time
  cap.Granted(kind, At(0));
  EXPECT_FALSE(cap.Allows(kind, At(0)));
  EXPECT_TRUE(cap.Allows(kind, At(1000)));
  cap.Granted(kind, At(1000));
  cap.Returned(kind);
  EXPECT_FALSE(cap.Allows(kind, At(1000)));  // one still runs
  cap.Returned(kind);
  EXPECT_TRUE(cap.Allows(kind, At(1000)));
  EXPECT_TRUE(cap.NextDeadline().is_infinite());
  cap.Granted(kind, At(1000));
  EXPECT_FALSE(cap.Allows(kind, At(1000)));
  EXPECT_EQ(cap.NextDeadline(), At(2000));
}

TEST_F(WorkerCapTest, ChildrenAndWhatHoldsNoCpuGoFree) {
  for (int i = 0; i < 2; ++i) cap.Granted(Kind(1), At(0));
  EXPECT_TRUE(cap.Allows(Kind(1, 1), At(0)));
  EXPECT_TRUE(cap.Allows(Kind(2), At(0)));
  for (int i = 0; i < 100; ++i) cap.Granted(Kind(0), At(0));
  EXPECT_TRUE(cap.Allows(Kind(0), At(0)));
  WorkerCap off({.enabled = false}, ResourceSet::kUnit);
  for (int i = 0; i < 100; ++i) off.Granted(Kind(1), At(0));
  EXPECT_TRUE(off.Allows(Kind(1), At(0)));
}

}  // namespace
}  // namespace ray::scheduling
