#include "ray/util/recent_set.h"

#include <gtest/gtest.h>

namespace ray {
namespace {

TEST(RecentSetTest, KeepsTheLatest) {
  RecentSet<int, std::hash<int>> set(3);
  EXPECT_TRUE(set.empty());
  for (int i = 1; i <= 3; ++i) EXPECT_TRUE(set.insert(i));
  EXPECT_FALSE(set.insert(1));
  EXPECT_TRUE(set.insert(4));
  EXPECT_EQ(set.size(), 3u);
  EXPECT_FALSE(set.contains(1));
  for (int i = 2; i <= 4; ++i) EXPECT_TRUE(set.contains(i));
  EXPECT_TRUE(set.insert(1));
  EXPECT_FALSE(set.contains(2));
}

}  // namespace
}  // namespace ray
