// A GCS ends and another one goes on from what it stored; raylets come back with what they have.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "ray/gcs_server/gcs_server.h"
#include "ray/gcs_server/testing_fakes.h"
#include "ray/v1/gcs_actor.pb.h"
#include "ray/v1/gcs_job.pb.h"
#include "ray/v1/gcs_kv.pb.h"
#include "ray/v1/gcs_node.pb.h"
#include "ray/v1/gcs_placement_group.pb.h"
#include "ray/v1/pubsub.pb.h"
#include "ray/v1/raylet_bundle.pb.h"
#include "ray/v1/raylet_lease.pb.h"
#include "ray/wire/convert.h"

namespace ray::gcs {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

// Outlives the servers of a test.
class KeptStorage final : public Storage {
 public:
  Result<StorageContents> Load() override { return memory_.Load(); }
  void Write(std::vector<StorageOp> batch, std::function<void(Status)> done) override {
    if (dying) return;  // the process is killed before anything of it is durable
    memory_.Write(std::move(batch), std::move(done));
  }
  bool durable() const override { return true; }
  bool dying = false;

 private:
  MemoryStorage memory_;
};

template <typename Id>
Id MakeId(char fill) {
  return Id::FromBinaryOrNil(std::string(Id::kSize, fill));
}

class GcsRestartTest : public testing::Test {
 protected:
  GcsRestartTest() { Restart(); }
  ~GcsRestartTest() override { End(); }
  void End() {
    for (auto& [node, link] : links_) link->Drop();
    links_.clear();
    client_ = nullptr;
    loop_.RunAll();
    server_ = nullptr;
  }
  // As kill -9 and a new start: whatever the links had pending is lost.
  void Restart() {
    End();
    storage_.dying = false;
    GcsServerOptions options;
    options.session_name = "session_x";
    options.knock = [this](const std::string&, int port, std::function<void(bool)> done) {
      loop_.Post("knock", [refused = gone_.contains(port), done = std::move(done)] { done(refused); });
    };
    auto server = GcsServer::Make(std::move(options), &loop_, &storage_);
    ASSERT_TRUE(server.ok()) << server.status().ToString();
    server_ = std::move(*server);
    client_ = std::make_shared<FakeLink>(++last_link_);
  }

  template <typename ReplyMessage>
  ReplyMessage Call(const std::shared_ptr<FakeLink>& link, MethodId method, const rpc::MessageLite& message) {
    link->answer.clear();
    link->error = Status();
    const std::string control = message.SerializeAsString();
    server_->dispatcher()->Dispatch({method, control, {}, link, false}, rpc::Responder(link, method, 1));
    ReplyMessage reply;
    EXPECT_TRUE(!link->error.ok() || reply.ParseFromString(link->answer));
    return reply;
  }
  // A raylet with 4 CPUs, new or with what it has.
  v1::RegisterNodeReply Join(char node, const v1::NodeState* state = nullptr) {
    auto& link = links_[node] = std::make_shared<FakeLink>(++last_link_);
    v1::RegisterNodeRequest request;
    request.mutable_node()->set_node_id(MakeId<NodeId>(node).Binary());
    request.mutable_node()->set_ip("10.0.0.1");
    request.mutable_node()->set_port(node);
    ResourceSet set;
    set.Set("CPU", 4 * ResourceSet::kUnit);
    *request.mutable_node()->mutable_total() = ToProto(set);
    *request.mutable_node()->mutable_available() = ToProto(set);
    if (state != nullptr) {
      *request.mutable_state() = *state;
      request.mutable_state()->set_cluster_id(cluster_id_);
      v1::ReportResourcesRequest* report = request.mutable_state()->mutable_resources();
      report->set_node_id(request.node().node_id());
      report->set_version(++version_);
      *report->mutable_total() = ToProto(set);
      *report->mutable_available() = ToProto(set);
    }
    const auto reply = Call<v1::RegisterNodeReply>(link, MethodId::kRegisterNode, request);
    if (state == nullptr) cluster_id_ = reply.cluster_id();
    return reply;
  }
  v1::RegisterNodeReply Return(char node, const v1::NodeState& state = {}) { return Join(node, &state); }
  FakeLink& Link(char node) { return *links_.at(node); }

  ActorId CreateActor(char letter, const std::string& name = "", bool detached = false, int restarts = 0) {
    const ActorId actor = MakeId<ActorId>(letter);
    v1::RegisterActorRequest request;
    request.mutable_spec()->mutable_template_()->set_job_id(JobId::FromInt(1).Binary());
    v1::ActorCreation* creation = request.mutable_spec()->mutable_creation();
    creation->set_actor_id(actor.Binary());
    creation->set_name(name);
    creation->set_detached(detached);
    creation->set_max_restarts(restarts);
    *creation->mutable_owner() = ToProto(Address{MakeId<NodeId>('N'), MakeId<WorkerId>('D')});
    Call<v1::RegisterActorReply>(client_, MethodId::kRegisterActor, request);
    v1::CreateActorRequest create;
    *create.mutable_spec() = request.spec();
    Call<v1::ActorEmpty>(client_, MethodId::kCreateActor, create);
    return actor;
  }
  void AnswerStart(char node, char worker) {
    v1::StartActorReply started;
    *started.mutable_worker() = ToProto(Address{MakeId<NodeId>(node), MakeId<WorkerId>(worker)});
    Link(node).Answer(started);
  }
  v1::ActorInfo Actor(const ActorId& actor) {
    v1::GetActorRequest get;
    get.set_actor_id(actor.Binary());
    return Call<v1::GetActorReply>(client_, MethodId::kGetActor, get).actor();
  }
  static void Has(v1::NodeState* state, const ActorId& actor, uint32_t restart, char worker) {
    v1::ActorOnNode* found = state->add_actors();
    found->set_actor_id(actor.Binary());
    found->set_restart(restart);
    if (worker != 0) found->set_worker_id(std::string(WorkerId::kSize, worker));
  }
  std::string CreateGroup(int bundles, v1::PlacementStrategy strategy, const std::string& name = "") {
    v1::CreatePlacementGroupRequest request;
    request.mutable_group()->set_placement_group_id(std::string(PlacementGroupId::kSize, 'p'));
    request.mutable_group()->set_strategy(strategy);
    request.mutable_group()->set_name(name);
    ResourceSet one;
    one.Set("CPU", ResourceSet::kUnit);
    for (int i = 0; i < bundles; ++i) *request.mutable_group()->add_bundles()->mutable_resources() = ToProto(one);
    Call<v1::PlacementGroupEmpty>(client_, MethodId::kCreatePlacementGroup, request);
    return request.group().placement_group_id();
  }
  v1::PlacementGroupInfo Group() {
    v1::GetPlacementGroupRequest get;
    get.set_placement_group_id(std::string(PlacementGroupId::kSize, 'p'));
    return Call<v1::GetPlacementGroupReply>(client_, MethodId::kGetPlacementGroup, get).group();
  }
  static void Has(v1::NodeState* state, int32_t bundle) {
    state->add_bundles()->set_placement_group_id(std::string(PlacementGroupId::kSize, 'p'));
    state->mutable_bundles(state->bundles_size() - 1)->set_index(bundle);
  }
  // The bundle that the node was asked to reserve.
  int32_t Prepared(char node) { return Link(node).Newest<v1::PrepareBundlesRequest>(MethodId::kPrepareBundles).bundles(0).index(); }
  void AnswerPrepare(char node, bool prepared = true) {
    v1::PrepareBundlesReply reply;
    reply.set_prepared(prepared);
    Link(node).Answer(reply);
  }

  ManualLoop loop_;
  KeptStorage storage_;
  std::unique_ptr<GcsServer> server_;
  std::map<char, std::shared_ptr<FakeLink>> links_;  // by node
  std::shared_ptr<FakeLink> client_;
  std::string cluster_id_;
  std::set<int> gone_;  // ports where nobody listens
  uint64_t last_link_ = 0, version_ = 0;
};

TEST_F(GcsRestartTest, ClusterKeepsItsIdAndName) {
  const v1::RegisterNodeReply first = Join('N');
  EXPECT_TRUE(first.durable());
  Restart();
  const v1::RegisterNodeReply second = Return('N');
  EXPECT_EQ(second.cluster_id(), first.cluster_id());
  EXPECT_EQ(second.session_name(), "session_x");
}

TEST_F(GcsRestartTest, KeysAndJobsAreThere) {
  Join('N');
  v1::KvPutRequest put;
  put.set_ns("n:s");
  put.set_key("key");
  put.set_value("value");
  Call<v1::KvPutReply>(client_, MethodId::kKvPut, put);
  v1::AddJobRequest add;
  add.mutable_job()->set_driver_worker_id("driver");
  add.mutable_job()->set_driver_node_id(MakeId<NodeId>('N').Binary());
  const std::string job = Call<v1::AddJobReply>(client_, MethodId::kAddJob, add).job_id();
  Restart();
  v1::KvGetRequest get;
  get.set_ns("n:s");
  get.set_key("key");
  EXPECT_EQ(Call<v1::KvGetReply>(client_, MethodId::kKvGet, get).value(), "value");
  EXPECT_EQ(Call<v1::AddJobReply>(client_, MethodId::kAddJob, add).job_id(), job) << "its answer may have been lost";
  add.mutable_job()->set_driver_worker_id("another");
  EXPECT_EQ(JobId::FromBinaryOrNil(Call<v1::AddJobReply>(client_, MethodId::kAddJob, add).job_id()).ToInt(), 2u)
      << "no number is given twice";
}

TEST_F(GcsRestartTest, WhatWasAnsweredIsNotDoneAgain) {
  v1::KvPutRequest put;
  put.set_key("key");
  put.set_value("1");
  put.set_request_id("r1");
  EXPECT_TRUE(Call<v1::KvPutReply>(client_, MethodId::kKvPut, put).added());
  Restart();
  EXPECT_TRUE(Call<v1::KvPutReply>(client_, MethodId::kKvPut, put).added()) << "the answer that was lost";
  put.set_request_id("r2");
  EXPECT_FALSE(Call<v1::KvPutReply>(client_, MethodId::kKvPut, put).added());

  Join('N');
  const ActorId actor = CreateActor('a', "", true, 5);
  AnswerStart('N', 'w');
  v1::KillActorRequest kill;
  kill.set_actor_id(actor.Binary());
  kill.set_request_id("r3");
  Call<v1::ActorEmpty>(client_, MethodId::kKillActor, kill);
  Restart();
  v1::NodeState state;
  v1::ReportWorkerDiedRequest* death = state.add_deaths();
  death->set_worker_id(MakeId<WorkerId>('w').Binary());
  Return('N', state);
  AnswerStart('N', 'x');
  EXPECT_EQ(Actor(actor).num_restarts(), 1u);
  Link('N').Told();
  Call<v1::ActorEmpty>(client_, MethodId::kKillActor, kill);
  EXPECT_THAT(Link('N').Told(), IsEmpty()) << "the new incarnation lives on";
}

TEST_F(GcsRestartTest, ActorThatLivesIsLeftAlone) {
  Join('N');
  const ActorId actor = CreateActor('a', "name", true);
  AnswerStart('N', 'w');
  Restart();
  v1::GetNamedActorRequest named;
  named.set_name("name");
  EXPECT_EQ(Call<v1::GetActorReply>(client_, MethodId::kGetNamedActor, named).actor().actor_id(), actor.Binary())
      << "before its node is back";
  v1::NodeState state;
  Has(&state, actor, 0, 'w');
  Return('N', state);
  EXPECT_THAT(Link('N').Told(), IsEmpty());
  EXPECT_EQ(Actor(actor).state(), v1::ACTOR_STATE_ALIVE);
  EXPECT_EQ(FromProto(Actor(actor).address()).worker_id, MakeId<WorkerId>('w'));
}

TEST_F(GcsRestartTest, ActorThatDiedMeanwhileIsRestarted) {
  Join('N');
  const ActorId a = CreateActor('a', "", true, 1), b = CreateActor('b', "", true, 0);
  AnswerStart('N', 'w');
  AnswerStart('N', 'x');
  Restart();
  v1::NodeState state;
  v1::ReportWorkerDiedRequest* death = state.add_deaths();
  death->set_worker_id(MakeId<WorkerId>('x').Binary());
  death->set_detail("killed by signal 9");
  Return('N', state);
  EXPECT_THAT(Link('N').Told(), ElementsAre("RayletLease/StartActor"));
  EXPECT_EQ(Actor(a).state(), v1::ACTOR_STATE_RESTARTING);
  EXPECT_EQ(Actor(b).state(), v1::ACTOR_STATE_DEAD);
  EXPECT_THAT(Actor(b).death_cause().message(), HasSubstr("killed by signal 9"));
}

TEST_F(GcsRestartTest, StartUnderWayGoesOnWhereItIs) {
  Join('N');
  Join('M');
  const ActorId actor = CreateActor('a');
  const char home = Link('N').Told().empty() ? 'M' : 'N';
  const char other = home == 'N' ? 'M' : 'N';
  Restart();
  Return(other);
  EXPECT_THAT(Link(other).Told(), testing::Not(testing::Contains("RayletLease/StartActor"))) << "it may live where it was to start";
  v1::NodeState state;
  Has(&state, actor, 0, 0);
  Return(home, state);
  EXPECT_THAT(Link(home).Told(), testing::Contains("RayletLease/StartActor"));
  EXPECT_EQ(Link(home).Newest<v1::StartActorRequest>(MethodId::kStartActor).restart(), 0u);
  AnswerStart(home, 'w');
  EXPECT_EQ(Actor(actor).state(), v1::ACTOR_STATE_ALIVE);
}

TEST_F(GcsRestartTest, ActorThatWaitedForArgumentsCanStillBeCreated) {
  Join('N');
  v1::RegisterActorRequest request;
  request.mutable_spec()->mutable_creation()->set_actor_id(MakeId<ActorId>('a').Binary());
  Call<v1::RegisterActorReply>(client_, MethodId::kRegisterActor, request);
  Restart();
  Return('N');
  v1::CreateActorRequest create;
  *create.mutable_spec() = request.spec();
  Call<v1::ActorEmpty>(client_, MethodId::kCreateActor, create);
  EXPECT_THAT(Link('N').Told(), ElementsAre("RayletLease/StartActor"));
}

TEST_F(GcsRestartTest, LostOrdersAreGivenAgain) {
  Join('N');
  const ActorId killed = CreateActor('a', "", true), restarted = CreateActor('b', "", true, 3), left = CreateActor('c', "", false, 3);
  AnswerStart('N', 'u');
  AnswerStart('N', 'v');
  AnswerStart('N', 'w');
  v1::KillActorRequest kill;
  kill.set_actor_id(killed.Binary());
  kill.set_no_restart(true);
  Call<v1::ActorEmpty>(client_, MethodId::kKillActor, kill);
  kill.set_actor_id(restarted.Binary());
  kill.set_no_restart(false);
  Call<v1::ActorEmpty>(client_, MethodId::kKillActor, kill);
  v1::ActorOutOfScopeRequest scope;
  scope.set_actor_id(left.Binary());
  Call<v1::ActorEmpty>(client_, MethodId::kActorOutOfScope, scope);
  Restart();
  v1::NodeState state;
  Has(&state, killed, 0, 'u');
  Has(&state, restarted, 0, 'v');
  Has(&state, left, 0, 'w');
  Return('N', state);
  EXPECT_THAT(Link('N').Told(), ElementsAre("RayletLease/KillActor", "RayletLease/KillActor", "RayletLease/KillActor"));
  EXPECT_FALSE(Link('N').Newest<v1::KillActorOnNodeRequest>(MethodId::kKillActorOnNode).force()) << "the last one ends by itself";
}

TEST_F(GcsRestartTest, ActorsOfADriverThatDiedMeanwhileEndAndSoDoesItsJob) {
  Join('N');
  v1::AddJobRequest add;
  add.mutable_job()->set_driver_node_id(MakeId<NodeId>('N').Binary());
  add.mutable_job()->set_driver_worker_id(MakeId<WorkerId>('D').Binary());
  const std::string job = Call<v1::AddJobReply>(client_, MethodId::kAddJob, add).job_id();
  const ActorId actor = CreateActor('a');
  AnswerStart('N', 'w');
  Restart();
  v1::NodeState state;
  Has(&state, actor, 0, 'w');
  v1::ReportWorkerDiedRequest* death = state.add_deaths();
  death->set_worker_id(MakeId<WorkerId>('D').Binary());
  death->set_is_driver(true);
  death->set_job_id(job);
  Return('N', state);
  EXPECT_THAT(Link('N').Told(), ElementsAre("RayletLease/KillActor", "RayletLease/JobFinished", "RayletLease/KillActor"));
  EXPECT_EQ(Actor(actor).state(), v1::ACTOR_STATE_DEAD);
}

TEST_F(GcsRestartTest, NodeHearsOfTheEndOfItsJobs) {
  Join('N');
  const std::string job = Call<v1::AddJobReply>(client_, MethodId::kAddJob, v1::AddJobRequest()).job_id();
  v1::FinishJobRequest finish;
  finish.set_job_id(job);
  Call<v1::JobEmpty>(client_, MethodId::kFinishJob, finish);
  Restart();
  v1::NodeState state;
  state.add_jobs(job);
  Return('N', state);
  EXPECT_THAT(Link('N').Told(), ElementsAre("RayletLease/JobFinished"));
}

// Requests of such a job may still be on their way to it from another node.
TEST_F(GcsRestartTest, NodeHearsOfJobsThatEndedMeanwhileThoughNothingOfThemIsThere) {
  Join('N');
  const std::string job = Call<v1::AddJobReply>(client_, MethodId::kAddJob, v1::AddJobRequest()).job_id();
  Restart();
  v1::FinishJobRequest finish;
  finish.set_job_id(job);
  Call<v1::JobEmpty>(client_, MethodId::kFinishJob, finish);
  Return('N');
  EXPECT_EQ(Link('N').Newest<v1::JobFinishedNotice>(MethodId::kJobFinished).job_id(), job);
}

TEST_F(GcsRestartTest, GroupThatWasPlacedIsLeftAlone) {
  Join('N');
  CreateGroup(2, v1::PLACEMENT_STRATEGY_PACK, "name");
  AnswerPrepare('N');
  ASSERT_EQ(Group().state(), v1::PLACEMENT_GROUP_STATE_CREATED);
  Restart();
  EXPECT_EQ(Group().state(), v1::PLACEMENT_GROUP_STATE_CREATED);
  v1::NodeState state;
  Has(&state, 0);
  Has(&state, 1);
  Return('N', state);
  EXPECT_THAT(Link('N').Told(), IsEmpty());
  EXPECT_EQ(Group().bundles(1).node_id(), MakeId<NodeId>('N').Binary());
}

TEST_F(GcsRestartTest, FirstPhaseGoesOn) {
  Join('N');
  Join('M');
  CreateGroup(2, v1::PLACEMENT_STRATEGY_STRICT_SPREAD);
  AnswerPrepare('N');
  Restart();
  Return('N');
  Return('M');
  EXPECT_THAT(Link('N').Told(), ElementsAre("RayletBundle/PrepareBundles", "Sync/ResourceViews")) << "whatever it answered before";
  EXPECT_EQ(Link('N').Newest<v1::PrepareBundlesRequest>(MethodId::kPrepareBundles).attempt(), 1u) << "the same round";
  AnswerPrepare('N');
  AnswerPrepare('M');
  EXPECT_EQ(Group().state(), v1::PLACEMENT_GROUP_STATE_PREPARED);
}

TEST_F(GcsRestartTest, SecondPhaseGoesOn) {
  Join('N');
  Join('M');
  CreateGroup(2, v1::PLACEMENT_STRATEGY_STRICT_SPREAD);
  AnswerPrepare('N');
  AnswerPrepare('M');
  ASSERT_EQ(Group().state(), v1::PLACEMENT_GROUP_STATE_PREPARED);
  v1::NodeState n, m;
  Has(&n, Prepared('N'));
  Has(&m, Prepared('M'));
  Restart();
  Return('N', n);
  Return('M', m);
  EXPECT_THAT(Link('M').Told(), testing::Contains("RayletBundle/CommitBundles"));
  Link('N').Answer(v1::BundlesReply());
  Link('M').Answer(v1::BundlesReply());
  EXPECT_EQ(Group().state(), v1::PLACEMENT_GROUP_STATE_CREATED);
}

TEST_F(GcsRestartTest, RoundWithoutOneOfItsNodesIsRolledBack) {
  Join('N');
  Join('M');
  CreateGroup(2, v1::PLACEMENT_STRATEGY_STRICT_SPREAD);
  AnswerPrepare('N');
  AnswerPrepare('M');
  v1::NodeState n;
  Has(&n, Prepared('N'));
  Restart();
  Return('N', n);
  Link('N').Told();
  loop_.FireTimers();  // the other one does not come back
  EXPECT_EQ(Group().state(), v1::PLACEMENT_GROUP_STATE_PENDING);
  EXPECT_THAT(Link('N').Told(), testing::Contains("RayletBundle/ReturnBundles"));
}

TEST_F(GcsRestartTest, BundlesOfARemovedGroupAreReturned) {
  Join('N');
  const std::string id = CreateGroup(1, v1::PLACEMENT_STRATEGY_PACK);
  AnswerPrepare('N');
  v1::RemovePlacementGroupRequest remove;
  remove.set_placement_group_id(id);
  Call<v1::PlacementGroupEmpty>(client_, MethodId::kRemovePlacementGroup, remove);
  Restart();
  v1::NodeState state;
  Has(&state, 0);
  Return('N', state);
  EXPECT_THAT(Link('N').Told(), ElementsAre("RayletBundle/ReturnBundles"));
  EXPECT_THAT(Link('N').Newest<v1::ReturnBundlesRequest>(MethodId::kReturnBundles).reason(), HasSubstr("remove_placement_group"));
}

TEST_F(GcsRestartTest, NodeThatDoesNotComeBackIsDead) {
  Join('N');
  Join('M');
  const ActorId actor = CreateActor('a', "", true, 1);
  const char home = Link('N').Told().empty() ? 'M' : 'N';
  const char other = home == 'N' ? 'M' : 'N';
  AnswerStart(home, 'w');
  Restart();
  Return(other);
  EXPECT_EQ(Actor(actor).state(), v1::ACTOR_STATE_ALIVE);
  loop_.FireTimers();
  EXPECT_EQ(Actor(actor).state(), v1::ACTOR_STATE_RESTARTING);
  EXPECT_THAT(Link(other).Told(), testing::Contains("RayletLease/StartActor"));
  Return(home);
  EXPECT_EQ(Link(home).error.code(), StatusCode::kFailedPrecondition) << "it comes too late";
}

TEST_F(GcsRestartTest, NodeWhoseHostSaysThatNobodyListensIsDeadSoon) {
  constexpr Duration kSoon = std::chrono::seconds(1);
  Join('N');
  Join('M');
  Join('O');
  const ActorId actor = CreateActor('a', "", true, 1);
  const char home = !Link('N').Told().empty() ? 'N' : !Link('M').Told().empty() ? 'M' : 'O';
  AnswerStart(home, 'w');
  Restart();
  gone_.insert(home);
  auto knock = [&] {
    loop_.FireTimers(kSoon);
    loop_.RunAll();
  };
  knock();
  EXPECT_EQ(Actor(actor).state(), v1::ACTOR_STATE_ALIVE) << "once may be by accident";
  for (const char node : {'N', 'M'}) {
    if (node != home) Return(node);
  }
  knock();
  EXPECT_EQ(Actor(actor).state(), v1::ACTOR_STATE_RESTARTING);
  Return(home);
  EXPECT_EQ(Link(home).error.code(), StatusCode::kFailedPrecondition) << "it comes too late";
}

TEST_F(GcsRestartTest, NodeThatListensIsWaitedFor) {
  constexpr Duration kSoon = std::chrono::seconds(1);
  Join('N');
  const ActorId actor = CreateActor('a', "", true, 1);
  AnswerStart('N', 'w');
  Restart();
  for (const bool refused : {true, false, true, false}) {
    if (refused) {
      gone_.insert('N');
    } else {
      gone_.clear();
    }
    loop_.FireTimers(kSoon);
    loop_.RunAll();
  }
  v1::NodeState state;
  Has(&state, actor, 0, 'w');
  Return('N', state);
  EXPECT_EQ(Link('N').error.code(), StatusCode::kOk) << "never refused twice in a row";
  EXPECT_EQ(Actor(actor).state(), v1::ACTOR_STATE_ALIVE);
}

TEST_F(GcsRestartTest, NodeThatWasDeclaredDeadStaysDead) {
  Join('N');
  Join('M');
  Link('N').Close(Status::Unavailable("cut"));
  Restart();
  Return('N');
  EXPECT_EQ(Link('N').error.code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(Link('N').error.message(), HasSubstr("declared dead"));
}

TEST_F(GcsRestartTest, NodeOfAnotherClusterIsRefused) {
  Join('N');
  Restart();
  cluster_id_ = std::string(ClusterId::kSize, 'x');
  Return('N');
  EXPECT_EQ(Link('N').error.code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(Link('N').error.message(), HasSubstr("another cluster"));
}

TEST_F(GcsRestartTest, SubscriberThatResumesHearsOfDeaths) {
  Join('N');
  Join('M');
  Link('N').Close(Status::Unavailable("cut"));
  Restart();
  v1::NodeState state;
  state.add_deaths()->set_worker_id(MakeId<WorkerId>('w').Binary());
  Return('M', state);
  v1::SubscribeRequest subscribe;
  subscribe.set_channel(v1::CHANNEL_NODE);
  Call<v1::PubSubEmpty>(client_, MethodId::kSubscribe, subscribe);
  EXPECT_THAT(client_->Told(), ElementsAre("PubSub/Publish"));
  subscribe.set_resume(true);
  Call<v1::PubSubEmpty>(client_, MethodId::kSubscribe, subscribe);
  EXPECT_THAT(client_->Told(), ElementsAre("PubSub/Publish", "PubSub/Publish")) << "the dead one, too";
  subscribe.set_channel(v1::CHANNEL_WORKER);
  Call<v1::PubSubEmpty>(client_, MethodId::kSubscribe, subscribe);
  EXPECT_THAT(client_->Told(), ElementsAre("PubSub/Publish"));
}

TEST_F(GcsRestartTest, NothingIsSaidToBeInfeasibleWhileNodesAreExpected) {
  Join('N');
  Restart();
  CreateActor('a');
  CreateGroup(1, v1::PLACEMENT_STRATEGY_PACK);
  Return('N');
  EXPECT_THAT(Link('N').Told(), testing::UnorderedElementsAre("RayletLease/StartActor", "RayletBundle/PrepareBundles"));
}

TEST_F(GcsRestartTest, WhatWasNotDurableNeverHappened) {
  Join('N');
  CreateActor('a', "name", true);
  AnswerStart('N', 'w');
  storage_.dying = true;
  client_->answer = "none";
  v1::KillActorRequest kill;
  kill.set_actor_id(MakeId<ActorId>('a').Binary());
  kill.set_no_restart(true);
  Link('N').Told();
  const std::string control = kill.SerializeAsString();
  server_->dispatcher()->Dispatch({MethodId::kKillActor, control, {}, client_, false}, rpc::Responder(client_, MethodId::kKillActor, 1));
  EXPECT_EQ(client_->answer, "none");
  EXPECT_THAT(Link('N').Told(), IsEmpty());
  Restart();
  EXPECT_EQ(Actor(MakeId<ActorId>('a')).state(), v1::ACTOR_STATE_ALIVE);
}

TEST_F(GcsRestartTest, UnreadableRowsAreAnError) {
  Join('N');
  for (const char* table : {"actor", "job", "node", "placement_group", "kv", "cluster"}) {
    KeptStorage damaged;
    StorageContents contents = storage_.Load().value();
    for (const auto& [name, rows] : contents) {
      for (const auto& [key, value] : rows) {
        damaged.Write({StorageOp{name, key, {HeapBuffer::CopyOf(name == table ? "\xff\xff\xff" : value)}}}, [](const Status&) {});
      }
    }
    damaged.Write({StorageOp{table, "k", {HeapBuffer::CopyOf("\xff\xff\xff")}}}, [](const Status&) {});
    if (std::string(table) == "cluster")
      damaged.Write({StorageOp{table, "cluster", {HeapBuffer::CopyOf("\xff\xff\xff")}}}, [](const Status&) {});
    const auto server = GcsServer::Make(GcsServerOptions(), &loop_, &damaged);
    ASSERT_FALSE(server.ok()) << table;
    EXPECT_EQ(server.status().code(), StatusCode::kDataLoss);
  }
}

}  // namespace
}  // namespace ray::gcs
