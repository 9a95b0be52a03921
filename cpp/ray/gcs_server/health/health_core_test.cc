#include "ray/gcs_server/health/health_core.h"

#include <gtest/gtest.h>

namespace ray::gcs {
namespace {

TEST(HealthCoreTest, EndOfTheNewestLinkIsDeath) {
  HealthCore core;
  NodeId node = NodeId::FromRandom();
  EXPECT_TRUE(core.LinkUp(node, 1));
  EXPECT_FALSE(core.LinkUp(node, 1));
  EXPECT_TRUE(core.LinkUp(node, 2));
  EXPECT_FALSE(core.LinkDown(node, 1)) << "it came back with a newer link";
  EXPECT_TRUE(core.LinkDown(node, 2));
  EXPECT_FALSE(core.LinkDown(node, 2));
}

TEST(HealthCoreTest, LeftInGoodOrder) {
  HealthCore core;
  NodeId node = NodeId::FromRandom();
  core.LinkUp(node, 1);
  core.Left(node);
  EXPECT_FALSE(core.LinkDown(node, 1));
}

}  // namespace
}  // namespace ray::gcs
