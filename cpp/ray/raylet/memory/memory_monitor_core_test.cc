#include "ray/raylet/memory/memory_monitor_core.h"

#include <gtest/gtest.h>

namespace ray::raylet {
namespace {

Time At(int64_t s) { return Time{s * 1'000'000'000}; }

MemoryCandidate Worker(const WorkerId& owner, bool retriable, int64_t leased) {
  return {WorkerId::FromRandom(), owner, "f", 1, 1, retriable, At(leased)};
}

class MemoryMonitorCoreTest : public testing::Test {
 protected:
  size_t Choose(const std::vector<MemoryCandidate>& candidates, bool by_group = false) {
    MemoryMonitorConfig config;
    config.by_group = by_group;
    return *MemoryMonitorCore(config).Choose(candidates, At(0));
  }
  const WorkerId a = WorkerId::FromRandom(), b = WorkerId::FromRandom();
};

TEST_F(MemoryMonitorCoreTest, TheThresholdLeavesAtMostTheFreeBytesAsked) {
  EXPECT_EQ(MemoryMonitorCore({}).ThresholdOf(1000), 950u);
  MemoryMonitorConfig config;
  config.min_free_bytes = 10;
  EXPECT_EQ(MemoryMonitorCore(config).ThresholdOf(1000), 990u);
  config.min_free_bytes = 500;
  EXPECT_EQ(MemoryMonitorCore(config).ThresholdOf(1000), 950u);
}

TEST_F(MemoryMonitorCoreTest, OneVictimAtATime) {
  MemoryMonitorCore core({});
  const std::vector<MemoryCandidate> workers{Worker(a, true, 1), Worker(a, true, 2)};
  EXPECT_FALSE(core.WantsVictim({950, 1000}, At(0)));
  EXPECT_FALSE(core.WantsVictim({5, 0}, At(0)));  // nothing could be read
  ASSERT_TRUE(core.WantsVictim({951, 1000}, At(0)));
  EXPECT_EQ(core.Choose(workers, At(0)), 1u);
  EXPECT_FALSE(core.WantsVictim({990, 1000}, At(1)));
  EXPECT_TRUE(core.WantsVictim({990, 1000}, At(6)));  // it does not go
  core.OnEnded(workers[0].worker);                    // another one
  EXPECT_FALSE(core.WantsVictim({990, 1000}, At(1)));
  core.OnEnded(workers[1].worker);
  EXPECT_TRUE(core.WantsVictim({990, 1000}, At(1)));
  EXPECT_EQ(core.Choose({}, At(1)), std::nullopt);
}

TEST_F(MemoryMonitorCoreTest, RetriableFirstThenNewest) {
  EXPECT_EQ(Choose({Worker(a, false, 9), Worker(a, true, 1), Worker(a, true, 5), Worker(a, false, 7)}), 2u);
  EXPECT_EQ(Choose({Worker(a, false, 7), Worker(a, false, 9)}), 1u);
}

TEST_F(MemoryMonitorCoreTest, AnOwnerKeepsItsLastWorkerIfThatCanBe) {
  EXPECT_EQ(Choose({Worker(a, true, 1), Worker(a, true, 2), Worker(b, true, 9)}), 1u);
  EXPECT_EQ(Choose({Worker(a, true, 1), Worker(b, true, 9)}), 1u);
  EXPECT_EQ(Choose({Worker(a, false, 1), Worker(a, false, 2), Worker(b, true, 1)}), 2u);  // what can be run again goes before
}

TEST_F(MemoryMonitorCoreTest, ByGroupTheLargestOwnerLosesItsYoungest) {
  EXPECT_EQ(Choose({Worker(a, true, 1), Worker(a, true, 2), Worker(b, true, 9)}, true), 1u);
  EXPECT_EQ(Choose({Worker(a, true, 3), Worker(b, true, 4)}, true), 1u);
  EXPECT_EQ(Choose({Worker(a, false, 8), Worker(a, false, 9), Worker(b, true, 1)}, true), 2u);
  EXPECT_EQ(Choose({Worker(a, false, 8), Worker(a, false, 9), Worker(b, false, 1)}, true), 1u);  // a group each
}

TEST_F(MemoryMonitorCoreTest, TheTextTellsUseThresholdAndTopProcesses) {
  const std::string text = DescribeOutOfMemory({9'600'000'000, 10'000'000'000}, 9'500'000'000, Worker(a, true, 1), "IP: 127.0.0.1",
                                               {{7, 1'000'000, "small"}, {8, 5'000'000'000, "ray::hog"}});
  EXPECT_NE(text.find("9.60 GB / 10.00 GB (0.960)"), text.npos) << text;
  EXPECT_NE(text.find("threshold of 0.950"), text.npos) << text;
  EXPECT_LT(text.find("8\t5.00 GB\tray::hog"), text.find("7\t0.00 GB\tsmall")) << text;
}

}  // namespace
}  // namespace ray::raylet
