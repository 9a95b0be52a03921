#include "ray/scheduling/slot_set.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <vector>

#include "ray/scheduling/cluster_view.h"
#include "ray/scheduling/slot_index.h"
#include "ray/scheduling/slot_max.h"

namespace ray::scheduling {
namespace {

TEST(SlotSetTest, AgreesWithASet) {
  for (const uint32_t range : {60u, 64u, 5000u, 600000u}) {
    SplitMix random(range);
    SlotSet slots;
    std::set<uint32_t> plain;
    for (int step = 0; step < 20000; ++step) {
      const auto slot = static_cast<uint32_t>(random.Below(range));
      const bool in = random.Below(3) == 0;
      slots.Assign(slot, in);
      if (in) {
        plain.insert(slot);
      } else {
        plain.erase(slot);
      }
      ASSERT_EQ(slots.Contains(slot), in);
      ASSERT_EQ(slots.size(), plain.size());
      const auto from = static_cast<uint32_t>(random.Below(range + 10));
      const auto next = plain.lower_bound(from);
      ASSERT_EQ(slots.NextFrom(from), next == plain.end() ? SlotSet::kNone : *next) << "range " << range << ", from " << from;
      if (step % 100 != 0) continue;
      const auto to = static_cast<uint32_t>(random.Below(range + 10));
      std::vector<uint32_t> walked;
      EXPECT_FALSE(slots.Walk(from, to, [&](uint32_t visited) {
        walked.push_back(visited);
        return false;
      }));
      ASSERT_EQ(walked, from < to ? std::vector<uint32_t>(next, plain.lower_bound(to)) : std::vector<uint32_t>());
    }
    slots.Clear();
    EXPECT_TRUE(slots.empty());
    EXPECT_EQ(slots.NextFrom(0), SlotSet::kNone);
  }
}

TEST(SlotSetTest, GrowsByLevels) {
  SlotSet slots;
  for (const uint32_t slot : {0u, 63u, 64u, 4095u, 4096u, 262143u, 262144u}) {
    slots.Assign(slot, true);
    EXPECT_EQ(slots.NextFrom(slot), slot);
    EXPECT_EQ(slots.NextFrom(slot + 1), SlotSet::kNone);
    EXPECT_EQ(slots.NextFrom(0), 0u);
  }
  EXPECT_EQ(slots.NextFrom(1), 63u);
  EXPECT_EQ(slots.NextFrom(65), 4095u);
  EXPECT_EQ(slots.NextFrom(4097), 262143u);
}

// Few hashes, so that many are the same and long runs of entries move up when one is erased.
TEST(SlotIndexTest, AgreesWithAMap) {
  for (const uint64_t hashes : {3u, 20u, 1000000u}) {
    SplitMix random(hashes);
    SlotIndex index;
    std::map<uint32_t, size_t> plain;  // slot -> hash
    for (int step = 0; step < 20000; ++step) {
      const auto slot = static_cast<uint32_t>(random.Below(60));
      if (const auto it = plain.find(slot); it == plain.end()) {
        plain[slot] = random.Below(hashes);
        index.Insert(plain[slot], slot);
      } else if (random.Below(2) == 0) {
        index.Erase(it->second, slot);
        plain.erase(it);
      }
      ASSERT_EQ(index.size(), plain.size());
      const auto wanted = static_cast<uint32_t>(random.Below(60));
      const auto it = plain.find(wanted);
      const size_t hash = it == plain.end() ? random.Below(hashes) : it->second;
      ASSERT_EQ(index.Find(hash, [&](uint32_t other) { return other == wanted; }), it == plain.end() ? SlotIndex::kNone : wanted);
    }
  }
}

TEST(SlotMaxTest, AgreesWithAPlainList) {
  for (const uint32_t size : {1u, 7u, 8u, 9u, 64u, 65u, 3000u}) {
    SplitMix random(size);
    SlotMax slots;
    slots.Clear(size);
    EXPECT_EQ(slots.max(), SlotMax::kNothing);
    std::vector<int64_t> plain(size, SlotMax::kNothing);
    for (int step = 0; step < 3000; ++step) {
      const auto slot = static_cast<uint32_t>(random.Below(size));
      plain[slot] = static_cast<int64_t>(random.Below(1000));
      slots.Set(slot, plain[slot]);
      const auto from = static_cast<uint32_t>(random.Below(size + 2));
      const auto amount = static_cast<int64_t>(random.Below(1001));
      uint32_t expected = from;
      while (expected < size && plain[expected] < amount) ++expected;
      ASSERT_EQ(slots.NextAtLeast(from, amount), expected < size ? expected : SlotMax::kNone) << size << ", from " << from;
      if (step % 100 == 0) {
        ASSERT_EQ(slots.max(), *std::max_element(plain.begin(), plain.end()));
      }
    }
  }
}

}  // namespace
}  // namespace ray::scheduling
