#include "ray/scheduling/lease_queue_core.h"

#include <gtest/gtest.h>

#include <string>

namespace ray::scheduling {
namespace {

using std::chrono::milliseconds;

ResourceSet Set(const std::map<std::string, double>& amounts) { return *ResourceSet::FromDoubles(amounts); }

template <typename Id>
Id Named(uint8_t n) {
  Id id;
  for (size_t i = 0; i < Id::kSize; ++i) id.mutable_data()[i] = n;
  return id;
}

// Drives a core and shows its effects as one line of text: "grant 1, cancel 2".
class LeaseQueue : public testing::Test {
 protected:
  void MakeNode(const std::map<std::string, double>& total, SpillPolicy* spill = nullptr) {
    LeaseQueueConfig config;
    config.node = Named<NodeId>(9);
    core_.emplace(config, NodeResources(Set(total)), spill);
  }
  LeaseRequest Want(uint8_t lease, double cpu, uint8_t job = 1, uint8_t owner = 1) {
    LeaseRequest request;
    request.lease = Named<LeaseId>(lease);
    request.job = Named<JobId>(job);
    request.owner = Named<WorkerId>(owner);
    request.resources = Set({{"CPU", cpu}});
    request.task_name = "f";
    return request;
  }
  std::string Request(LeaseRequest request) {
    LeaseEffects out;
    const bool fresh = core_->Request(std::move(request), now_, &out);
    return fresh ? Text(out) : "known";
  }
  template <typename F>
  std::string Do(F f) {
    LeaseEffects out;
    f(&out);
    return Text(out);
  }
  std::string Return(uint8_t lease) {
    return Do([&](LeaseEffects* out) { core_->Return(Named<LeaseId>(lease), now_, out); });
  }
  std::string TickAt(Duration d) {
    now_ = Time{} + d;
    return Do([&](LeaseEffects* out) { core_->Tick(now_, out); });
  }
  static std::string Text(const LeaseEffects& effects) {
    std::string text;
    auto add = [&text](const std::string& s) { text += (text.empty() ? "" : ", ") + s; };
    auto n = [](const auto& id) { return std::to_string(id.data()[0]); };
    for (const auto& effect : effects) {
      if (const auto* g = std::get_if<LeaseGranted>(&effect)) add("grant " + n(g->request.lease));
      if (const auto* s = std::get_if<LeaseSpilled>(&effect)) add("spill " + n(s->lease) + " to " + n(s->node));
      if (const auto* r = std::get_if<LeaseRefused>(&effect)) add("refuse " + n(r->lease));
      if (const auto* c = std::get_if<LeaseCancelled>(&effect)) add("cancel " + n(c->lease));
      if (const auto* r = std::get_if<LeaseRevoked>(&effect)) add("revoke " + n(r->lease));
      if (const auto* i = std::get_if<InfeasibleNotice>(&effect)) add("infeasible job " + n(i->job));
      if (const auto* w = std::get_if<ReclaimWanted>(&effect)) {
        std::string owners;
        for (const auto& owner : w->owners) owners += " " + n(owner);
        add("reclaim" + owners);
      }
    }
    return text;
  }

  Time now_;
  std::optional<LeaseQueueCore> core_;
};

TEST_F(LeaseQueue, GrantsWhatFitsAndQueuesTheRest) {
  MakeNode({{"CPU", 2}});
  EXPECT_EQ(Request(Want(1, 1)), "grant 1");
  EXPECT_EQ(Request(Want(2, 1)), "grant 2");
  EXPECT_EQ(Request(Want(3, 1)), "reclaim 1");
  EXPECT_EQ(Request(Want(3, 1)), "known");
  EXPECT_EQ(Request(Want(4, 1)), "");
  EXPECT_EQ(Return(1), "grant 3");
  EXPECT_EQ(Return(1), "");
  EXPECT_EQ(Return(2), "grant 4");
  EXPECT_EQ(core_->num_queued(), 0u);
}

TEST_F(LeaseQueue, AClassThatFitsPassesOneThatDoesNot) {
  MakeNode({{"CPU", 2}});
  EXPECT_EQ(Request(Want(1, 1)), "grant 1");
  EXPECT_EQ(Request(Want(2, 2)), "reclaim 1");
  EXPECT_EQ(Request(Want(3, 0.5)), "grant 3");
  EXPECT_EQ(Return(3), "");
  EXPECT_EQ(Return(1), "grant 2");
}

TEST_F(LeaseQueue, JobsTakeTurns) {
  MakeNode({{"CPU", 1}});
  EXPECT_EQ(Request(Want(1, 1, 1)), "grant 1");
  for (uint8_t i = 2; i <= 4; ++i) Request(Want(i, 1, 1));
  for (uint8_t i = 5; i <= 6; ++i) Request(Want(i, 1, 2, 2));
  EXPECT_EQ(Return(1), "grant 5");
  EXPECT_EQ(Return(5), "grant 2");
  EXPECT_EQ(Return(2), "grant 6");
  EXPECT_EQ(Return(6), "grant 3");
  EXPECT_EQ(Return(3), "grant 4");
}

TEST_F(LeaseQueue, CancelsOnlyWhatIsQueued) {
  MakeNode({{"CPU", 1}});
  Request(Want(1, 1));
  Request(Want(2, 1));
  auto cancel = [&](uint8_t lease) { return Do([&](LeaseEffects* out) { core_->Cancel(Named<LeaseId>(lease), now_, out); }); };
  EXPECT_EQ(cancel(1), "");
  EXPECT_EQ(cancel(2), "cancel 2");
  EXPECT_EQ(cancel(2), "");
  EXPECT_EQ(Return(1), "");
}

TEST_F(LeaseQueue, BlockedWorkersLetOthersIn) {
  MakeNode({{"CPU", 1}});
  Request(Want(1, 1));
  Request(Want(2, 1));
  Request(Want(3, 1));
  auto block = [&](uint8_t lease) { return Do([&](LeaseEffects* out) { core_->Block(Named<LeaseId>(lease), now_, out); }); };
  EXPECT_EQ(block(1), "");  // one of a kind may run for each CPU, and one more after a while
  const Time later = now_ + WorkerCapConfig().delay;
  EXPECT_EQ(TickAt(later - Time{}), "grant 2, reclaim 1");
  EXPECT_EQ(block(1), "");
  core_->Unblock(Named<LeaseId>(1));
  core_->Unblock(Named<LeaseId>(1));
  EXPECT_EQ(core_->resources().available().Get("CPU"), -10000);
  EXPECT_EQ(Return(2), "");
  EXPECT_EQ(Return(1), "grant 3");
}

TEST_F(LeaseQueue, ChildrenOfBlockedWorkersDoNotWait) {
  MakeNode({{"CPU", 1}});
  Request(Want(1, 1));
  Request(Want(2, 1));
  LeaseRequest child = Want(3, 1);
  child.depth = 1;
  Request(child);
  EXPECT_EQ(Do([&](LeaseEffects* out) { core_->Block(Named<LeaseId>(1), now_, out); }), "grant 3");
  core_->Unblock(Named<LeaseId>(1));
  EXPECT_EQ(Return(3), "");
  EXPECT_EQ(Return(1), "grant 2");
}

TEST_F(LeaseQueue, ABlockedWorkerThatEndsReturnsItsCpuOnce) {
  MakeNode({{"CPU", 1}});
  Request(Want(1, 1));
  Do([&](LeaseEffects* out) { core_->Block(Named<LeaseId>(1), now_, out); });
  Return(1);
  EXPECT_EQ(core_->resources().available(), core_->resources().total());
}

TEST_F(LeaseQueue, OwnersThatDieLoseTheirLeasesAndPlaces) {
  MakeNode({{"CPU", 1}});
  Request(Want(1, 1, 1, 1));
  Request(Want(2, 1, 1, 1));
  Request(Want(3, 1, 1, 2));
  EXPECT_EQ(Do([&](LeaseEffects* out) { core_->OwnerDied(Named<WorkerId>(1), now_, out); }), "revoke 1");
  EXPECT_EQ(Return(1), "grant 3");
  EXPECT_FALSE(core_->IsQueued(Named<LeaseId>(2)));
}

TEST_F(LeaseQueue, AJobsEndCancelsWhatItHasQueued) {
  MakeNode({{"CPU", 1}});
  Request(Want(1, 1, 1));
  Request(Want(2, 1, 1, 1));
  Request(Want(3, 1, 1, 7));
  Request(Want(4, 1, 2));
  EXPECT_EQ(Do([&](LeaseEffects* out) {
              core_->JobFinished(
                  Named<JobId>(1), [](const WorkerId& owner) { return owner == Named<WorkerId>(7); }, now_, out);
            }),
            "cancel 2");
  EXPECT_EQ(core_->num_queued(), 2u);
}

TEST_F(LeaseQueue, TellsOncePerClassWhatCanNeverRun) {
  MakeNode({{"CPU", 1}});
  EXPECT_EQ(Request(Want(1, 4)), "");
  EXPECT_EQ(core_->NextDeadline(), Time{} + std::chrono::seconds(1));
  EXPECT_EQ(TickAt(milliseconds(999)), "");
  EXPECT_EQ(TickAt(milliseconds(1000)), "infeasible job 1");
  EXPECT_EQ(TickAt(milliseconds(2000)), "");
  Do([&](LeaseEffects* out) { core_->Cancel(Named<LeaseId>(1), now_, out); });
  Request(Want(2, 4));
  EXPECT_EQ(TickAt(milliseconds(9000)), "");
  EXPECT_EQ(Request(Want(3, 1)), "grant 3");
  EXPECT_TRUE(core_->NextDeadline().is_infinite());
}

TEST_F(LeaseQueue, TheInfeasibleMessageNamesDemandAndTotals) {
  MakeNode({{"CPU", 1}});
  Request(Want(1, 4));
  LeaseEffects out;
  core_->Tick(Time{} + std::chrono::seconds(1), &out);
  ASSERT_EQ(out.size(), 1u);
  const std::string& message = std::get<InfeasibleNotice>(out[0]).message;
  EXPECT_NE(message.find("'f'"), message.npos);
  EXPECT_NE(message.find("{CPU: 4}"), message.npos);
  EXPECT_NE(message.find("{CPU: 1}"), message.npos);
}

TEST_F(LeaseQueue, AsksForUnusedLeasesWithBackOff) {
  MakeNode({{"CPU", 1}});
  Request(Want(1, 1, 1, 1));
  EXPECT_EQ(Request(Want(2, 1, 1, 2)), "reclaim 1");
  EXPECT_EQ(core_->NextDeadline(), now_ + milliseconds(10));
  EXPECT_EQ(TickAt(milliseconds(10)), "reclaim 1");
  EXPECT_EQ(TickAt(milliseconds(20)), "");
  EXPECT_EQ(TickAt(milliseconds(30)), "reclaim 1");
  EXPECT_EQ(core_->NextDeadline(), Time{} + milliseconds(70));
  now_ = Time{} + milliseconds(35);
  EXPECT_EQ(Request(Want(3, 1, 1, 2)), "");  // not more often than the interval
  EXPECT_EQ(core_->NextDeadline(), Time{} + milliseconds(40));
  Do([&](LeaseEffects* out) { core_->OwnerDied(Named<WorkerId>(2), now_, out); });
  EXPECT_TRUE(core_->NextDeadline().is_infinite());
}

TEST_F(LeaseQueue, HardAffinityToAnUnknownNodeIsRefused) {
  MakeNode({{"CPU", 1}});
  LeaseRequest request = Want(1, 1);
  request.strategy = Strategy::kNodeAffinity;
  request.affinity_node = Named<NodeId>(3);
  EXPECT_EQ(Request(request), "refuse 1");
  request.affinity_soft = true;
  EXPECT_EQ(Request(request), "grant 1");
  request.lease = Named<LeaseId>(2);
  request.affinity_soft = false;
  request.affinity_node = Named<NodeId>(9);
  request.resources = Set({});
  EXPECT_EQ(Request(request), "grant 2");
}

TEST_F(LeaseQueue, SpillsWhereThePolicySays) {
  struct Policy : SpillPolicy {
    std::optional<NodeId> Choose(const LeaseRequest&, bool) override { return Named<NodeId>(4); }
    bool Knows(const NodeId& node) override { return node == Named<NodeId>(4); }
  } policy;
  MakeNode({{"CPU", 1}}, &policy);
  EXPECT_EQ(Request(Want(1, 1)), "grant 1");
  EXPECT_EQ(Request(Want(2, 1)), "spill 2 to 4");
  LeaseRequest request = Want(3, 0);
  request.strategy = Strategy::kNodeAffinity;
  request.affinity_node = Named<NodeId>(4);
  EXPECT_EQ(Request(request), "spill 3 to 4");
}

TEST_F(LeaseQueue, AnActorShrinksToWhatItKeeps) {
  MakeNode({{"CPU", 1}});
  LeaseRequest actor = Want(1, 1);
  actor.owner = WorkerId::Nil();  // the GCS
  Request(actor);
  Request(Want(2, 1));
  EXPECT_EQ(Do([&](LeaseEffects* out) { core_->Shrink(Named<LeaseId>(1), Set({}), now_, out); }), "grant 2");
  Return(1);
  Return(2);
  EXPECT_EQ(core_->resources().available(), core_->resources().total());
}

}  // namespace
}  // namespace ray::scheduling
