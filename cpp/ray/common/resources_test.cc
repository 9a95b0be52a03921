#include "ray/common/resources.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace ray {
namespace {

ResourceSet Make(const std::map<std::string, double>& amounts) { return ResourceSet::FromDoubles(amounts).value(); }

TEST(ResourceSetTest, ConvertsExactly) {
  ResourceSet set = Make({{"GPU", 0.1}, {"CPU", 2}, {"memory", 17179869184.0}, {"none", 0}});
  EXPECT_EQ(set.Get("CPU"), 20000);
  EXPECT_EQ(set.Get("GPU"), 1000);
  EXPECT_EQ(set.Get("memory"), 17179869184 * ResourceSet::kUnit);
  EXPECT_EQ(set.items().size(), 3u);
  EXPECT_EQ(set.ToDoubles(), (std::map<std::string, double>{{"CPU", 2}, {"GPU", 0.1}, {"memory", 17179869184.0}}));
  EXPECT_EQ(set.ToString(), "{CPU: 2, GPU: 0.1, memory: 17179869184}");
}

TEST(ResourceSetTest, TenTenthsAreOne) {
  ResourceSet sum;
  for (int i = 0; i < 10; ++i) sum.Add(Make({{"CPU", 0.1}}));
  EXPECT_EQ(sum, Make({{"CPU", 1}}));
}

TEST(ResourceSetTest, RefusesBadAmounts) {
  for (double bad : {-1.0, 0.00001, 1.00005, 2e14, std::nan(""), std::numeric_limits<double>::infinity()}) {
    auto result = ResourceSet::FromDoubles({{"CPU", bad}});
    ASSERT_FALSE(result.ok()) << bad;
    EXPECT_EQ(result.status().code(), StatusCode::kInvalidArgument);
    EXPECT_NE(result.status().message().find("CPU"), std::string::npos);
  }
  EXPECT_TRUE(ResourceSet::FromDoubles({{"CPU", 1e14}}).ok());
}

TEST(ResourceSetTest, SetKeepsOrderAndDropsZeros) {
  ResourceSet set;
  set.Set("b", 2);
  set.Set("a", 1);
  set.Set("c", 3);
  set.Set("b", 0);
  set.Set("x", 0);
  EXPECT_EQ(set.items(), (std::vector<std::pair<std::string, int64_t>>{{"a", 1}, {"c", 3}}));
}

TEST(ResourceSetTest, SubtractMayGoBelowZeroAndBack) {
  ResourceSet set = Make({{"CPU", 1}});
  set.Subtract(Make({{"CPU", 2}, {"GPU", 1}}));
  EXPECT_EQ(set.ToString(), "{CPU: -1, GPU: -1}");
  EXPECT_FALSE(set.Covers(Make({{"CPU", 0.0001}})));
  EXPECT_TRUE(set.Covers(Make({})));
  set.Add(Make({{"CPU", 2}, {"GPU", 1}}));
  EXPECT_EQ(set, Make({{"CPU", 1}}));
}

TEST(ResourceSetTest, WithItself) {
  ResourceSet set = Make({{"CPU", 1}, {"GPU", 2}});
  set.Add(set);
  EXPECT_EQ(set, Make({{"CPU", 2}, {"GPU", 4}}));
  set.Subtract(set);
  EXPECT_TRUE(set.empty());
}

TEST(ResourceSetTest, CoversEachName) {
  ResourceSet have = Make({{"CPU", 2}, {"GPU", 0.5}});
  EXPECT_TRUE(have.Covers(Make({{"CPU", 2}})));
  EXPECT_TRUE(have.Covers(have));
  EXPECT_FALSE(have.Covers(Make({{"CPU", 2.0001}})));
  EXPECT_FALSE(have.Covers(Make({{"CPU", 1}, {"TPU", 1}})));
}

TEST(ResourceSetTest, SumsSaturate) {
  ResourceSet set;
  set.Set("CPU", INT64_MAX - 1);
  set.Add(Make({{"CPU", 1}}));
  EXPECT_EQ(set.Get("CPU"), INT64_MAX);
}

}  // namespace
}  // namespace ray
