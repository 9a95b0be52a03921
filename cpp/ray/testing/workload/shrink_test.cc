#include "ray/testing/workload/shrink.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

namespace ray::sim {
namespace {

// What is left of the causes 0 ... last when those of `enough` bring the failure about together.
std::set<size_t> Kept(size_t last, const std::set<size_t>& enough, size_t tries = 1000) {
  const auto without = Shrink(last, tries, [&](const std::set<size_t>& left_out) {
    EXPECT_FALSE(left_out.empty());
    EXPECT_GT(tries--, 0u);
    return std::none_of(enough.begin(), enough.end(), [&](size_t cause) { return left_out.contains(cause); });
  });
  std::set<size_t> kept;
  for (size_t i = 0; i <= last; ++i) {
    if (!without.contains(i)) kept.insert(i);
  }
  return kept;
}

TEST(ShrinkTest, KeepsWhatIsNeeded) {
  for (size_t last : {0u, 1u, 2u, 7u, 30u, 99u}) {
    EXPECT_EQ(Kept(last, {}), (std::set<size_t>{}));
    EXPECT_EQ(Kept(last, {0}), (std::set<size_t>{0}));
    EXPECT_EQ(Kept(last, {last}), (std::set<size_t>{last}));
    EXPECT_EQ(Kept(last, {last / 3, last / 2, last}), (std::set<size_t>{last / 3, last / 2, last}));
  }
}

TEST(ShrinkTest, IsContentWithLessWhenTheTriesAreUsedUp) {
  const auto kept = Kept(99, {3, 50}, 5);
  EXPECT_TRUE(kept.contains(3) && kept.contains(50));
  EXPECT_EQ(Kept(99, {3, 50}, 0).size(), 100u);
}

// Where chance shifts, leaving more out may help: what was tried in vain is tried again when something else has gone.
TEST(ShrinkTest, TriesAgainWhatFailedWithOthers) {
  const auto without =
      Shrink(1, 100, [](const std::set<size_t>& left_out) { return left_out == std::set<size_t>{0} || left_out.size() == 2; });
  EXPECT_EQ(without, (std::set<size_t>{0, 1}));
}

}  // namespace
}  // namespace ray::sim
