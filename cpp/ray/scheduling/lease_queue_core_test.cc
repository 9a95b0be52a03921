#include "ray/scheduling/lease_queue_core.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
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
  void MakeNode(const std::map<std::string, double>& total, Labels labels = {}) {
    LeaseQueueConfig config;
    config.node = Named<NodeId>(9);
    config.labels = std::move(labels);
    core_.emplace(config, NodeResources(Set(total)));
  }
  // News of another node.
  std::string Node(uint8_t node, const std::map<std::string, double>& total, const std::map<std::string, double>& available,
                   Labels labels = {}) {
    core_->view()->Set(Named<NodeId>(node), Set(total), Set(available), std::move(labels), ++version_);
    return Do([&](LeaseEffects* out) { core_->ViewChanged(now_, out); });
  }
  LeaseRequest Want(uint8_t lease, double cpu, uint8_t job = 1, uint8_t owner = 1) {
    LeaseRequest request;
    request.lease = Named<LeaseId>(lease);
    request.job = Named<JobId>(job);
    request.owner = Named<WorkerId>(owner);
    request.where.need = Set({{"CPU", cpu}});
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
      if (const auto* s = std::get_if<LeaseSpilled>(&effect)) {
        add("spill " + n(s->lease) + " to " + n(s->node) + (s->mode == LeaseMode::kHere ? " for good" : ""));
      }
      if (const auto* r = std::get_if<LeaseRefused>(&effect)) add("refuse " + n(r->lease));
      if (const auto* r = std::get_if<LeaseRejected>(&effect))
        add(std::string("reject ") + n(r->lease) + (r->bundle_gone ? " (no bundle)" : ""));
      if (const auto* c = std::get_if<LeaseCancelled>(&effect)) add("cancel " + n(c->lease));
      if (const auto* r = std::get_if<LeaseRevoked>(&effect)) add("revoke " + n(r->lease));
      if (const auto* i = std::get_if<InfeasibleNotice>(&effect)) add("infeasible job " + n(i->job));
      if (const auto* w = std::get_if<ReclaimWanted>(&effect)) {
        std::string owners;
        for (const auto& owner : w->owners) owners += " " + n(owner);
        for (const auto& [owner, lease] : w->yield) owners += " yield " + n(lease);
        add("reclaim" + owners);
      }
    }
    return text;
  }

  Time now_;
  uint64_t version_ = 0;
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
  request.where.strategy = Strategy::kNodeAffinity;
  request.where.affinity_node = Named<NodeId>(3);
  EXPECT_EQ(Request(request), "refuse 1");
  request.where.soft = true;
  EXPECT_EQ(Request(request), "grant 1");
  request.lease = Named<LeaseId>(2);
  request.where.soft = false;
  request.where.affinity_node = Named<NodeId>(9);
  request.where.need = Set({});
  EXPECT_EQ(Request(request), "grant 2");
}

TEST_F(LeaseQueue, SpillsOnceHalfOfTheNodeIsInUse) {
  MakeNode({{"CPU", 2}});
  Node(4, {{"CPU", 2}}, {{"CPU", 2}});
  EXPECT_EQ(Request(Want(1, 1)), "grant 1");
  EXPECT_EQ(Request(Want(2, 1)), "spill 2 to 4");
  EXPECT_EQ(Request(Want(3, 1)), "grant 3");  // equally used by now: the nearer one
  EXPECT_EQ(Request(Want(4, 1)), "spill 4 to 4");
  EXPECT_EQ(Request(Want(5, 1)), "reclaim 1");  // all are full as far as is known
  EXPECT_EQ(Node(4, {{"CPU", 2}}, {{"CPU", 1}}), "spill 5 to 4");
}

TEST_F(LeaseQueue, WhatOnlyALostNodeCouldRunIsInfeasible) {
  MakeNode({{"CPU", 2}});
  Node(4, {{"CPU", 8}}, {});
  EXPECT_EQ(Request(Want(1, 8)), "");
  EXPECT_EQ(core_->StandingOf(Named<LeaseId>(1))->infeasible, "");
  core_->view()->Remove(Named<NodeId>(4));
  EXPECT_EQ(Do([&](LeaseEffects* out) { core_->ViewChanged(now_, out); }), "");
  EXPECT_EQ(core_->StandingOf(Named<LeaseId>(1))->infeasible, "no node has that much");
  EXPECT_EQ(TickAt(std::chrono::seconds(1)), "infeasible job 1");
  EXPECT_EQ(Node(5, {{"CPU", 8}}, {{"CPU", 8}}), "spill 1 to 5");
}

TEST_F(LeaseQueue, TellsWhatKeepsARequestWaiting) {
  MakeNode({{"CPU", 2}});
  Request(Want(1, 2));
  EXPECT_FALSE(core_->StandingOf(Named<LeaseId>(1)));  // granted
  now_ = now_ + milliseconds(7);
  Request(Want(2, 1));
  Request(Want(3, 1));
  const auto standing = core_->StandingOf(Named<LeaseId>(3));
  ASSERT_TRUE(standing);
  EXPECT_EQ(standing->behind, 1u);
  EXPECT_EQ(standing->since, now_);
  EXPECT_EQ(standing->why, "not enough CPU is free");
  Do([&](LeaseEffects* out) { core_->StopGrants(now_, out); });
  EXPECT_EQ(core_->StandingOf(Named<LeaseId>(2))->why, "the node is draining and grants nothing any more");
  EXPECT_FALSE(core_->StandingOf(Named<LeaseId>(4)));
}

TEST_F(LeaseQueue, ANodeThatTurnedARequestAwayIsOutUntilItReports) {
  MakeNode({{"CPU", 1}});
  Node(4, {{"CPU", 1}}, {{"CPU", 1}});
  EXPECT_EQ(Request(Want(1, 1)), "grant 1");
  EXPECT_EQ(Request(Want(2, 1)), "spill 2 to 4");
  LeaseRequest again = Want(2, 1);
  again.rejected_by = {Named<NodeId>(4)};
  EXPECT_EQ(Request(again), "reclaim 1");
  EXPECT_EQ(Request(Want(3, 1)), "");  // the same is as good as known to be full
  EXPECT_EQ(Do([&](LeaseEffects* out) { core_->ViewChanged(now_, out); }), "");
  EXPECT_EQ(Node(4, {{"CPU", 1}}, {{"CPU", 1}}), "spill 2 to 4");
}

// However long ago it was looked at: the view may not change for long, and then it matters at once.
TEST_F(LeaseQueue, WhatWaitsForAnyNodeWaitsForOthers) {
  MakeNode({{"CPU", 1}});
  EXPECT_EQ(Request(Want(1, 1)), "grant 1");
  EXPECT_EQ(Request(Want(2, 1)), "reclaim 1");
  EXPECT_FALSE(core_->WaitsForOthers()) << "there is no other";
  EXPECT_EQ(Node(4, {{"CPU", 1}}, {}), "");
  EXPECT_TRUE(core_->WaitsForOthers());
  TickAt(milliseconds(20000));
  EXPECT_TRUE(core_->WaitsForOthers());
  EXPECT_EQ(Node(4, {{"CPU", 1}}, {{"CPU", 1}}), "spill 2 to 4");
  EXPECT_FALSE(core_->WaitsForOthers());
  LeaseRequest bound = Want(3, 1);
  bound.mode = LeaseMode::kHere;
  Request(bound);
  EXPECT_FALSE(core_->WaitsForOthers()) << "it waits for this node";
}

// Its owner died before it asked there, say: then the node has nothing to report.
TEST_F(LeaseQueue, WhatWasSentInVainCountsForAWhileOnly) {
  MakeNode({{"CPU", 1}});
  Node(4, {{"CPU", 2}}, {{"CPU", 2}});
  EXPECT_EQ(Request(Want(1, 1)), "grant 1");
  EXPECT_EQ(Request(Want(2, 1)), "spill 2 to 4");
  EXPECT_EQ(TickAt(milliseconds(1000)), "");
  EXPECT_EQ(Request(Want(3, 1)), "spill 3 to 4");
  EXPECT_EQ(Request(Want(4, 1)), "reclaim 1");
  TickAt(milliseconds(4999));
  EXPECT_EQ(core_->view()->Find(Named<NodeId>(4))->available(), Set({}));
  EXPECT_EQ(TickAt(milliseconds(5000)).substr(0, 12), "spill 4 to 4");
  TickAt(milliseconds(6000));
  EXPECT_EQ(core_->view()->Find(Named<NodeId>(4))->available(), Set({{"CPU", 1}}));
  // A report says what is free, whatever was sent before it.
  Node(4, {{"CPU", 2}}, {{"CPU", 1}});
  TickAt(milliseconds(10000));
  EXPECT_EQ(core_->view()->Find(Named<NodeId>(4))->available(), Set({{"CPU", 1}}));
}

TEST_F(LeaseQueue, WhoeverWasSentHereIsServedNowOrNever) {
  MakeNode({{"CPU", 1}});
  Node(4, {{"CPU", 9}}, {{"CPU", 9}});
  LeaseRequest sent = Want(1, 1);
  sent.mode = LeaseMode::kNowOrNever;
  EXPECT_EQ(Request(sent), "grant 1");
  sent.lease = Named<LeaseId>(2);
  EXPECT_EQ(Request(sent), "reject 2");
  sent.mode = LeaseMode::kHere;
  EXPECT_EQ(Request(sent), "reclaim 1");
  EXPECT_EQ(Node(4, {{"CPU", 9}}, {{"CPU", 8}}), "");  // stays
  EXPECT_EQ(Return(1), "grant 2");
}

TEST_F(LeaseQueue, AffinityGoesToItsNode) {
  MakeNode({{"CPU", 1}});
  Node(4, {{"CPU", 1}}, {{"CPU", 0}});
  LeaseRequest request = Want(1, 1);
  request.where.strategy = Strategy::kNodeAffinity;
  request.where.affinity_node = Named<NodeId>(4);
  EXPECT_EQ(Request(request), "spill 1 to 4 for good");
  request.where.fail_on_unavailable = true;
  EXPECT_EQ(Request(request), "refuse 1");
  request.where.fail_on_unavailable = false;
  request.where.soft = request.where.spill_on_unavailable = true;
  EXPECT_EQ(Request(request), "grant 1");
  request.lease = Named<LeaseId>(2);
  request.where.spill_on_unavailable = false;
  EXPECT_EQ(Request(request), "spill 2 to 4 for good");
  request.where.soft = false;
  request.where.need = Set({{"CPU", 2}});
  EXPECT_EQ(Request(request), "refuse 2");  // it will never have that
  core_->view()->Remove(Named<NodeId>(4));
  request.where.need = Set({{"CPU", 1}});
  EXPECT_EQ(Request(request), "refuse 2");
}

TEST_F(LeaseQueue, LabelsKeepARequestFromThisNode) {
  using Text = std::map<std::string, std::string>;
  MakeNode({{"CPU", 2}}, {{"zone", "home"}});
  LeaseRequest request = Want(1, 1);
  request.where.selectors = {LabelSelector(Text{{"zone", "west"}})};
  EXPECT_EQ(Request(request), "");
  EXPECT_EQ(TickAt(milliseconds(1000)), "infeasible job 1");
  EXPECT_EQ(Node(4, {{"CPU", 1}}, {{"CPU", 0}}, {{"zone", "west"}}), "");
  EXPECT_EQ(Request(Want(2, 1)), "grant 2");  // it holds nobody up
  EXPECT_EQ(Node(4, {{"CPU", 1}}, {{"CPU", 1}}, {{"zone", "west"}}), "spill 1 to 4");
  // Alternatives in order: the first that some node could fulfil.
  request.lease = Named<LeaseId>(3);
  request.where.selectors = {LabelSelector(Text{{"zone", "mars"}}), LabelSelector(Text{{"zone", "!west"}})};
  EXPECT_EQ(Request(request), "grant 3");
}

TEST_F(LeaseQueue, SpreadTakesTurnsAndDoesNotWaitForEver) {
  MakeNode({{"CPU", 1}});
  Node(4, {{"CPU", 1}}, {{"CPU", 1}});
  Node(6, {{"CPU", 1}}, {{"CPU", 1}});
  auto spread = [this](uint8_t lease) {
    LeaseRequest request = Want(lease, 1);
    request.where.strategy = Strategy::kSpread;
    return request;
  };
  EXPECT_EQ(Request(spread(1)), "spill 1 to 4 for good");
  EXPECT_EQ(Request(spread(2)), "spill 2 to 6 for good");
  EXPECT_EQ(Request(spread(3)), "grant 3");
  EXPECT_EQ(Request(spread(4)), "spill 4 to 4 for good");  // all are full: whose turn it is
  EXPECT_EQ(Request(spread(5)), "spill 5 to 6 for good");
  EXPECT_EQ(Request(spread(6)), "reclaim 1");
  EXPECT_EQ(core_->NextDeadline(), Time{} + milliseconds(10));
  EXPECT_EQ(TickAt(milliseconds(1000)), "reject 6, reclaim 1");
}

TEST_F(LeaseQueue, WorkWithoutGpusGoesWhereThereAreNone) {
  MakeNode({{"CPU", 4}, {"GPU", 1}});
  EXPECT_EQ(Request(Want(1, 1)), "grant 1");
  Node(4, {{"CPU", 1}}, {{"CPU", 1}});
  EXPECT_EQ(Request(Want(2, 1)), "spill 2 to 4");
  EXPECT_EQ(Request(Want(3, 1)), "grant 3");
}

// Several nodes, each with its own queue and a view of the others that lags; owners that go where they are told. Tasks of random sizes arrive
// at random nodes and end after a while.
class Cluster {
 public:
  Cluster(uint64_t seed, std::vector<double> cpus) : random_(seed) {
    for (size_t i = 0; i < cpus.size(); ++i) {
      LeaseQueueConfig config;
      config.node = Id(i);
      config.seed = seed * 100 + i;
      nodes_.push_back({std::make_unique<LeaseQueueCore>(config, NodeResources(Set({{"CPU", cpus[i]}}))), 0, 0, 0});
    }
    Spread(true);
  }
  static NodeId Id(size_t i) { return Named<NodeId>(static_cast<uint8_t>(i + 1)); }

  void Submit(size_t home, double cpu, Strategy strategy = Strategy::kDefault) {
    Task task;
    task.lease = LeaseId::FromRandom();
    task.home = home;
    task.cpu = cpu;
    task.strategy = strategy;
    tasks_[task.lease] = task;
    Ask(task.lease, home, LeaseMode::kDecide);
  }
  // Reports reach everybody.
  void Spread(bool all = false) {
    for (size_t i = 0; i < nodes_.size(); ++i) {
      ++nodes_[i].version;
      for (size_t j = 0; j < nodes_.size(); ++j) {
        if (i == j || (!all && random_.Below(4) == 0)) continue;  // some are late
        nodes_[j].core->view()->Set(Id(i), nodes_[i].core->resources().total(), nodes_[i].core->resources().available(), {},
                                    nodes_[i].version + 1);
      }
    }
    for (size_t j = 0; j < nodes_.size(); ++j) {
      LeaseEffects out;
      nodes_[j].core->ViewChanged(now_, &out);
      Follow(j, out);
    }
  }
  void EndOne() {
    if (running_.empty()) return;
    auto it = running_.begin();
    std::advance(it, random_.Below(running_.size()));
    const auto [lease, node] = *it;
    running_.erase(it);
    LeaseEffects out;
    nodes_[node].core->Return(lease, now_, &out);
    Follow(node, out);
  }
  void Tick() {
    now_ = now_ + milliseconds(50);
    for (size_t j = 0; j < nodes_.size(); ++j) {
      LeaseEffects out;
      nodes_[j].core->Tick(now_, &out);
      Follow(j, out);
    }
  }
  size_t running() const { return running_.size(); }
  size_t pending() const { return tasks_.size() - done_; }
  size_t granted(size_t node) const { return nodes_[node].granted; }
  int most_hops() const { return most_hops_; }
  SplitMix& random() { return random_; }

 private:
  struct Task {
    LeaseId lease;
    size_t home = 0;
    double cpu = 0;
    Strategy strategy = Strategy::kDefault;
    std::vector<NodeId> rejected_by;
    int hops = 0;
  };
  struct NodeState {
    std::unique_ptr<LeaseQueueCore> core;
    uint64_t version = 0;
    size_t granted = 0;
    int unused = 0;
  };
  void Ask(const LeaseId& lease, size_t node, LeaseMode mode) {
    Task& task = tasks_[lease];
    LeaseRequest request;
    request.lease = lease;
    request.job = Named<JobId>(1);
    request.owner = Named<WorkerId>(static_cast<uint8_t>(task.home + 1));
    request.where.need = Set({{"CPU", task.cpu}});
    request.where.strategy = task.strategy;
    request.mode = mode;
    if (mode == LeaseMode::kDecide) request.rejected_by = task.rejected_by;
    LeaseEffects out;
    nodes_[node].core->Request(request, now_, &out);
    Follow(node, out);
  }
  void Follow(size_t node, const LeaseEffects& effects) {
    for (const auto& effect : effects) {
      if (const auto* granted = std::get_if<LeaseGranted>(&effect)) {
        running_[granted->request.lease] = node;
        ++nodes_[node].granted;
        ++done_;
      } else if (const auto* spilled = std::get_if<LeaseSpilled>(&effect)) {
        most_hops_ = std::max(most_hops_, ++tasks_[spilled->lease].hops);
        Ask(spilled->lease, static_cast<size_t>(spilled->node.data()[0] - 1), spilled->mode);
      } else if (const auto* rejected = std::get_if<LeaseRejected>(&effect)) {
        Task& task = tasks_[rejected->lease];
        std::erase(task.rejected_by, Id(node));
        task.rejected_by.push_back(Id(node));
        Ask(rejected->lease, task.home, LeaseMode::kDecide);
      }
    }
  }

  SplitMix random_;
  std::vector<NodeState> nodes_;
  std::map<LeaseId, Task> tasks_;
  std::map<LeaseId, size_t> running_;
  size_t done_ = 0;
  int most_hops_ = 0;
  Time now_;
};

TEST(LeaseCluster, EveryTaskRunsAndNoneGoesToAndFro) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    Cluster cluster(seed, {2, 4, 1, 3});
    for (int step = 0; step < 400; ++step) {
      const uint64_t action = cluster.random().Below(10);
      if (action < 4) {
        cluster.Submit(cluster.random().Below(4), 1 + static_cast<double>(cluster.random().Below(2)));
      } else if (action < 8) {
        cluster.EndOne();
      } else {
        cluster.Spread();
      }
    }
    int rounds = 0;
    while (cluster.pending() > 0 && ++rounds < 1000) {
      cluster.EndOne();
      cluster.Spread(true);
      cluster.Tick();
    }
    EXPECT_EQ(cluster.pending(), 0u) << "seed " << seed;
    EXPECT_LE(cluster.most_hops(), 40) << "seed " << seed;
  }
}

TEST(LeaseCluster, SpreadIsEven) {
  Cluster cluster(3, {4, 4, 4, 4, 4});
  for (int i = 0; i < 500; ++i) {
    cluster.Submit(0, 1, Strategy::kSpread);
    if (i >= 20) cluster.EndOne();
    if (i % 25 == 0) cluster.Spread(true);
  }
  while (cluster.pending() > 0) {
    cluster.EndOne();
    cluster.Spread(true);
    cluster.Tick();
  }
  size_t most = 0, least = SIZE_MAX;
  for (size_t i = 0; i < 5; ++i) {
    most = std::max(most, cluster.granted(i));
    least = std::min(least, cluster.granted(i));
  }
  EXPECT_LE(static_cast<double>(most), 1.2 * static_cast<double>(least)) << most << " and " << least;
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

TEST_F(LeaseQueue, OfOneJobTheHighestPriorityThatFitsGoesFirst) {
  MakeNode({{"CPU", 1}});
  auto want = [this](uint8_t lease, int32_t priority, double cpu = 1, uint8_t job = 1) {
    LeaseRequest request = Want(lease, cpu, job);
    request.priority = priority;
    return request;
  };
  EXPECT_EQ(Request(want(1, 0)), "grant 1");
  EXPECT_EQ(Request(want(2, 0)), "reclaim 1");
  EXPECT_EQ(Request(want(3, 5)), "");
  EXPECT_EQ(Request(want(4, -1)), "");
  EXPECT_EQ(Request(want(5, 5)), "");
  EXPECT_EQ(Request(want(6, 9, 2)), "");  // fits never: holds nobody up
  EXPECT_EQ(Return(1), "grant 3");
  EXPECT_EQ(Return(3), "grant 5");
  EXPECT_EQ(Return(5), "grant 2");
  // Another job has its turn whatever its priority.
  EXPECT_EQ(Request(want(7, -9, 1, 2)), "");
  EXPECT_EQ(Request(want(8, 3)), "");
  EXPECT_EQ(Return(2), "grant 7");
  EXPECT_EQ(Return(7), "grant 8");
  EXPECT_EQ(Return(8), "grant 4");
}

TEST_F(LeaseQueue, LeasesThatOthersHaveABetterClaimToAreAskedFor) {
  MakeNode({{"CPU", 4}});
  auto want = [this](uint8_t lease, int32_t priority, uint8_t job) {
    LeaseRequest request = Want(lease, 1, job, job);
    request.priority = priority;
    return request;
  };
  for (uint8_t lease = 1; lease <= 4; ++lease) EXPECT_NE(Request(want(lease, 0, 1)), "");
  EXPECT_EQ(Request(want(5, 0, 2)), "reclaim 1");  // not at once
  EXPECT_EQ(TickAt(milliseconds(99)), "reclaim 1");
  EXPECT_EQ(TickAt(milliseconds(119)), "reclaim 1 yield 1");
  EXPECT_EQ(TickAt(milliseconds(300)), "reclaim 1") << "one is on its way";
  EXPECT_EQ(Return(1), "grant 5");
  EXPECT_EQ(Request(want(6, 0, 2)), "");
  EXPECT_EQ(TickAt(milliseconds(400)), "reclaim 1 2 yield 2") << "two of four are due to the other job";
  EXPECT_EQ(Return(2), "grant 6");
  EXPECT_EQ(Request(want(7, 0, 2)), "");
  EXPECT_EQ(TickAt(milliseconds(1000)), "reclaim 1 2") << "as many as the others: no better claim";
  EXPECT_EQ(Request(want(8, 1, 1)), "");
  EXPECT_EQ(TickAt(milliseconds(1500)), "reclaim 1 2 yield 3") << "a higher priority of the same job";
}

TEST_F(LeaseQueue, OneCpuIsSharedInTime) {
  MakeNode({{"CPU", 1}});
  EXPECT_EQ(Request(Want(1, 1)), "grant 1");
  EXPECT_EQ(Request(Want(2, 0.5)), "reclaim 1");
  EXPECT_EQ(TickAt(milliseconds(150)), "reclaim 1 yield 1");
  EXPECT_EQ(Request(Want(3, 1)), "");
  EXPECT_EQ(Return(1), "grant 2");
  EXPECT_EQ(TickAt(milliseconds(200)), "reclaim 1") << "not before it has had its time";
  EXPECT_EQ(TickAt(milliseconds(500)), "reclaim 1 yield 2");
}

TEST_F(LeaseQueue, BundlesComeInTwoPhases) {
  MakeNode({{"CPU", 4}});
  const auto g = Named<PlacementGroupId>(7);
  bool ok = false;
  auto in_bundle = [&](uint8_t lease, int32_t index, double cpu = 1) {
    LeaseRequest request = Want(lease, cpu);
    request.bundle = {g, index};
    return request;
  };
  auto prepare = [&](uint32_t attempt, std::vector<std::pair<int32_t, double>> bundles, bool commit = false) {
    std::vector<std::pair<int32_t, ResourceSet>> list;
    for (const auto& [index, cpu] : bundles) list.emplace_back(index, Set({{"CPU", cpu}}));
    return Do([&](LeaseEffects* out) { ok = core_->PrepareBundles(g, attempt, list, commit, now_, out); });
  };
  EXPECT_EQ(Request(in_bundle(1, 0)), "reject 1 (no bundle)");
  EXPECT_EQ(prepare(1, {{0, 1}, {1, 2}}), "");
  EXPECT_TRUE(ok);
  EXPECT_EQ(core_->resources().available(), Set({{"CPU", 1}}));
  EXPECT_EQ(Request(in_bundle(1, 0)), "reject 1 (no bundle)");  // not committed
  prepare(1, {{0, 1}, {1, 2}});                                 // asked again
  EXPECT_TRUE(ok);
  prepare(2, {{0, 1}, {1, 9}});  // a later round takes its place, even in vain
  EXPECT_FALSE(ok);
  EXPECT_EQ(core_->resources().available(), Set({{"CPU", 4}}));
  prepare(3, {{0, 1}, {1, 2}});
  EXPECT_TRUE(ok);
  EXPECT_EQ(core_->resources().available(), Set({{"CPU", 1}}));
  EXPECT_EQ(Do([&](LeaseEffects* out) { ok = core_->CommitBundles(g, 1, {0}, now_, out); }), "");
  EXPECT_FALSE(ok);
  EXPECT_EQ(Do([&](LeaseEffects* out) { ok = core_->CommitBundles(g, 3, {0, 1}, now_, out); }), "");
  EXPECT_TRUE(ok);
  EXPECT_EQ(Request(in_bundle(1, 0)), "grant 1");
  EXPECT_EQ(Request(in_bundle(2, 0)), "reclaim 1");
  EXPECT_EQ(Request(in_bundle(3, BundleId::kAny, 2)), "grant 3");
  EXPECT_EQ(Request(in_bundle(4, BundleId::kAny)), "");
  EXPECT_EQ(core_->AllocationOf(Named<LeaseId>(3))->bundle.index, 1);
  // The group goes: what waits is turned away, what runs is ended, and the node has its resources back when that has happened.
  EXPECT_EQ(Do([&](LeaseEffects* out) { core_->ReturnBundles(g, 0, {}, "removed", now_, out); }),
            "reject 2 (no bundle), revoke 1, reject 4 (no bundle), revoke 3");
  EXPECT_EQ(core_->resources().available(), Set({{"CPU", 1}}));
  Return(1);
  Return(3);
  EXPECT_EQ(core_->resources().available(), Set({{"CPU", 4}}));
  EXPECT_EQ(core_->TakeChangedBundles().size(), 2u);
}

TEST_F(LeaseQueue, BundlesThatNobodyCommitsGoBack) {
  MakeNode({{"CPU", 1}});
  bool ok = false;
  Do([&](LeaseEffects* out) { ok = core_->PrepareBundles(Named<PlacementGroupId>(7), 1, {{0, Set({{"CPU", 1}})}}, false, now_, out); });
  EXPECT_TRUE(ok);
  EXPECT_EQ(Request(Want(1, 1)), "");
  EXPECT_EQ(TickAt(std::chrono::seconds(29)), "");
  EXPECT_EQ(TickAt(std::chrono::seconds(30)), "grant 1");
  Do([&](LeaseEffects* out) { ok = core_->CommitBundles(Named<PlacementGroupId>(7), 1, {0}, now_, out); });
  EXPECT_FALSE(ok);
}

TEST_F(LeaseQueue, ABlockedLeaseGivesItsCpuToItsBundle) {
  MakeNode({{"CPU", 1}});
  const auto g = Named<PlacementGroupId>(7);
  Do([&](LeaseEffects* out) { core_->PrepareBundles(g, 1, {{0, Set({{"CPU", 1}})}}, true, now_, out); });
  LeaseRequest parent = Want(1, 1), child = Want(2, 1);
  parent.bundle = child.bundle = {g, 0};
  child.depth = 1;
  EXPECT_EQ(Request(parent), "grant 1");
  EXPECT_EQ(Request(child), "reclaim 1");
  EXPECT_EQ(Do([&](LeaseEffects* out) { core_->Block(Named<LeaseId>(1), now_, out); }), "grant 2");
  EXPECT_EQ(core_->resources().available(), ResourceSet());
  core_->Unblock(Named<LeaseId>(1));
  EXPECT_EQ(Return(2), "");
  EXPECT_EQ(Return(1), "");
}

}  // namespace
}  // namespace ray::scheduling
