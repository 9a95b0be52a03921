#include "ray/raylet/deaths/met_nodes.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace ray::raylet {
namespace {

TEST(MetNodesTest, TheEndIsForThoseThatWereMet) {
  MetNodes met;
  const WorkerId a = WorkerId::FromRandom(), b = WorkerId::FromRandom();
  std::vector<NodeId> nodes = {NodeId::FromRandom(), NodeId::FromRandom()};
  std::ranges::sort(nodes);
  for (int i = 0; i < 2; ++i) {
    for (const NodeId& node : nodes) met.Meet(a, node);
  }
  met.Meet(b, nodes[1]);
  EXPECT_EQ(met.Ended(a), nodes);
  EXPECT_EQ(met.Ended(a), std::vector<NodeId>()) << "it is forgotten";
  EXPECT_EQ(met.Ended(WorkerId::FromRandom()), std::vector<NodeId>()) << "it has met nobody";
  EXPECT_EQ(met.Ended(b), std::vector<NodeId>{nodes[1]});
  EXPECT_EQ(met.size(), 0u);
}

TEST(MetNodesTest, WhoHasMetManyHasMetAll) {
  MetNodes met(2);
  const WorkerId worker = WorkerId::FromRandom();
  const NodeId first = NodeId::FromRandom();
  met.Meet(worker, first);
  met.Meet(worker, NodeId::FromRandom());
  met.Meet(worker, first);
  EXPECT_EQ(met.Ended(worker)->size(), 2u);
  for (int i = 0; i < 9; ++i) met.Meet(worker, NodeId::FromRandom());
  EXPECT_EQ(met.Ended(worker), std::nullopt);
  EXPECT_EQ(met.size(), 0u);
}

}  // namespace
}  // namespace ray::raylet
