#include "ray/gcs_server/tables/placement_group_table_core.h"

#include <gtest/gtest.h>

#include <map>

#include "ray/wire/convert.h"

namespace ray::gcs {
namespace {

using std::chrono::milliseconds;

template <typename Id>
Id Named(uint8_t n) {
  Id id;
  for (size_t i = 0; i < Id::kSize; ++i) id.mutable_data()[i] = n;
  return id;
}
PlacementGroupId G(uint8_t n) { return Named<PlacementGroupId>(n); }
NodeId N(uint8_t n) { return Named<NodeId>(n); }
ResourceSet Cpus(double n) { return *ResourceSet::FromDoubles({{"CPU", n}}); }

// Drives a core and shows its effects as one line of text: what goes to nodes, answers, and states as published.
class PlacementGroups : public testing::Test {
 protected:
  void Join(uint8_t node, double cpus) {
    view_.Set(N(node), Cpus(cpus), Cpus(cpus), {}, ++version_);
    last_ = Do([&](Effects* out) { core_.ResourcesChanged(now_, 0, out); });
  }
  std::string Report(uint8_t node, double free) {
    view_.SetAvailable(N(node), Cpus(free), ++version_);
    return Do([&](Effects* out) { core_.ResourcesChanged(now_, 0, out); });
  }
  std::string Die(uint8_t node) {
    view_.Remove(N(node));
    return Do([&](Effects* out) { core_.NodeDied(N(node), now_, 0, out); });
  }
  v1::CreatePlacementGroupRequest Want(uint8_t id, const std::vector<double>& bundles,
                                       v1::PlacementStrategy strategy = v1::PLACEMENT_STRATEGY_PACK) {
    v1::CreatePlacementGroupRequest request;
    request.mutable_group()->set_placement_group_id(G(id).Binary());
    request.mutable_group()->set_strategy(strategy);
    request.mutable_group()->set_job_id(Named<JobId>(1).Binary());
    for (const double cpus : bundles) ToProto(Cpus(cpus), request.mutable_group()->add_bundles()->mutable_resources());
    return request;
  }
  std::string Create(const v1::CreatePlacementGroupRequest& request) {
    return Do([&](Effects* out) { core_.Create(request, ++call_, now_, 0, out); });
  }
  std::string Prepared(uint8_t id, uint32_t attempt, uint8_t node, bool ok = true) {
    return Do([&](Effects* out) { core_.Prepared(G(id), attempt, N(node), ok, now_, 0, out); });
  }
  std::string Committed(uint8_t id, uint32_t attempt, uint8_t node, bool ok = true) {
    return Do([&](Effects* out) { core_.Committed(G(id), attempt, N(node), ok, now_, 0, out); });
  }
  std::string Remove(uint8_t id) {
    return Do([&](Effects* out) { core_.Remove(G(id), ++call_, now_, out); });
  }
  std::string TickAt(Duration d) {
    now_ = Time{} + d;
    return Do([&](Effects* out) { core_.Tick(now_, 0, out); });
  }
  template <typename F>
  std::string Do(F f) {
    Effects out;
    f(&out);
    return Text(out);
  }
  std::string Text(const Effects& effects) {
    std::string text;
    auto add = [&text](const std::string& s) { text += (text.empty() ? "" : ", ") + s; };
    auto n = [](const auto& id) { return std::to_string(id.data()[0]); };
    auto list = [](const auto& indices) {
      std::string s;
      for (const auto& i : indices) s += " " + std::to_string(i);
      return s;
    };
    bool persisted = false;
    for (const auto& effect : effects) {
      if (std::get_if<Persist>(&effect)) persisted = true;
      if (const auto* a = std::get_if<Answer>(&effect)) {
        EXPECT_TRUE(!a->status.ok() || persisted || text.empty());
        add(a->status.ok() ? "ok" : std::string(StatusCodeName(a->status.code())));
      }
      if (const auto* p = std::get_if<PrepareOnNode>(&effect)) {
        std::vector<int32_t> indices;
        for (const auto& [index, need] : p->bundles) indices.push_back(index);
        add("prepare " + n(p->group) + "." + std::to_string(p->attempt) + " on " + n(p->node) + ":" + list(indices) +
            (p->commit ? " and commit" : ""));
      }
      if (const auto* c = std::get_if<CommitOnNode>(&effect)) {
        add("commit " + n(c->group) + "." + std::to_string(c->attempt) + " on " + n(c->node) + ":" + list(c->indices));
      }
      if (const auto* r = std::get_if<ReturnOnNode>(&effect)) {
        add("return " + n(r->group) + " on " + n(r->node) + (r->reason.empty() ? ":" + list(r->indices) : ""));
      }
      if (std::get_if<TellDriver>(&effect)) add("tell");
      if (const auto* p = std::get_if<Publish>(&effect)) {
        EXPECT_TRUE(persisted) << "published before it was durable";
        add(v1::PlacementGroupState_Name(p->notice.placement_group().state()).substr(sizeof("PLACEMENT_GROUP_STATE_") - 1));
      }
    }
    return text;
  }

  scheduling::ClusterView view_;
  PlacementGroupTableCore core_{{}, &view_};
  Time now_;
  uint64_t version_ = 0;
  CallToken call_ = 0;
  std::string last_;
};

TEST_F(PlacementGroups, OneNodeTakesBothPhasesAtOnce) {
  Join(1, 4);
  EXPECT_EQ(Create(Want(7, {1, 1})), "ok, PENDING, prepare 7.1 on 1: 0 1 and commit");
  EXPECT_EQ(Prepared(7, 1, 1), "CREATED");
  EXPECT_EQ(core_.Find(G(7))->bundles(0).node_id(), N(1).Binary());
  EXPECT_EQ(view_.Find(N(1))->available(), Cpus(2));
  EXPECT_EQ(Prepared(7, 1, 1), "");  // once is enough
}

TEST_F(PlacementGroups, SeveralNodesTakeTwoPhases) {
  Join(1, 1);
  Join(2, 1);
  EXPECT_EQ(Create(Want(7, {1, 1}, v1::PLACEMENT_STRATEGY_STRICT_SPREAD)), "ok, PENDING, prepare 7.1 on 1: 0, prepare 7.1 on 2: 1");
  EXPECT_EQ(Prepared(7, 1, 1), "");
  EXPECT_EQ(Prepared(7, 1, 2), "PREPARED, commit 7.1 on 1: 0, commit 7.1 on 2: 1");
  EXPECT_EQ(Committed(7, 1, 1), "");
  EXPECT_EQ(Committed(7, 1, 2), "CREATED");
}

TEST_F(PlacementGroups, ARefusalRollsAllBackAndIsTriedAgain) {
  Join(1, 1);
  Join(2, 1);
  Create(Want(7, {1, 1}, v1::PLACEMENT_STRATEGY_STRICT_SPREAD));
  Prepared(7, 1, 1);
  EXPECT_EQ(Prepared(7, 1, 2, false), "return 7 on 1: 0, return 7 on 2: 1");
  EXPECT_EQ(view_.Find(N(1))->available(), Cpus(1));
  EXPECT_EQ(TickAt(milliseconds(99)), "");
  EXPECT_EQ(core_.NextDeadline(), Time{} + milliseconds(100));
  EXPECT_EQ(TickAt(milliseconds(100)), "prepare 7.2 on 1: 0, prepare 7.2 on 2: 1");
  EXPECT_EQ(Prepared(7, 1, 1), "return 7 on 1: 0 1");  // of the round before
  Prepared(7, 2, 1);
  Prepared(7, 2, 2);
  EXPECT_EQ(Committed(7, 2, 2, false), "return 7 on 1: 0, return 7 on 2: 1, PENDING");
  EXPECT_EQ(core_.NextDeadline(), Time{} + milliseconds(250));  // 1.5 times the pause
}

TEST_F(PlacementGroups, WaitsForRoomAndHoldsNobodyUp) {
  Join(1, 2);
  EXPECT_EQ(Create(Want(7, {2})), "ok, PENDING, prepare 7.1 on 1: 0 and commit");
  Prepared(7, 1, 1);
  EXPECT_EQ(Create(Want(8, {2})), "ok, PENDING");
  EXPECT_EQ(Create(Want(9, {1})), "ok, PENDING");
  EXPECT_EQ(Report(1, 1), "prepare 9.1 on 1: 0 and commit");  // what fits goes ahead
  EXPECT_EQ(Remove(7), "ok, REMOVED, return 7 on 1");
  EXPECT_EQ(Report(1, 2), "prepare 8.1 on 1: 0 and commit");
}

TEST_F(PlacementGroups, TellsTheDriverOnceWhatCanNeverBe) {
  Join(1, 2);
  EXPECT_EQ(Create(Want(7, {3})), "ok, PENDING, tell");
  EXPECT_EQ(TickAt(milliseconds(100)), "");
  Join(2, 4);
  EXPECT_EQ(last_, "prepare 7.1 on 2: 0 and commit");
}

TEST_F(PlacementGroups, LostBundlesArePlacedBeforeAnyPendingGroup) {
  Join(1, 1);
  Join(2, 1);
  Create(Want(7, {1, 1}, v1::PLACEMENT_STRATEGY_STRICT_SPREAD));
  Prepared(7, 1, 1);
  Prepared(7, 1, 2);
  Committed(7, 1, 1);
  Committed(7, 1, 2);
  EXPECT_EQ(Create(Want(8, {1})), "ok, PENDING");
  EXPECT_EQ(Die(2), "RESCHEDULING, tell");
  EXPECT_EQ(core_.Find(G(7))->bundles(1).node_id(), "");
  EXPECT_EQ(core_.Find(G(7))->bundles(0).node_id(), N(1).Binary());
  Join(3, 1);
  EXPECT_EQ(last_, "prepare 7.2 on 3: 1 and commit");
  EXPECT_EQ(Prepared(7, 2, 3), "CREATED");
}

TEST_F(PlacementGroups, ANodeThatDiesInTheMiddleFailsTheRound) {
  Join(1, 1);
  Join(2, 1);
  Join(3, 1);
  Create(Want(7, {1, 1}, v1::PLACEMENT_STRATEGY_STRICT_SPREAD));
  EXPECT_EQ(Die(2), "return 7 on 1: 0, prepare 7.2 on 1: 0, prepare 7.2 on 3: 1");
  EXPECT_EQ(Prepared(7, 1, 1), "return 7 on 1: 0 1");
  Prepared(7, 2, 1);
  Prepared(7, 2, 3);
  Committed(7, 2, 1);
  EXPECT_EQ(Committed(7, 2, 3), "CREATED");
  EXPECT_EQ(Prepared(7, 2, 1), "return 7 on 1: 1");  // asked twice, since the node came back in between: what is placed there stays
}

TEST_F(PlacementGroups, RemovalDuringARoundTakesBackWhatMayBeReserved) {
  Join(1, 1);
  Join(2, 1);
  Create(Want(7, {1, 1}, v1::PLACEMENT_STRATEGY_STRICT_SPREAD));
  EXPECT_EQ(Remove(7), "ok, REMOVED, return 7 on 1, return 7 on 2");
  EXPECT_EQ(Prepared(7, 1, 1), "return 7 on 1:");  // sent again, it came behind that
  EXPECT_EQ(Prepared(7, 1, 2, false), "");
  EXPECT_EQ(Remove(7), "ok");
  EXPECT_EQ(Remove(99), "ok");
}

TEST_F(PlacementGroups, NamesAreUniqueAndFreeAfterRemoval) {
  Join(1, 4);
  auto first = Want(7, {1}), second = Want(8, {1});
  first.mutable_group()->set_name("x");
  second.mutable_group()->set_name("x");
  Create(first);
  EXPECT_EQ(Create(second), std::string(StatusCodeName(StatusCode::kAlreadyExists)));
  EXPECT_EQ(Create(first), "ok");  // asked again
  Remove(7);
  EXPECT_EQ(Create(second), "ok, PENDING, prepare 8.1 on 1: 0 and commit");
}

TEST_F(PlacementGroups, GoesWithItsJobOrTheActorThatOutlivesIt) {
  Join(1, 8);
  auto by_actor = Want(8, {1}), detached = Want(9, {1});
  by_actor.mutable_group()->set_creator_actor_id(Named<ActorId>(5).Binary());
  detached.mutable_group()->set_detached(true);
  Create(Want(7, {1}));
  Create(by_actor);
  Create(detached);
  EXPECT_EQ(Do([&](Effects* out) { core_.ActorDied(Named<ActorId>(5), now_, out); }), "");  // its job is there
  EXPECT_EQ(Do([&](Effects* out) {
              core_.JobFinished(
                  Named<JobId>(1), [](const ActorId&) { return true; }, now_, out);
            }),
            "REMOVED, return 7 on 1");
  EXPECT_EQ(Do([&](Effects* out) { core_.ActorDied(Named<ActorId>(5), now_, out); }), "REMOVED, return 8 on 1");
  EXPECT_EQ(core_.Find(G(9))->state(), v1::PLACEMENT_GROUP_STATE_PENDING);
}

}  // namespace
}  // namespace ray::gcs
