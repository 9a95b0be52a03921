// The simulation itself: its clock, loop and network keep their promises, and a seed gives the same run again.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "ray/testing/sim/disk.h"
#include "ray/testing/sim/kv_client.h"
#include "ray/testing/sim/network.h"
#include "ray/testing/sim/sim_cluster.h"
#include "ray/testing/sim/sim_gcs.h"
#include "ray/testing/sim/sim_raylet.h"
#include "ray/util/logging.h"
#include "ray/v1/explain.pb.h"
#include "ray/v1/gcs_job.pb.h"
#include "ray/v1/gcs_kv.pb.h"
#include "ray/v1/gcs_node.pb.h"
#include "ray/v1/raylet_worker.pb.h"
#include "ray/v1/sync.pb.h"
#include "ray/v1/tunnel.pb.h"
#include "ray/wire/convert.h"
#include "ray/wire/version.h"

namespace ray::sim {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

class Quiet : public ::testing::Environment {
 public:
  void SetUp() override {
    LogOptions options;
    options.level = LogLevel::kOff;
    ASSERT_TRUE(StartLogging(options).ok());
  }
};
const auto* const kQuiet = ::testing::AddGlobalTestEnvironment(new Quiet);

TEST(SimLoopTest, PostsKeepTheirOrderAndTimersFollowTheClockOfTheHost) {
  World world(7);
  world.SetSkew(1, {seconds(3), 100'000});  // a tenth too fast
  Process* slow = world.NewProcess("slow", 0);
  Process* fast = world.NewProcess("fast", 1);
  std::vector<int> order;
  slow->Run([&] {
    for (int i = 0; i < 5; ++i) slow->loop()->Post("n", [&order, i] { order.push_back(i); });
  });
  Time slow_fired, fast_fired;
  slow->loop()->AddTimer(seconds(10), [&] { slow_fired = world.now(); });
  fast->loop()->AddTimer(seconds(11), [&] { fast_fired = world.now(); });
  const async::TimerId cancelled = slow->loop()->AddTimer(seconds(1), [] { FAIL(); });
  slow->loop()->CancelTimer(cancelled);
  world.RunFor(seconds(20));
  EXPECT_EQ(order, (std::vector<int>{0, 1, 2, 3, 4}));
  EXPECT_NEAR(static_cast<double>((slow_fired - fast_fired).count()), 0, 1e6);
  EXPECT_EQ(slow->loop()->clock().Now() - slow->loop()->clock().Now(), Duration::zero());
}

TEST(SimLoopTest, NothingRunsAfterTheEndOfTheProcessNorWhileItStandsStill) {
  World world(8);
  Process* process = world.NewProcess("p", 0);
  int runs = 0;
  process->loop()->StandStill(Time{} + seconds(5));
  process->loop()->Post("early", [&] {
    ++runs;
    EXPECT_GE(world.now(), Time{} + seconds(5));
  });
  world.RunFor(seconds(4));
  EXPECT_EQ(runs, 0);
  world.RunFor(seconds(2));
  EXPECT_EQ(runs, 1);
  process->loop()->AddTimer(seconds(1), [&] { ++runs; });
  process->loop()->Post("late", [&] { ++runs; });
  process->Kill(Death::kKilled);
  world.RunFor(seconds(10));
  EXPECT_EQ(runs, 1);
}

// Two processes; the server counts what it gets.
class SimNetworkTest : public ::testing::Test {
 protected:
  SimNetworkTest() {
    server_dispatcher_.RegisterTyped<v1::KvGetRequest>(MethodId::kKvGet,
                                                       [this](const v1::KvGetRequest& m, rpc::Request&, rpc::Responder r) {
                                                         received_.push_back(m.key());
                                                         if (r.valid()) r.Send(v1::KvGetReply());
                                                       });
    EXPECT_TRUE(network_.Listen(server_, "server", &server_dispatcher_).ok());
  }
  void Connect() {
    client_->Run([this] {
      link_ = network_.Connect(client_, "server", &client_dispatcher_);
      link_->OnClose([this](const Status& why) { closed_ = why; });
    });
  }
  void Call(const std::string& key) {
    client_->Run([this, key] {
      v1::KvGetRequest request;
      request.set_key(key);
      link_->Call(MethodId::kKvGet, request, {},
                  [this, key](const Status& status, const rpc::Reply&) { answers_.push_back(key + (status.ok() ? " ok" : " lost")); });
    });
  }
  // A call over a link whose cable has been cut since: both ways, or only back from the server.
  void CallBehindCut(bool one_way) {
    Connect();
    world_.RunFor(seconds(1));
    if (one_way) {
      network_.CutOneWay(1, 0);
    } else {
      network_.Cut(0, 1);
    }
    Call("a");
  }

  World world_{1};
  SimNetwork network_{&world_};
  rpc::Dispatcher server_dispatcher_, client_dispatcher_;
  Process* client_ = world_.NewProcess("client", 0);
  Process* server_ = world_.NewProcess("server", 1);
  rpc::ConnectionPtr link_;
  Status closed_;
  std::vector<std::string> received_, answers_;
};

TEST_F(SimNetworkTest, DeliversInOrderOnce) {
  Connect();
  for (int i = 0; i < 20; ++i) Call(std::to_string(i));
  world_.RunFor(seconds(10));
  ASSERT_EQ(received_.size(), 20u);
  for (int i = 0; i < 20; ++i) EXPECT_EQ(received_[static_cast<size_t>(i)], std::to_string(i));
  EXPECT_EQ(answers_.size(), 20u);
}

TEST_F(SimNetworkTest, NobodyListens) {
  network_.StopListening("server");
  Connect();
  Call("a");
  world_.RunFor(seconds(1));
  EXPECT_EQ(answers_, std::vector<std::string>{"a lost"});
  EXPECT_EQ(closed_.code(), StatusCode::kUnavailable);
}

TEST_F(SimNetworkTest, WhatWaitsForACableArrivesIfItIsMendedInTime) {
  CallBehindCut(/*one_way=*/false);
  world_.RunFor(seconds(5));
  EXPECT_TRUE(received_.empty());
  network_.Mend(0, 1);
  world_.RunFor(seconds(5));
  EXPECT_EQ(answers_, std::vector<std::string>{"a ok"});
}

TEST_F(SimNetworkTest, WhatIsSentTheOtherWayOfACutArrives) {
  CallBehindCut(/*one_way=*/true);
  world_.RunFor(seconds(5));
  EXPECT_EQ(received_, std::vector<std::string>{"a"});
  EXPECT_TRUE(answers_.empty());
  network_.Mend(0, 1);
  world_.RunFor(seconds(5));
  EXPECT_EQ(answers_, std::vector<std::string>{"a ok"});
}

class LongCutTest : public SimNetworkTest, public ::testing::WithParamInterface<bool> {};

TEST_P(LongCutTest, BothEndsGiveUp) {
  CallBehindCut(/*one_way=*/GetParam());
  world_.RunFor(seconds(20));
  EXPECT_EQ(answers_, std::vector<std::string>{"a lost"});
  EXPECT_TRUE(server_->connections.empty());
}

INSTANTIATE_TEST_SUITE_P(OneWayOrBoth, LongCutTest, ::testing::Bool());

TEST_F(SimNetworkTest, NobodyConnectsWhoCannotBeAnswered) {
  network_.CutOneWay(1, 0);
  Connect();
  Call("a");
  world_.RunFor(seconds(5));
  EXPECT_TRUE(received_.empty());
  network_.Mend(0, 1);
  world_.RunFor(seconds(5));
  EXPECT_EQ(answers_, std::vector<std::string>{"a ok"});
}

// Its host says so to whoever sends, but the answer does not come through.
TEST_F(SimNetworkTest, ThatTheServerHasEndedIsHeardOnceTheCutIsMended) {
  Connect();
  world_.RunFor(seconds(1));
  network_.CutOneWay(1, 0);
  server_->Kill(Death::kKilled);
  Call("a");
  world_.RunFor(seconds(5));
  EXPECT_TRUE(closed_.ok());
  network_.Mend(0, 1);
  world_.RunFor(seconds(5));
  EXPECT_EQ(answers_, std::vector<std::string>{"a lost"});
  EXPECT_EQ(closed_.code(), StatusCode::kUnavailable);
}

// By the product's own means: lost requests come later, and are answered once.
TEST_F(SimNetworkTest, SingleMessagesFareBadlyAsTheirRulesAllow) {
  auto faults = rpc::FaultConfig::Parse("*=-1:20:20:0:duplicate=20:delay=20@10:reorder=20", 0);
  ASSERT_TRUE(faults.ok());
  network_.SetMessageFaults(*faults);
  Connect();
  for (int i = 0; i < 100; ++i) Call(std::to_string(i));
  world_.RunFor(seconds(10));
  EXPECT_EQ(answers_.size(), 100u);
  EXPECT_GT(received_.size(), 100u) << "some twice";
  EXPECT_GT(network_.num_message_faults(), 50u);
  EXPECT_NE(received_.front() + received_.back(), "099");
  network_.StopMessageFaults();
  const uint64_t so_far = network_.num_message_faults();
  const size_t had = received_.size();
  Call("well");
  world_.RunFor(seconds(1));
  EXPECT_EQ(received_.size(), had + 1);
  EXPECT_EQ(network_.num_message_faults(), so_far);
}

TEST_F(SimNetworkTest, TheEndOfAProcessIsSeenByItsPeersBehindWhatItSent) {
  Connect();
  Call("a");
  world_.RunUntil([this] { return !received_.empty(); }, world_.now() + seconds(1));
  server_->Kill(Death::kKilled);
  world_.RunFor(seconds(1));
  EXPECT_EQ(answers_, std::vector<std::string>{"a ok"});
  EXPECT_EQ(closed_.code(), StatusCode::kUnavailable);
}

TEST_F(SimNetworkTest, TheCrashOfAHostIsNoticedLate) {
  Connect();
  world_.RunFor(seconds(1));
  server_->Kill(Death::kHostCrashed);
  network_.SetDown(1, true);
  world_.RunFor(seconds(5));
  EXPECT_TRUE(closed_.ok());
  world_.RunFor(seconds(20));
  EXPECT_EQ(closed_.code(), StatusCode::kUnavailable);
}

TEST(KvHistoryTest, TellsWhatCannotBe) {
  using Kind = KvOperation::Kind;
  const auto at = [](int64_t ns) { return Time{ns}; };
  EXPECT_TRUE(IsLinearizable({{Kind::kPut, "a", true, at(1), at(5)}, {Kind::kGet, "a", true, at(2), at(3)}}));
  EXPECT_TRUE(IsLinearizable({{Kind::kPut, "a", true, at(1), at(5)}, {Kind::kGet, "", false, at(2), at(3)}}));
  EXPECT_FALSE(IsLinearizable({{Kind::kPut, "a", true, at(1), at(2)}, {Kind::kGet, "", false, at(3), at(4)}}));
  EXPECT_FALSE(IsLinearizable({{Kind::kPut, "a", true, at(1), at(2)}, {Kind::kPut, "b", true, at(3), at(4)}}));
  // Never answered: done late, or not at all.
  EXPECT_TRUE(IsLinearizable(
      {{Kind::kPut, "a", false, at(1), Time::Infinite()}, {Kind::kGet, "", false, at(3), at(4)}, {Kind::kGet, "a", true, at(5), at(6)}}));
  EXPECT_FALSE(IsLinearizable(
      {{Kind::kPut, "a", false, at(1), Time::Infinite()}, {Kind::kGet, "a", true, at(3), at(4)}, {Kind::kGet, "", false, at(5), at(6)}}));
}

// Every order of what must have happened and of any of the rest.
bool FitsSomeOrder(const std::vector<KvOperation>& operations, std::set<size_t> left, const std::optional<std::string>& state) {
  using Kind = KvOperation::Kind;
  Time first = Time::Infinite();
  for (const size_t i : left) first = std::min(first, operations[i].returned);
  if (first.is_infinite()) return true;
  for (const size_t i : left) {
    const KvOperation& op = operations[i];
    if (op.called > first) continue;
    std::optional<std::string> next = state;
    bool truth = false;
    switch (op.kind) {
      case Kind::kPut:
        truth = !state;
        next = op.value;
        break;
      case Kind::kPutIfAbsent:
        truth = !state;
        if (!state) next = op.value;
        break;
      case Kind::kDelete:
        truth = state.has_value();
        next.reset();
        break;
      case Kind::kGet: truth = state.has_value(); break;
    }
    if (!op.returned.is_infinite() && (truth != op.truth || (op.kind == Kind::kGet && truth && op.value != *state))) continue;
    std::set<size_t> rest = left;
    rest.erase(i);
    if (FitsSomeOrder(operations, std::move(rest), next)) return true;
  }
  return false;
}

TEST(KvHistoryTest, TellsTheSameAsTryingEveryOrder) {
  using Kind = KvOperation::Kind;
  Random random(3);
  int fit = 0;
  constexpr int kHistories = 20000;
  for (int history = 0; history < kHistories; ++history) {
    std::vector<KvOperation> operations(2 + random.Below(5));
    std::set<size_t> all;
    for (size_t i = 0; i < operations.size(); ++i) {
      KvOperation& op = operations[i];
      op.kind = static_cast<Kind>(random.Below(4));
      op.truth = random.Chance(0.5);
      op.called = Time{random.Between(0, 12)};
      if (random.Chance(0.7)) op.returned = op.called + Duration(random.Between(1, 8));
      op.value = std::to_string(op.kind == Kind::kGet ? random.Below(operations.size()) : i);
      all.insert(i);
    }
    const bool fits = FitsSomeOrder(operations, all, std::nullopt);
    ASSERT_EQ(IsLinearizable(operations), fits) << "history " << history;
    fit += fits ? 1 : 0;
  }
  EXPECT_GT(fit, kHistories / 10);
  EXPECT_LT(fit, kHistories * 9 / 10);
}

// Whole clusters: every invariant holds, and a seed gives the same run again. ci/scripts/sim.sh runs thousands.
TEST(SimClusterTest, ASeedGivesTheSameRunAgain) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    const Outcome first = SimCluster(seed, ClusterConfig::FromSeed(seed)).Run(),
                  second = SimCluster(seed, ClusterConfig::FromSeed(seed)).Run();
    EXPECT_EQ(first.problem, "") << "seed " << seed;
    EXPECT_EQ(first.trace_hash, second.trace_hash) << "seed " << seed;
    EXPECT_EQ(first.events, second.events) << "seed " << seed;
  }
}

// "  time  #number" of those that met somebody.
std::map<std::string, std::string> TimesOfFaults(const Outcome& outcome) {
  std::map<std::string, std::string> times;
  for (const std::string& text : outcome.fault_texts) {
    const size_t number = text.find('#');
    times[text.substr(number, text.find(' ', number) - number)] = text.substr(0, number);
  }
  return times;
}

TEST(SimClusterTest, AFaultThatIsLeftOutDoesNotHappenAndTheOthersComeWhenTheyDid) {
  ClusterConfig config = ClusterConfig::FromSeed(9);
  const auto all = TimesOfFaults(SimCluster(9, config).Run());
  ASSERT_TRUE(all.contains("#1") && all.size() > 10);
  config.without = {1, 5};
  const Outcome fewer = SimCluster(9, config).Run();
  EXPECT_EQ(fewer.problem, "");
  const auto left = TimesOfFaults(fewer);
  EXPECT_FALSE(left.contains("#1") || left.contains("#5"));
  size_t again = 0;
  for (const auto& [number, time] : left) {
    if (!all.contains(number)) continue;  // whom it would have met was away
    EXPECT_EQ(all.at(number), time);
    ++again;
  }
  EXPECT_GT(again, all.size() / 2);
  config.messages = "*=-1:5:5:5";
  config.without = {kMessageFaults};
  EXPECT_EQ(SimCluster(9, config).Run().message_faults, 0u);
}

// A GCS tells of a node, and ends before it has answered the raylet's registration; its follower has never heard of that node, and so never says that it is gone.
TEST(SimRayletTest, KnowsNoNodesOfAGcsThatNeverAnswered) {
  rpc::Dispatcher silent, answering;
  World world(5);
  SimNetwork network(&world);
  std::vector<rpc::Responder> unanswered;
  const NodeId ghost = NodeId::FromRandom();
  silent.RegisterTyped<v1::RegisterNodeRequest>(MethodId::kRegisterNode,
                                                [&](const v1::RegisterNodeRequest&, rpc::Request& request, rpc::Responder responder) {
                                                  v1::ResourceViewsNotice notice;
                                                  notice.add_nodes()->set_node_id(ghost.Binary());
                                                  notice.mutable_nodes(0)->set_version(1);
                                                  request.connection->Notify(MethodId::kResourceViews, notice);
                                                  unanswered.push_back(std::move(responder));
                                                });
  answering.RegisterTyped<v1::RegisterNodeRequest>(
      MethodId::kRegisterNode,
      [&](const v1::RegisterNodeRequest&, rpc::Request&, rpc::Responder responder) { responder.Send(v1::RegisterNodeReply()); });
  Process* first = world.NewProcess("gcs", 0);
  ASSERT_TRUE(network.Listen(first, kGcsAddress, &silent).ok());
  SimRaylet::Options options;
  options.config.listen = "10.0.0.1:7000";
  options.config.memory_monitor.interval = Duration::zero();
  SimRaylet* raylet = SimRaylet::Start(&network, 1, std::move(options));
  const auto knows = [&] { return raylet->services().leases().view().Find(ghost) != nullptr; };
  ASSERT_TRUE(world.RunUntil(knows, world.now() + seconds(5)));
  first->Kill(Death::kKilled);
  unanswered.clear();  // not before: one that is dropped answers with an error
  ASSERT_TRUE(network.Listen(world.NewProcess("gcs", 0), kGcsAddress, &answering).ok());
  ASSERT_TRUE(world.RunUntil([&] { return raylet->services().registered(); }, world.now() + seconds(5)));
  EXPECT_FALSE(knows());
}

// At most one version apart, whether it is the first that answers, or one that is started later; whoever reads the refusal learns of both.
TEST(SimRayletTest, RefusesAGcsThatIsTwoProtocolVersionsApart) {
  const int own = std::stoi(std::string(kProtocolVersion));
  struct Case {
    std::string first, later;  // of the GCS that answers first, and of the one that takes its place; empty: there is none
    std::string refused;       // empty: neither
  };
  const std::string far = std::to_string(own + 2), next = std::to_string(own + 1), same = std::to_string(own);
  for (const Case& c : {Case{far, "", far}, Case{next, far, far}, Case{same, next, ""}, Case{std::to_string(own - 1), same, ""}}) {
    std::string version;
    std::optional<Status> end;
    rpc::Dispatcher gcs;
    World world(5);
    SimNetwork network(&world);
    int answered = 0;
    gcs.RegisterTyped<v1::RegisterNodeRequest>(MethodId::kRegisterNode,
                                               [&](const v1::RegisterNodeRequest&, rpc::Request&, rpc::Responder responder) {
                                                 ++answered;
                                                 v1::RegisterNodeReply reply;
                                                 reply.set_protocol_version(version);
                                                 reply.set_durable(true);
                                                 responder.Send(reply);
                                               });
    gcs.RegisterFallback([](rpc::Request, rpc::Responder responder) {
      if (responder.valid()) responder.Send(v1::PubSubEmpty());
    });
    SimRaylet::Options options;
    options.config.listen = "10.0.0.1:7000";
    options.config.memory_monitor.interval = Duration::zero();
    options.on_end = [&end](const Status& why) { end = why; };
    SimRaylet* raylet = nullptr;
    Process* process = nullptr;
    for (const std::string& turn : {c.first, c.later}) {
      if (turn.empty() || end) continue;
      version = turn;
      Process* server = world.NewProcess("gcs", 0);
      ASSERT_TRUE(network.Listen(server, kGcsAddress, &gcs).ok());
      if (raylet == nullptr) {
        raylet = SimRaylet::Start(&network, 1, std::move(options));
        process = raylet->process();
      }
      const int before = answered;
      ASSERT_TRUE(world.RunUntil([&] { return answered > before; }, world.now() + seconds(5)));
      world.RunFor(seconds(1));
      server->Kill(Death::kKilled);
    }
    EXPECT_EQ(process->alive(), c.refused.empty());
    ASSERT_EQ(end.has_value(), !c.refused.empty()) << c.first << " then " << c.later;
    if (!end) continue;
    EXPECT_EQ(end->code(), StatusCode::kFailedPrecondition);
    EXPECT_EQ(end->message(),
              "the GCS speaks protocol " + far + ", this raylet speaks " + same + ": nodes may be at most one version apart");
  }
}

// Columns name nodes by numbers, which stand for those that were told of in full; where one is not known, the rest cannot be read, and is dropped.
TEST(SimRayletTest, ReadsViewsInColumns) {
  rpc::Dispatcher gcs;
  World world(5);
  SimNetwork network(&world);
  rpc::ConnectionPtr link;
  gcs.RegisterTyped<v1::RegisterNodeRequest>(MethodId::kRegisterNode,
                                             [&](const v1::RegisterNodeRequest& message, rpc::Request& request, rpc::Responder responder) {
                                               EXPECT_TRUE(message.reads_columns());
                                               EXPECT_TRUE(message.watches_processes());
                                               link = request.connection;
                                               responder.Send(v1::RegisterNodeReply());
                                             });
  gcs.RegisterFallback([](rpc::Request, rpc::Responder responder) {
    if (responder.valid()) responder.Send(v1::PubSubEmpty());
  });
  ASSERT_TRUE(network.Listen(world.NewProcess("gcs", 0), kGcsAddress, &gcs).ok());
  SimRaylet::Options options;
  options.config.listen = "10.0.0.1:7000";
  options.config.memory_monitor.interval = Duration::zero();
  SimRaylet* raylet = SimRaylet::Start(&network, 1, std::move(options));
  ASSERT_TRUE(world.RunUntil([&] { return raylet->services().registered(); }, world.now() + seconds(5)));
  const NodeId a = NodeId::FromRandom(), b = NodeId::FromRandom(), self = raylet->node_id();
  ResourceSet total;
  total.Set("CPU", 4 * ResourceSet::kUnit);
  total.Set("slot", ResourceSet::kUnit);
  v1::ResourceViewsNotice all;
  uint32_t number = 0;
  for (const NodeId& node : {a, self, b}) {
    v1::NodeResourceView* view = all.add_nodes();
    view->set_node_id(node.Binary());
    ToProto(total, view->mutable_total());
    ToProto(total, view->mutable_available());
    view->set_version(1);
    view->set_number(++number);
  }
  const auto tell = [&](const v1::ResourceViewsNotice& notice) {
    link->Notify(MethodId::kResourceViews, notice);
    world.RunFor(std::chrono::milliseconds(500));
  };
  const auto cpus = [&](const NodeId& node) {
    const auto* known = raylet->services().leases().view().Find(node);
    return known == nullptr ? -1 : known->available().Get("CPU") / ResourceSet::kUnit;
  };
  // For each node its number, what is taken of its CPUs, and of its slot.
  const auto columns = [&](uint64_t version, const std::vector<std::pair<uint32_t, int64_t>>& taken) {
    v1::ResourceViewsNotice notice;
    for (const auto& [of, amount] : taken) {
      notice.add_numbers(of);
      notice.add_versions(version);
      notice.add_taken(amount * ResourceSet::kUnit);
      notice.add_taken(0);
    }
    return notice;
  };
  const int64_t own = cpus(self);
  tell(columns(2, {{1, 3}}));  // nobody has said who that is
  EXPECT_EQ(cpus(a), -1);
  tell(all);
  tell(columns(2, {{1, 3}, {2, 4}, {3, 1}}));
  EXPECT_EQ(cpus(a), 1);
  EXPECT_EQ(cpus(b), 3);
  EXPECT_EQ(cpus(self), own) << "it knows better";
  tell(columns(2, {{1, 0}}));  // old news
  EXPECT_EQ(cpus(a), 1);
  tell(columns(3, {{3, 0}, {9, 0}, {1, 0}}));
  EXPECT_EQ(cpus(b), 4);
  EXPECT_EQ(cpus(a), 1) << "behind a number that names nothing";
  v1::ResourceViewsNotice cut = columns(4, {{3, 2}, {1, 2}});
  cut.mutable_taken()->RemoveLast();
  tell(cut);
  EXPECT_EQ(cpus(b), 2);
  EXPECT_EQ(cpus(a), 1);
  // A dead node still has its place in columns that are on their way.
  v1::ResourceViewsNotice gone;
  gone.add_gone(a.Binary());
  tell(gone);
  tell(columns(5, {{1, 0}, {3, 1}}));
  EXPECT_EQ(cpus(a), -1);
  EXPECT_EQ(cpus(b), 3);
}

// A GCS that gives out a job and notes whose end it is told of; one that does not answer keeps the requests. For a raylet and a driver that never registers.
class JobsAtRaylet : public testing::Test {
 protected:
  JobsAtRaylet() {
    for (rpc::Dispatcher* gcs : {&silent_, &answering_}) {
      gcs->RegisterTyped<v1::RegisterNodeRequest>(MethodId::kRegisterNode,
                                                  [](const v1::RegisterNodeRequest&, rpc::Request&, rpc::Responder responder) {
                                                    v1::RegisterNodeReply reply;
                                                    reply.set_durable(true);
                                                    responder.Send(reply);
                                                  });
      gcs->RegisterFallback([](rpc::Request, rpc::Responder responder) {
        if (responder.valid()) responder.Send(v1::JobEmpty());
      });
    }
    silent_.RegisterTyped<v1::AddJobRequest>(MethodId::kAddJob, [this](const v1::AddJobRequest&, rpc::Request&, rpc::Responder responder) {
      unanswered_.push_back(std::move(responder));
    });
    answering_.RegisterTyped<v1::AddJobRequest>(MethodId::kAddJob, [](const v1::AddJobRequest&, rpc::Request&, rpc::Responder responder) {
      v1::AddJobReply reply;
      reply.set_job_id(JobId::FromInt(7).Binary());
      responder.Send(reply);
    });
    answering_.RegisterTyped<v1::FinishJobRequest>(MethodId::kFinishJob,
                                                   [this](const v1::FinishJobRequest& message, rpc::Request&, rpc::Responder responder) {
                                                     finished_.push_back(message.job_id());
                                                     responder.Send(v1::JobEmpty());
                                                   });
  }
  Process* StartGcs(rpc::Dispatcher* dispatcher) {
    Process* gcs = world_.NewProcess("gcs", 0);
    EXPECT_TRUE(network_.Listen(gcs, kGcsAddress, dispatcher).ok());
    return gcs;
  }
  // Asks for a job of the raylet, which is started.
  Process* StartDriver() {
    SimRaylet::Options options;
    options.config.listen = "10.0.0.1:7000";
    options.config.memory_monitor.interval = Duration::zero();
    SimRaylet* raylet = SimRaylet::Start(&network_, 1, std::move(options));
    EXPECT_TRUE(world_.RunUntil([&] { return raylet->ready(); }, world_.now() + seconds(5)));
    Process* driver = world_.NewProcess("driver", 1);
    driver->Run([&] {
      v1::AddJobRequest request;
      request.mutable_job()->set_driver_worker_id(WorkerId::FromRandom().Binary());
      network_.Connect(driver, raylet->address(), &driver_side_)
          ->Call(MethodId::kAddJob, request, {}, [this](const Status& status, const rpc::Reply&) { has_job_ = status.ok(); }, {});
    });
    return driver;
  }
  void ExpectFinished() {
    EXPECT_TRUE(world_.RunUntil([&] { return !finished_.empty(); }, world_.now() + seconds(5)));
    EXPECT_EQ(finished_, std::vector<std::string>{JobId::FromInt(7).Binary()});
  }

  rpc::Dispatcher silent_, answering_, driver_side_;
  World world_{6};
  SimNetwork network_{&world_};
  std::vector<rpc::Responder> unanswered_;
  std::vector<std::string> finished_;
  bool has_job_ = false;
};

TEST_F(JobsAtRaylet, EndWithADriverThatNeverRegisters) {
  StartGcs(&answering_);
  Process* driver = StartDriver();
  ASSERT_TRUE(world_.RunUntil([&] { return has_job_; }, world_.now() + seconds(5)));
  driver->Kill(Death::kKilled);
  ExpectFinished();
}

// The GCS may have written the job down, and ends before it has answered, as does the driver: the raylet asks the next GCS again, hears the job's number, and ends it.
TEST_F(JobsAtRaylet, EndWithADriverThatWentBeforeItHadOne) {
  Process* gcs = StartGcs(&silent_);
  Process* driver = StartDriver();
  ASSERT_TRUE(world_.RunUntil([&] { return !unanswered_.empty(); }, world_.now() + seconds(5)));
  gcs->Kill(Death::kKilled);
  unanswered_.clear();
  driver->Kill(Death::kKilled);
  world_.RunFor(seconds(1));
  StartGcs(&answering_);
  ExpectFinished();
}

// Two nodes whose workers never come up, and a driver on the first that asks the second for a lease, through tunnels: so the request waits there.
class TwoNodes : public testing::Test {
 protected:
  static constexpr HostId kHere = 1, kThere = 2;
  void Start(uint64_t seed) {
    network_.reset();  // ends the processes
    world_.reset();
    world_ = std::make_unique<World>(seed);
    network_ = std::make_unique<SimNetwork>(world_.get());
    disk_ = std::make_unique<SimDisk>(world_.get());
    gcs_ = std::make_unique<SimGcs>(world_.get(), network_.get(), disk_.get(), 0);
    gcs::GcsServerOptions gcs;
    gcs.health.period = seconds(1);
    ASSERT_TRUE(gcs_->Start(std::move(gcs)).ok());
    raylets_.clear();
    ASSERT_NO_FATAL_FAILURE(StartNode(kHere));
    ASSERT_NO_FATAL_FAILURE(StartNode(kThere));
    driver_ = SimDriver::Start(network_.get(), kHere, Address{raylets_[kHere]->node_id(), WorkerId::Nil()}, raylets_[kHere]->address(),
                               {.active = seconds(0)}, &history_);
    ASSERT_TRUE(world_->RunUntil([this] { return driver_->holds_only(); }, world_->now() + seconds(10)));
  }
  // Until all know of one another.
  void StartNode(HostId host) {
    SimRaylet::Options options;
    options.config.node_ip = "10.0.0." + std::to_string(host);
    options.config.listen = options.config.node_ip + ":7000";
    options.config.node_dir = "/host" + std::to_string(host) + "." + std::to_string(++starts_);
    options.config.gcs_address = kGcsAddress;
    options.config.python_version = "3.11.7";
    options.config.memory_monitor.interval = Duration::zero();
    options.config.resources.Set("CPU", ResourceSet::kUnit);
    options.worker = [](Process*, const raylet::LaunchRequest&, const std::string&) {};
    raylets_[host] = SimRaylet::Start(network_.get(), host, std::move(options));
    const auto ready = [this] {
      return std::all_of(raylets_.begin(), raylets_.end(), [this](const auto& entry) {
        return entry.second->ready() && entry.second->services().nodes()->nodes().size() == raylets_.size() - 1;
      });
    };
    ASSERT_TRUE(world_->RunUntil(ready, world_->now() + seconds(10)));
  }
  // `again`: when the way has ended under it, it asks once more, over the next link, as owners do.
  void Ask(bool again) {
    lease_ = LeaseId::FromRandom();
    ++asked_;
    driver_->AskForLease(lease_, raylets_[kThere]->node_id(), [this, again](const Status& status) {
      EXPECT_EQ(status.code(), StatusCode::kUnavailable);
      ++ended_;
      if (again) driver_->process()->loop()->AddTimer(milliseconds(60), [this] { Ask(/*again=*/false); });  // a link is dialled again
    });
  }
  bool Waits() const {
    v1::WaitFact fact;
    return raylets_.at(kThere)->services().leases().Explain(lease_, &fact);
  }
  rpc::ConnectionPtr Link(HostId from, HostId to) { return raylets_[from]->services().nodes()->ExistingLink(raylets_[to]->node_id()); }

  KvHistory history_;
  std::unique_ptr<World> world_;
  std::unique_ptr<SimDisk> disk_;
  std::unique_ptr<SimGcs> gcs_;
  std::unique_ptr<SimNetwork> network_;
  std::map<HostId, SimRaylet*> raylets_;
  SimDriver* driver_ = nullptr;
  LeaseId lease_;  // the last one
  int starts_ = 0, asked_ = 0, ended_ = 0;
};

// One end gives a link up, and the driver's request goes over the next one, before the other end hears of the break. That takes the tunnels of both links for lost, so it
// has to say so to the node that has opened one since: or the request waits for ever.
TEST_F(TwoNodes, ABreakThatIsHeardOfLateEndsWhatCameOverTheNextLinkAtBothEnds) {
  int late = 0;
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(seed);
    asked_ = ended_ = 0;
    ASSERT_NO_FATAL_FAILURE(Start(seed));
    driver_->process()->Run([this] { Ask(/*again=*/true); });
    ASSERT_TRUE(world_->RunUntil([this] { return Waits(); }, world_->now() + seconds(5)));
    const rpc::ConnectionPtr here = Link(kHere, kThere), there = Link(kThere, kHere);
    network_->CutOneWay(kHere, kThere);
    ASSERT_TRUE(world_->RunUntil([&] { return here->closed() || there->closed(); }, world_->now() + seconds(20)));
    world_->RunFor(milliseconds(5));  // what it says of that is on its way, and has to be repeated
    network_->Mend(kHere, kThere);
    bool came_before = false;
    world_->RunUntil(
        [&] {
          came_before |= asked_ == 2 && !there->closed() && Waits();
          return asked_ == 2 && there->closed() && here->closed();
        },
        world_->now() + seconds(20));
    world_->RunFor(seconds(3));
    EXPECT_EQ(asked_, 2);
    EXPECT_TRUE(ended_ == 2 || Waits()) << "it waits for nobody";
    late += came_before ? 1 : 0;
  }
  EXPECT_GT(late, 3) << "the case that this is about";
}

// Suspect only: probes are missed, and then answered.
TEST_F(TwoNodes, OneThatStandsStillForLessThanTheProbesAllowGoesOnAsBefore) {
  ASSERT_NO_FATAL_FAILURE(Start(1));
  const NodeId there = raylets_[kThere]->node_id();
  Process* process = raylets_[kThere]->process();
  process->loop()->StandStill(world_->now() + seconds(4));
  world_->RunFor(seconds(30));
  EXPECT_TRUE(process->alive());
  EXPECT_NE(raylets_[kHere]->services().nodes()->Find(there), nullptr);
  driver_->process()->Run([this] { Ask(/*again=*/false); });
  EXPECT_TRUE(world_->RunUntil([this] { return Waits(); }, world_->now() + seconds(5)));
}

// It was taken for dead, and goes on with what it knew: it is refused by all, ends, and comes back as another.
TEST_F(TwoNodes, AZombieIsRefusedAndComesBackUnderAnotherId) {
  ASSERT_NO_FATAL_FAILURE(Start(1));
  driver_->process()->Run([this] { Ask(/*again=*/false); });
  ASSERT_TRUE(world_->RunUntil([this] { return Waits(); }, world_->now() + seconds(5)));
  const NodeId zombie = raylets_[kThere]->node_id();
  Process* process = raylets_[kThere]->process();
  const auto& nodes = *raylets_[kHere]->services().nodes();
  process->loop()->StandStill(world_->now() + seconds(30));
  ASSERT_TRUE(world_->RunUntil([&] { return nodes.IsDead(zombie); }, world_->now() + seconds(20)));
  world_->RunFor(seconds(1));
  EXPECT_TRUE(process->alive());
  EXPECT_EQ(ended_, 1) << "what waited there was told";
  raylets_.erase(kThere);
  ASSERT_TRUE(world_->RunUntil([&] { return !process->alive(); }, world_->now() + seconds(60)));
  ASSERT_NO_FATAL_FAILURE(StartNode(kThere));
  EXPECT_NE(raylets_[kThere]->node_id(), zombie);
  EXPECT_EQ(nodes.Find(zombie), nullptr);
  EXPECT_NE(nodes.Find(raylets_[kThere]->node_id()), nullptr);
  EXPECT_NE(raylets_[kThere]->services().nodes()->Find(raylets_[kHere]->node_id()), nullptr);
}

// A process of a node that does nothing but hear of others' ends.
class Onlooker {
 public:
  Onlooker(SimNetwork* network, HostId host, const SimRaylet& raylet)
      : process_(network->world()->NewProcess("driver", host)), self_{raylet.node_id(), WorkerId::FromRandom()} {
    dispatcher_.RegisterTyped<v1::WorkerDiedNotice>(MethodId::kWorkerDied,
                                                    [this](const v1::WorkerDiedNotice& notice, rpc::Request&, rpc::Responder) {
                                                      ends_.insert(WorkerId::FromBinaryOrNil(notice.worker_id()));
                                                    });
    process_->Run([&] {
      raylet_ = network->Connect(process_, raylet.address(), &dispatcher_);
      v1::RegisterWorkerRequest request;
      request.set_worker_id(self_.worker_id.Binary());
      request.set_is_driver(true);
      request.set_pid(process_->pid());
      request.set_protocol_version(std::string(kProtocolVersion));
      request.set_python_version("3.11.7");
      raylet_->Call(MethodId::kRegisterWorker, request, {}, [this](const Status& status, const rpc::Reply&) { registered_ = status.ok(); });
    });
  }
  const Address& address() const { return self_; }
  bool registered() const { return registered_; }
  bool HeardOf(const Address& process) const { return ends_.contains(process.worker_id); }
  // Opens a channel to the process.
  void Meet(const Address& process) {
    v1::TunnelFrames envelope;
    ToProto(process, envelope.mutable_to());
    ToProto(self_, envelope.mutable_from());
    envelope.set_channel(++last_channel_);
    envelope.set_from_opener(true);
    process_->Run([&] { raylet_->NotifyRaw(MethodId::kTunnel, envelope.SerializeAsString(), {HeapBuffer::CopyOf("x")}); });
  }
  void Watch(const Address& process) {
    v1::WatchProcessNotice notice;
    ToProto(process, notice.mutable_process());
    process_->Run([&] { raylet_->Notify(MethodId::kWatchProcess, notice); });
  }
  void Die() { process_->Kill(Death::kKilled); }

 private:
  Process* const process_;
  const Address self_;
  rpc::Dispatcher dispatcher_;
  rpc::ConnectionPtr raylet_;
  uint64_t last_channel_ = 0;
  bool registered_ = false;
  std::set<WorkerId> ends_;
};

// Three nodes, and who hears of the end of a process of the first.
class EndsOfProcesses : public TwoNodes {
 protected:
  void SetUp() override {
    ASSERT_NO_FATAL_FAILURE(Start(7));
    ASSERT_NO_FATAL_FAILURE(StartNode(kOther));
    beside_ = Join(kHere);
    there_ = Join(kThere);
    other_ = Join(kOther);
  }
  void TearDown() override {
    network_.reset();
    world_.reset();
  }
  std::unique_ptr<Onlooker> Join(HostId host) {
    auto joined = std::make_unique<Onlooker>(network_.get(), host, *raylets_[host]);
    EXPECT_TRUE(world_->RunUntil([&] { return joined->registered(); }, world_->now() + seconds(5)));
    return joined;
  }
  void Ends(Onlooker* process) {
    process->Die();
    world_->RunFor(seconds(1));
  }

  static constexpr HostId kOther = 3;
  std::unique_ptr<Onlooker> beside_, there_, other_;
};

TEST_F(EndsOfProcesses, AreToldOnTheirNodeAndOnThoseThatTheyHaveMet) {
  const auto a = Join(kHere), b = Join(kHere), c = Join(kHere);
  a->Meet(there_->address());
  there_->Meet(b->address());
  world_->RunFor(seconds(1));
  for (Onlooker* process : {a.get(), b.get(), c.get()}) Ends(process);
  for (const Onlooker* process : {a.get(), b.get(), c.get()}) {
    EXPECT_TRUE(beside_->HeardOf(process->address()));
    EXPECT_EQ(there_->HeardOf(process->address()), process != c.get());
    EXPECT_FALSE(other_->HeardOf(process->address()));
  }
}

// The channel is lost with its link; that they have met is not.
TEST_F(EndsOfProcesses, AreToldAfterTheWayHasBroken) {
  const auto process = Join(kHere);
  there_->Meet(process->address());
  world_->RunFor(seconds(1));
  Link(kHere, kThere)->Close(Status::Unavailable("broken"));
  world_->RunFor(seconds(1));
  Ends(process.get());
  EXPECT_TRUE(there_->HeardOf(process->address()));
  EXPECT_FALSE(other_->HeardOf(process->address()));
}

TEST_F(EndsOfProcesses, AreToldWhereSomebodyWatches) {
  const auto process = Join(kHere);
  for (int i = 0; i < 2; ++i) other_->Watch(process->address());
  world_->RunFor(seconds(1));
  EXPECT_FALSE(other_->HeardOf(process->address()));
  Ends(process.get());
  EXPECT_TRUE(other_->HeardOf(process->address()));
  EXPECT_FALSE(there_->HeardOf(process->address()));
}

TEST_F(EndsOfProcesses, AreToldToThoseWhoAskForThemLater) {
  const auto process = Join(kHere);
  Ends(process.get());
  EXPECT_FALSE(other_->HeardOf(process->address()));
  other_->Watch(process->address());
  world_->RunFor(seconds(1));
  EXPECT_TRUE(other_->HeardOf(process->address()));
  // Those who have come since are told, too.
  const auto late = Join(kOther);
  late->Watch(process->address());
  world_->RunFor(seconds(1));
  EXPECT_TRUE(late->HeardOf(process->address()));
}

// It ends while the question is on its way, or the answer.
TEST_F(EndsOfProcesses, AreToldThoughTheWayBreaksUnderTheQuestion) {
  for (int broken = 0; broken < 40; ++broken) {
    SCOPED_TRACE(broken);
    const auto process = Join(kHere);
    other_->Watch(process->address());
    world_->RunFor(std::chrono::microseconds(50 * broken));
    if (const auto link = Link(kOther, kHere)) link->Close(Status::Unavailable("broken"));
    if (broken % 2 == 0) world_->RunFor(std::chrono::microseconds(300));
    process->Die();
    world_->RunFor(seconds(5));
    EXPECT_TRUE(other_->HeardOf(process->address()));
  }
}

TEST_F(EndsOfProcesses, AreToldToThoseWhoAskAfterTheDeathOfTheNode) {
  const auto process = Join(kHere);
  raylets_[kHere]->process()->Kill(Death::kKilled);
  world_->RunFor(seconds(5));
  other_->Watch(process->address());
  world_->RunFor(seconds(1));
  EXPECT_TRUE(other_->HeardOf(process->address()));
}

struct KvRun {
  uint64_t hash = 0, events = 0;
  int gcs_starts = 0;
  size_t answered = 0;
  std::string problem;
};

// Clients on three hosts, a GCS that is killed again and again, cables that are cut.
KvRun RunKv(uint64_t seed) {
  World world(seed);
  SimNetwork network(&world);
  SimDisk disk(&world);
  KvHistory history;
  SimGcs gcs(&world, &network, &disk, 0);
  EXPECT_TRUE(gcs.Start({}).ok());
  size_t running = 4;
  KvClientConfig config;
  for (HostId host = 0; host < running; ++host) {
    KvClient::Start(&network, world.NewProcess("client", host), config, &history, [&] { --running; });
  }
  std::string problem;
  for (int fault = 0; fault < 8; ++fault) {
    world.RunFor(world.random().Between(Duration::zero(), Duration(seconds(2))));
    switch (world.random().Below(4)) {
      case 0: gcs.Kill(Death::kKilled); break;
      case 1: network.BreakConnections(0, static_cast<HostId>(world.random().Below(4))); break;
      case 2: network.Cut(0, static_cast<HostId>(1 + world.random().Below(3))); break;
      case 3: disk.FailNext(); break;
    }
    world.RunFor(world.random().Between(Duration::zero(), Duration(seconds(2))));
    network.MendAll();
    if (!gcs.alive()) {
      if (const Status started = gcs.Start({}); !started.ok()) problem = started.ToString();
    }
  }
  world.RunUntil([&] { return running == 0; }, world.now() + seconds(100));
  if (!gcs.alive()) {  // a disk that failed last
    EXPECT_TRUE(gcs.Start({}).ok());
  }
  if (!world.RunUntil([&] { return running == 0; }, world.now() + seconds(100))) problem = "operations were never answered";
  if (problem.empty()) problem = history.Check();
  return {world.trace().hash(), world.events_run(), gcs.starts(), history.num_answered(), problem};
}

TEST(SimKvTest, EveryHistoryFitsOneTable) {
  int restarts = 0;
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    const KvRun run = RunKv(seed);
    EXPECT_EQ(run.problem, "") << "seed " << seed;
    EXPECT_EQ(run.answered, 80u) << "seed " << seed;
    restarts += run.gcs_starts - 1;
  }
  EXPECT_GT(restarts, 200);
}

TEST(SimKvTest, ASeedGivesTheSameRunAgain) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    const KvRun first = RunKv(seed), second = RunKv(seed);
    EXPECT_EQ(first.hash, second.hash) << "seed " << seed;
    EXPECT_EQ(first.events, second.events) << "seed " << seed;
    EXPECT_NE(first.hash, RunKv(seed + 1000).hash);
  }
}

}  // namespace
}  // namespace ray::sim
