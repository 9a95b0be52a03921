// PullCore and PushCore: what no scenario says (transfer_golden_test). Whole clusters of them: transfer_progress_test.
#include <gtest/gtest.h>

#include <string>

#include "ray/object_manager/transfer/pull_core.h"
#include "ray/object_manager/transfer/push_core.h"

namespace ray::object_manager {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr Time kNow{int64_t{1000000000}};

NodeId Node(uint32_t n) {
  std::string bytes(NodeId::kSize, '\0');
  bytes[0] = static_cast<char>(n);
  bytes[1] = static_cast<char>(n >> 8);
  return NodeId::FromBinaryOrNil(bytes);
}

ObjectId Object(uint32_t n) { return ObjectId::FromBinaryOrNil(std::string(ObjectId::kSize, static_cast<char>(n))); }

TEST(PullCore, TheLastNodesThatDiedAreRemembered) {
  PullCore core({.self = Node(0)});
  PullEffects out;
  for (uint32_t node = 1; node <= 10000; ++node) core.OnNodeDead(Node(node), kNow, &out);
  ASSERT_TRUE(out.empty());
  core.Want({1, Object(7), 4 * kMiB, {Node(10000), Node(9000)}}, kNow, &out);
  ASSERT_EQ(out.size(), 1u);
  const auto* answer = std::get_if<PullAnswered>(out.data());
  ASSERT_NE(answer, nullptr);
  EXPECT_EQ(answer->status.code(), StatusCode::kNotFound);
  EXPECT_EQ(answer->missing, (std::vector{Node(10000), Node(9000)}));
  out.clear();
  core.Want({2, Object(8), 4 * kMiB, {Node(1)}}, kNow, &out);  // that it is dead is found out when it is asked
  ASSERT_EQ(out.size(), 1u);
  EXPECT_TRUE(std::holds_alternative<RoomWanted>(out[0]));
}

// Each of them was named to the next one while its notice that it left was lost.
TEST(TransferCores, OfThreeNodesThatAreNamedToEachOtherInACircleOneIsRefusedAtOnce) {
  constexpr uint32_t kNodes = 3;
  PullCore pulls[kNodes] = {PullCore({.self = Node(1)}), PullCore({.self = Node(2)}), PullCore({.self = Node(3)})};
  PushCore pushes[kNodes] = {PushCore({}), PushCore({}), PushCore({})};
  std::vector<FetchWanted> asked[kNodes];
  int refused = 0;
  for (uint32_t i = 0; i < kNodes; ++i) {
    PullEffects out;
    pulls[i].Want({1, Object(7), 4 * kMiB, {Node(9)}}, kNow, &out);
    pulls[i].OnRoom(Object(7), 1, Status::Ok(), false, kNow, &out);
    pushes[i].OnPartial(Object(7), 4 * kMiB, 0);
    for (const PullEffect& effect : std::exchange(out, {})) {
      if (const auto* fetch = std::get_if<FetchWanted>(&effect)) asked[i].push_back(*fetch);
    }
  }
  for (uint32_t i = 0; i < kNodes; ++i) {
    // Node 9 names the next one, as deep as that was when it asked.
    const uint32_t next = (i + 1) % kNodes;
    PullEffects out;
    pulls[i].OnRefused(asked[i].back().fetch, Refusal::kElsewhere, Node(next + 1), 1, kNow, &out);
    for (const PullEffect& effect : std::exchange(out, {})) {
      const auto* fetch = std::get_if<FetchWanted>(&effect);
      if (fetch == nullptr) continue;
      PushEffects refusals;
      pushes[i].OnPartialDepth(fetch->id, fetch->depth, &refusals);
      pushes[next].OnRequest({i + 1, Node(i + 1), fetch->id, fetch->offset, fetch->length, fetch->insist, fetch->depth}, kNow, &refusals);
      for (const PushEffect& refusal : refusals) refused += std::holds_alternative<ServeRefused>(refusal);
    }
  }
  EXPECT_GE(refused, 1);
}

}  // namespace
}  // namespace ray::object_manager
