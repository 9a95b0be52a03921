#include "ray/raylet/nodes/link_core.h"

#include <gtest/gtest.h>

namespace ray::raylet {
namespace {

constexpr Duration kMs = std::chrono::milliseconds(1);

template <typename Effect>
std::vector<Effect> All(const LinkEffects& effects) {
  std::vector<Effect> found;
  for (const auto& effect : effects) {
    if (const auto* e = std::get_if<Effect>(&effect)) found.push_back(*e);
  }
  return found;
}

class LinkCoreTest : public testing::Test {
 protected:
  LinkEffects Take() { return std::exchange(out_, {}); }
  // Dials the node's control lane.
  LinkNo Dialled(LinkCore& core, Time now) {
    core.Want(node_, Lane::kControl, now, &out_);
    const auto dials = All<DialLink>(Take());
    return dials.size() == 1 ? dials[0].link : 0;
  }
  const NodeId self_ = NodeId::FromRandom(), node_ = NodeId::FromRandom();
  const Time t_{0};
  LinkEffects out_;
};

TEST_F(LinkCoreTest, DialsWhenWantedAndOnce) {
  LinkCore core(self_, true, {});
  core.OnAlive(node_, "h:1", t_, &out_);
  EXPECT_EQ(All<NodeJoined>(out_).size(), 1u);
  EXPECT_TRUE(All<DialLink>(Take()).empty()) << "not before somebody wants to send";
  core.Want(node_, Lane::kControl, t_, &out_);
  const auto dials = All<DialLink>(Take());
  ASSERT_EQ(dials.size(), 1u);
  EXPECT_EQ(dials[0].address, "h:1");
  EXPECT_EQ(core.Current(node_, Lane::kControl), dials[0].link) << "usable at once";
  EXPECT_EQ(core.Current(node_, Lane::kBulk), 0u);
  EXPECT_EQ(Dialled(core, t_), 0u);
  core.OnAlive(node_, "h:1", t_, &out_);
  EXPECT_TRUE(Take().empty()) << "no news";
}

TEST_F(LinkCoreTest, BacksOffWhileDialsFail) {
  LinkCore core(self_, true, {.min_backoff = 50 * kMs, .max_backoff = 120 * kMs});
  core.OnAlive(node_, "h:1", t_, &out_);
  Time now = t_;
  for (const int wait : {50, 100, 120, 120}) {
    const LinkNo link = Dialled(core, now);
    ASSERT_NE(link, 0u);
    core.OnClosed(node_, Lane::kControl, link, "refused", now, &out_);
    EXPECT_EQ(All<LinkBroke>(Take()).size(), 1u);
    EXPECT_EQ(Dialled(core, now + (wait - 1) * kMs), 0u);
    now = now + wait * kMs;
  }
  const LinkNo link = Dialled(core, now);
  core.OnUp(node_, Lane::kControl, link);
  core.OnClosed(node_, Lane::kControl, link, "cut", now, &out_);
  EXPECT_EQ(Dialled(core, now + 49 * kMs), 0u) << "a link that breaks as soon as it is up must not be dialled in a loop";
  EXPECT_NE(Dialled(core, now + 50 * kMs), 0u) << "the count of failures began anew";
}

TEST_F(LinkCoreTest, KeepsSendingOverTheLinkUsedFirst) {
  LinkCore core(self_, true, {});
  core.OnAlive(node_, "h:1", t_, &out_);
  const LinkNo mine = Dialled(core, t_), theirs = core.NewLink();
  EXPECT_TRUE(core.OnIncoming(node_, Lane::kControl, theirs, &out_));
  EXPECT_EQ(core.Current(node_, Lane::kControl), mine);
  EXPECT_TRUE(All<LinkUp>(Take()).empty());
  core.OnClosed(node_, Lane::kControl, mine, "cut", t_, &out_);
  EXPECT_EQ(All<LinkBroke>(Take()).size(), 1u);
  EXPECT_EQ(core.Current(node_, Lane::kControl), theirs);
  core.OnClosed(node_, Lane::kControl, theirs, "cut", t_, &out_);
  EXPECT_EQ(All<LinkBroke>(Take()).size(), 1u);
  EXPECT_EQ(core.Current(node_, Lane::kControl), 0u);
}

TEST_F(LinkCoreTest, NodeThatCannotBeDialledIsWaitedFor) {
  LinkCore core(self_, true, {});
  core.OnAlive(node_, "", t_, &out_);
  Take();
  EXPECT_EQ(Dialled(core, t_), 0u);
  EXPECT_TRUE(core.MayComeUp(node_));
  EXPECT_TRUE(core.OnIncoming(node_, Lane::kControl, core.NewLink(), &out_));
  EXPECT_EQ(All<LinkUp>(Take()).size(), 1u);

  LinkCore outgoing(self_, false, {});
  outgoing.OnAlive(node_, "", t_, &out_);
  EXPECT_FALSE(outgoing.MayComeUp(node_)) << "neither can dial the other";
}

TEST_F(LinkCoreTest, NodeThatCannotBeDialledDialsAll) {
  LinkCore core(self_, false, {.min_backoff = 50 * kMs});
  core.OnAlive(node_, "h:1", t_, &out_);
  const auto dials = All<DialLink>(Take());
  ASSERT_EQ(dials.size(), 2u) << "both lanes";
  EXPECT_EQ(core.NextDeadline(), t_ + LinkConfig().patience);
  core.OnUp(node_, Lane::kControl, dials[0].link);
  core.OnUp(node_, Lane::kBulk, dials[1].link);
  EXPECT_TRUE(core.NextDeadline().is_infinite());
  core.OnClosed(node_, Lane::kControl, dials[0].link, "cut", t_, &out_);
  Take();
  EXPECT_EQ(core.NextDeadline(), t_ + 50 * kMs);
  core.Tick(t_ + 50 * kMs, &out_);
  EXPECT_EQ(All<DialLink>(Take()).size(), 1u);
}

TEST_F(LinkCoreTest, DeathDropsLinksAndIsForGood) {
  LinkCore core(self_, true, {});
  core.OnAlive(node_, "h:1", t_, &out_);
  const LinkNo link = Dialled(core, t_);
  core.OnDead(node_, "it left", &out_);
  const LinkEffects effects = Take();
  ASSERT_EQ(effects.size(), 2u);
  EXPECT_TRUE(std::holds_alternative<NodeGone>(effects[0])) << "before its links close";
  EXPECT_EQ(std::get<DropLink>(effects[1]).link, link);
  core.OnClosed(node_, Lane::kControl, link, "dropped", t_, &out_);
  EXPECT_TRUE(Take().empty());
  EXPECT_FALSE(core.OnIncoming(node_, Lane::kControl, core.NewLink(), &out_)) << "a zombie is refused";
  core.OnAlive(node_, "h:1", t_, &out_);
  core.OnDead(node_, "again", &out_);
  EXPECT_TRUE(Take().empty());
  EXPECT_FALSE(core.MayComeUp(node_));
}

TEST_F(LinkCoreTest, LinkMayComeBeforeTheNewsOfItsNode) {
  LinkCore core(self_, true, {});
  EXPECT_TRUE(core.MayComeUp(node_)) << "unknown so far";
  const LinkNo link = core.NewLink();
  EXPECT_TRUE(core.OnIncoming(node_, Lane::kControl, link, &out_));
  EXPECT_FALSE(core.IsAlive(node_));
  Take();
  core.OnAlive(node_, "h:1", t_, &out_);
  EXPECT_EQ(All<NodeJoined>(Take()).size(), 1u);
  EXPECT_EQ(core.Current(node_, Lane::kControl), link);
}

}  // namespace
}  // namespace ray::raylet
