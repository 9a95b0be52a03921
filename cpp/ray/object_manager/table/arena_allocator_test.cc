#include "ray/object_manager/table/arena_allocator.h"

#include <gtest/gtest.h>

#include <random>

namespace ray::object_manager {
namespace {

constexpr uint64_t kMiB = 1024 * 1024;

TEST(ArenaAllocator, AlignsBlocks) {
  ArenaAllocator a(8 * kMiB);
  EXPECT_EQ(a.Allocate(1)->offset, 0u);
  EXPECT_EQ(a.Allocate(100)->offset, 64u);
  EXPECT_EQ(a.Allocate(kMiB)->offset, 4096u);  // large: at a page
  EXPECT_EQ(a.TEST_CheckInvariants(), "");
}

TEST(ArenaAllocator, ZeroBytesTakeAPlace) {
  ArenaAllocator a(kMiB);
  EXPECT_NE(a.Allocate(0)->offset, a.Allocate(0)->offset);
}

TEST(ArenaAllocator, RefusesWhatDoesNotFit) {
  ArenaAllocator a(kMiB);
  EXPECT_FALSE(a.Allocate(kMiB + 1));
  EXPECT_FALSE(a.Allocate(UINT64_MAX));
  EXPECT_TRUE(a.Allocate(kMiB));
  EXPECT_FALSE(a.Allocate(1));
}

TEST(ArenaAllocator, ReusesWarmBlocksFirst) {
  ArenaAllocator a(64 * kMiB);
  auto x = a.Allocate(4 * kMiB);
  EXPECT_EQ(x->warm_bytes, 0u);
  auto keep = a.Allocate(kMiB);
  a.Free(x->offset, Time{1});
  auto y = a.Allocate(4 * kMiB);
  EXPECT_EQ(y->offset, x->offset);
  EXPECT_EQ(y->warm_bytes, 4 * kMiB);
  a.Free(keep->offset, Time{2});
}

TEST(ArenaAllocator, PrefersTheMostRecentlyFreedOfEqualBlocks) {
  ArenaAllocator a(64 * kMiB);
  std::vector<uint64_t> blocks;
  for (int i = 0; i < 7; ++i) blocks.push_back(a.Allocate(kMiB)->offset);
  a.Free(blocks[1], Time{1});
  a.Free(blocks[3], Time{3});
  a.Free(blocks[5], Time{2});
  EXPECT_EQ(a.Allocate(kMiB)->offset, blocks[3]);
  EXPECT_EQ(a.Allocate(kMiB)->offset, blocks[5]);
  EXPECT_EQ(a.Allocate(kMiB)->offset, blocks[1]);
}

TEST(ArenaAllocator, GrowsAWarmRangeIntoTheColdOneBehindIt) {
  ArenaAllocator a(64 * kMiB);
  a.Free(a.Allocate(4 * kMiB)->offset, Time{1});
  auto b = a.Allocate(6 * kMiB);
  EXPECT_EQ(b->offset, 0u);
  EXPECT_EQ(b->warm_bytes, 4 * kMiB);
}

TEST(ArenaAllocator, WarmsAheadAndSkipsWhatWasAllocatedMeanwhile) {
  ArenaAllocator a(64 * kMiB);
  a.Allocate(kMiB);
  auto fresh = a.NextFresh(8 * kMiB);
  ASSERT_EQ(fresh, (Range{kMiB, 9 * kMiB}));
  a.Allocate(2 * kMiB);  // while the pages are being made
  a.MarkWarm(*fresh, Time{1});
  EXPECT_EQ(a.warm_free_bytes(), 6 * kMiB);
  EXPECT_EQ(a.TEST_CheckInvariants(), "");
  EXPECT_EQ(a.NextFresh(kMiB), (Range{9 * kMiB, 10 * kMiB}));
}

TEST(ArenaAllocator, TrimsOnlyWhatIsIdleAndAboveTheFloor) {
  using std::chrono::seconds;
  ArenaAllocator a(64 * kMiB);
  a.Free(a.Allocate(16 * kMiB)->offset, Time{0});
  Time minute = Time{} + seconds(60);
  EXPECT_TRUE(a.Trim(Time{} + seconds(59), seconds(60), 0, 64 * kMiB).empty());
  EXPECT_TRUE(a.Trim(minute, seconds(60), 16 * kMiB, 64 * kMiB).empty());
  auto out = a.Trim(minute, seconds(60), 4 * kMiB, 8 * kMiB);
  ASSERT_EQ(out, (std::vector<Range>{{8 * kMiB, 16 * kMiB}}));
  out = a.Trim(minute, seconds(60), 4 * kMiB, 8 * kMiB);
  ASSERT_EQ(out, (std::vector<Range>{{4 * kMiB, 8 * kMiB}}));
  EXPECT_EQ(a.NextFresh(kMiB), (Range{4 * kMiB, 5 * kMiB}));
  EXPECT_EQ(a.TEST_CheckInvariants(), "");
}

TEST(ArenaAllocator, Property) {
  for (uint32_t seed = 1; seed <= 6; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937_64 rng(seed);
    ArenaAllocator a(32 * kMiB);
    std::vector<std::pair<uint64_t, uint64_t>> live;  // offset, size
    Time now{};
    for (int step = 0; step < 1500; ++step) {
      now = now + std::chrono::milliseconds(rng() % 100);
      uint64_t dice = rng() % 100;
      if (dice < 55) {
        uint64_t size = rng() % 3 == 0 ? rng() % (4 * kMiB) : rng() % 100000;
        if (auto b = a.Allocate(size)) {
          for (auto [offset, other] : live) {
            ASSERT_TRUE(b->offset + size <= offset || offset + other <= b->offset) << "overlap";
          }
          if (size >= kMiB) {
            ASSERT_EQ(b->offset % 4096, 0u);
          }
          live.emplace_back(b->offset, size);
        }
      } else if (dice < 95) {
        if (live.empty()) continue;
        size_t i = rng() % live.size();
        a.Free(live[i].first, now);
        live[i] = live.back();
        live.pop_back();
      } else if (dice < 98) {
        if (auto r = a.NextFresh(rng() % kMiB)) a.MarkWarm(*r, now);
      } else {
        a.Trim(now, std::chrono::seconds(1), kMiB, 4 * kMiB);
      }
      if (step % 10 == 0) {
        ASSERT_EQ(a.TEST_CheckInvariants(), "") << "step " << step;
      }
    }
    for (auto [offset, size] : live) a.Free(offset, now);
    EXPECT_EQ(a.free_bytes(), a.capacity());
    EXPECT_TRUE(a.Allocate(a.capacity()));  // everything merged again
  }
}

}  // namespace
}  // namespace ray::object_manager
