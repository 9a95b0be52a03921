#include "ray/scheduling/node_resources.h"

#include <gtest/gtest.h>

namespace ray::scheduling {
namespace {

ResourceSet Set(const std::map<std::string, double>& amounts) { return *ResourceSet::FromDoubles(amounts); }
using Shares = std::vector<std::pair<int32_t, int64_t>>;

Shares GpuOf(const std::optional<Allocation>& allocation) {
  EXPECT_TRUE(allocation.has_value());
  if (!allocation || allocation->instances.empty()) return {};
  return allocation->instances[0].shares;
}

TEST(NodeResources, TakesAndReleases) {
  NodeResources node(Set({{"CPU", 2}, {"x", 1}}));
  auto a = node.Allocate(Set({{"CPU", 1.5}}));
  ASSERT_TRUE(a);
  EXPECT_FALSE(node.Allocate(Set({{"CPU", 1}})));
  EXPECT_FALSE(node.Allocate(Set({{"y", 1}})));
  auto b = node.Allocate(Set({{"CPU", 0.5}, {"x", 1}}));
  ASSERT_TRUE(b);
  EXPECT_EQ(node.available(), Set({}));
  node.Release(*a);
  node.Release(*b);
  EXPECT_EQ(node.available(), node.total());
}

TEST(NodeResources, EmptyDemandAlwaysFits) {
  NodeResources node(Set({{"CPU", 1}}));
  ASSERT_TRUE(node.Allocate(Set({{"CPU", 1}})));
  EXPECT_TRUE(node.Allocate(Set({})));
}

TEST(NodeResources, WholeUnitsTakeFreeIndices) {
  NodeResources node(Set({{"GPU", 4}}));
  EXPECT_EQ(GpuOf(node.Allocate(Set({{"GPU", 2}}))), (Shares{{0, 10000}, {1, 10000}}));
  EXPECT_EQ(GpuOf(node.Allocate(Set({{"GPU", 1}}))), (Shares{{2, 10000}}));
}

TEST(NodeResources, FractionsShareOneIndex) {
  NodeResources node(Set({{"GPU", 2}}));
  EXPECT_EQ(GpuOf(node.Allocate(Set({{"GPU", 0.4}}))), (Shares{{0, 4000}}));
  EXPECT_EQ(GpuOf(node.Allocate(Set({{"GPU", 0.6}}))), (Shares{{0, 6000}}));
  EXPECT_EQ(GpuOf(node.Allocate(Set({{"GPU", 0.7}}))), (Shares{{1, 7000}}));
}

TEST(NodeResources, AFractionPrefersAnIndexThatIsShared) {
  NodeResources node(Set({{"GPU", 2}}));
  const auto whole = node.Allocate(Set({{"GPU", 1}}));
  EXPECT_EQ(GpuOf(node.Allocate(Set({{"GPU", 0.5}}))), (Shares{{1, 5000}}));
  node.Release(*whole);
  EXPECT_EQ(GpuOf(node.Allocate(Set({{"GPU", 0.25}}))), (Shares{{1, 2500}}));
}

TEST(NodeResources, BrokenUnitsDoNotMakeAWholeOne) {
  NodeResources node(Set({{"GPU", 2}}));
  const auto a = node.Allocate(Set({{"GPU", 0.6}}));
  const auto b = node.Allocate(Set({{"GPU", 0.6}}));
  EXPECT_EQ(node.available().Get("GPU"), 8000);
  EXPECT_FALSE(node.Allocate(Set({{"GPU", 0.5}})));
  node.Release(*a);
  EXPECT_EQ(GpuOf(node.Allocate(Set({{"GPU", 1}}))), (Shares{{0, 10000}}));
}

TEST(NodeResources, ShrinkKeepsTheIndex) {
  NodeResources node(Set({{"CPU", 1}, {"GPU", 2}}));
  auto a = node.Allocate(Set({{"CPU", 1}, {"GPU", 2}}));
  node.ShrinkTo(Set({{"GPU", 1}}), &*a);
  EXPECT_EQ(node.available(), Set({{"CPU", 1}, {"GPU", 1}}));
  EXPECT_EQ(GpuOf(a), (Shares{{0, 10000}}));
  node.ShrinkTo(Set({}), &*a);
  EXPECT_EQ(node.available(), node.total());
  node.Release(*a);
  EXPECT_EQ(node.available(), node.total());
}

TEST(NodeResources, BlockedWorkersMayOverdrawTheCpu) {
  NodeResources node(Set({{"CPU", 1}}));
  const auto a = node.Allocate(Set({{"CPU", 1}}));
  node.GiveBack("CPU", 10000);
  const auto b = node.Allocate(Set({{"CPU", 1}}));
  ASSERT_TRUE(b);
  node.TakeAgain("CPU", 10000);
  EXPECT_EQ(node.available().Get("CPU"), -10000);
  node.Release(*b);
  EXPECT_FALSE(node.Allocate(Set({{"CPU", 1}})));
  node.Release(*a);
  EXPECT_EQ(node.available(), node.total());
}

}  // namespace
}  // namespace ray::scheduling
