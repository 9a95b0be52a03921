#include "ray/raylet/router/tunnel_routes.h"

#include <gtest/gtest.h>

namespace ray::raylet {
namespace {

TEST(TunnelRoutesTest, EachEndIsToldOfTheOther) {
  TunnelRoutes routes;
  const WorkerId a = WorkerId::FromRandom(), b = WorkerId::FromRandom();
  const NodeId far = NodeId::FromRandom(), farther = NodeId::FromRandom();
  const Address x{far, WorkerId::FromRandom()}, y{far, WorkerId::FromRandom()}, raylet{farther, WorkerId::Nil()};
  routes.Add(a, x);
  routes.Add(a, x);
  routes.Add(a, raylet);
  routes.Add(b, x);
  routes.Add(b, y);
  EXPECT_EQ(routes.LocalGone(a).size(), 2u);
  EXPECT_TRUE(routes.LocalGone(a).empty());
  EXPECT_TRUE(routes.NodeGone(farther).empty()) << "its route went with a";
  routes.RemoteGone(b, y);
  const auto left = routes.NodeGone(far);
  ASSERT_EQ(left.size(), 1u);
  EXPECT_EQ(left[0].local, b);
  EXPECT_EQ(left[0].remote, x);
  EXPECT_TRUE(routes.empty());
}

}  // namespace
}  // namespace ray::raylet
