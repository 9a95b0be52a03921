#include "ray/object_manager/table/remote_owners.h"

#include <gtest/gtest.h>

namespace ray::object_manager {
namespace {

using Noted = RemoteOwners::Noted;

WorkerId Worker(uint8_t n) { return WorkerId::FromBinaryOrNil(std::string(WorkerId::kSize, static_cast<char>(n))); }
NodeId Node(uint8_t n) { return NodeId::FromBinaryOrNil(std::string(NodeId::kSize, static_cast<char>(n))); }

TEST(RemoteOwnersTest, AProcessIsForgottenWhenItDies) {
  RemoteOwners owners;
  EXPECT_EQ(owners.Note(Worker(1), Node(1)), Noted::kNew);
  EXPECT_EQ(owners.Note(Worker(1), Node(1)), Noted::kKnown);
  EXPECT_EQ(owners.Note(Worker(2), Node(1)), Noted::kNew);
  EXPECT_EQ(owners.NodeOf(Worker(1)), Node(1));
  EXPECT_EQ(owners.size(), 2u);
  owners.OnWorkerDied(Worker(1));
  EXPECT_TRUE(owners.NodeOf(Worker(1)).IsNil());
  EXPECT_EQ(owners.Note(Worker(1), Node(1)), Noted::kDead);  // late
  EXPECT_EQ(owners.size(), 1u);
}

TEST(RemoteOwnersTest, ANodeTakesItsProcessesAlong) {
  RemoteOwners owners;
  owners.Note(Worker(3), Node(1));
  owners.Note(Worker(1), Node(1));
  owners.Note(Worker(2), Node(2));
  EXPECT_EQ(owners.OnNodeDied(Node(1)), (std::vector<WorkerId>{Worker(1), Worker(3)}));
  EXPECT_TRUE(owners.OnNodeDied(Node(1)).empty());
  EXPECT_EQ(owners.Note(Worker(4), Node(1)), Noted::kDead);
  EXPECT_EQ(owners.size(), 1u);
}

TEST(RemoteOwnersTest, ManyProcessesThatCameAndWentLeaveNothing) {
  RemoteOwners owners;
  for (int i = 0; i < 20000; ++i) {
    const WorkerId worker = WorkerId::FromRandom();
    owners.Note(worker, Node(1));
    owners.OnWorkerDied(worker);
  }
  EXPECT_EQ(owners.size(), 0u);
}

}  // namespace
}  // namespace ray::object_manager
