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

TEST(NodeResources, ABundleHasItsOwnGpus) {
  NodeResources node(Set({{"CPU", 4}, {"GPU", 3}}));
  const BundleId first{PlacementGroupId::FromRandom(), 0};
  const auto before = node.Allocate(Set({{"GPU", 1}}));  // index 0
  ASSERT_TRUE(node.ReserveBundle(first, Set({{"CPU", 1}, {"GPU", 1.5}})));
  EXPECT_FALSE(node.Allocate(Set({{"CPU", 1}}), first));  // not open
  node.OpenBundle(first);
  const auto whole = node.Allocate(Set({{"GPU", 1}}), first);
  ASSERT_TRUE(whole);
  EXPECT_EQ(whole->instances[0].shares, (std::vector<std::pair<int32_t, int64_t>>{{1, 10000}}));
  EXPECT_FALSE(node.Allocate(Set({{"GPU", 1}}), first));
  const auto half = node.Allocate(Set({{"GPU", 0.5}}), {first.group, BundleId::kAny});
  ASSERT_TRUE(half);
  EXPECT_EQ(half->bundle, first);
  EXPECT_EQ(half->instances[0].shares, (std::vector<std::pair<int32_t, int64_t>>{{2, 5000}}));
  EXPECT_FALSE(node.Allocate(Set({{"CPU", 9}}), first));
  EXPECT_FALSE(node.Feasible(Set({{"CPU", 2}}), first));
  EXPECT_TRUE(node.Feasible(Set({{"CPU", 1}}), {first.group, BundleId::kAny}));
  node.CloseBundle(first);
  EXPECT_EQ(node.available(), Set({{"CPU", 3}, {"GPU", 0.5}}));
  node.TakeChangedBundles();
  node.Release(*whole);
  EXPECT_FALSE(node.HasDroppedBundle()) << "somebody holds something of it";
  node.Release(*half);
  EXPECT_TRUE(node.HasDroppedBundle());
  EXPECT_EQ(node.TakeChangedBundles().size(), 1u);
  EXPECT_FALSE(node.HasDroppedBundle());
  EXPECT_EQ(node.available(), Set({{"CPU", 4}, {"GPU", 2}}));
  node.Release(*before);
  EXPECT_TRUE(node.Allocate(Set({{"GPU", 3}})));
}

TEST(NodeResources, ARequestIsServedByOneBundle) {
  NodeResources node(Set({{"CPU", 4}}));
  const PlacementGroupId group = PlacementGroupId::FromRandom();
  for (int32_t i = 0; i < 2; ++i) {
    ASSERT_TRUE(node.ReserveBundle({group, i}, Set({{"CPU", 2}})));
    node.OpenBundle({group, i});
  }
  const auto a = node.Allocate(Set({{"CPU", 1}}), {group, 0});
  const auto b = node.Allocate(Set({{"CPU", 1}}), {group, 1});
  ASSERT_TRUE(a && b);
  EXPECT_FALSE(node.Allocate(Set({{"CPU", 2}}), {group, BundleId::kAny}));  // two halves are no whole
  node.Release(*a);
  EXPECT_EQ(node.Allocate(Set({{"CPU", 2}}), {group, BundleId::kAny})->bundle.index, 0);
}

}  // namespace
}  // namespace ray::scheduling
