// The services over their dispatcher: a raylet is a fake link that records what it is told.
#include "ray/gcs_server/gcs_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>
#include <string>
#include <utility>

#include "ray/gcs_server/testing_fakes.h"
#include "ray/v1/gcs_actor.pb.h"
#include "ray/v1/gcs_job.pb.h"
#include "ray/v1/gcs_kv.pb.h"
#include "ray/v1/gcs_node.pb.h"
#include "ray/v1/pubsub.pb.h"
#include "ray/v1/raylet_lease.pb.h"
#include "ray/v1/sync.pb.h"
#include "ray/wire/convert.h"
#include "ray/wire/version.h"

namespace ray::gcs {
namespace {

using testing::ElementsAre;
using testing::Pair;
using testing::UnorderedElementsAre;

// Finishes its writes when told.
class SlowStorage final : public Storage {
 public:
  void Write(std::vector<StorageOp> batch, std::function<void(Status)> done) override {
    batches.push_back(batch.size());
    pending.push_back(std::move(done));
  }
  Result<StorageContents> Load() override { return StorageContents(); }
  bool durable() const override { return false; }
  void FinishOne(const Status& status = {}) {
    auto done = std::move(pending.front());
    pending.pop_front();
    done(status);
  }
  std::vector<size_t> batches;
  std::deque<std::function<void(Status)>> pending;
};

class GcsServerTest : public testing::Test {
 protected:
  // What the server holds of a link until it closes must not outlive the test.
  void TearDown() override {
    if (link_ != nullptr) link_->Close(Status::Unavailable("the test is over"));
    loop_.RunAll();
  }
  void Start(Storage* storage) {
    GcsServerOptions options;
    options.config_json = "{}";
    options.on_empty = [this] { ++emptied_; };
    options.on_storage_failed = [this](const Status&) { ++storage_failed_; };
    auto server = GcsServer::Make(std::move(options), &loop_, storage);
    ASSERT_TRUE(server.ok()) << server.status().ToString();
    server_ = std::move(*server);
    link_ = std::make_shared<FakeLink>(1);
  }
  template <typename ReplyMessage>
  ReplyMessage Call(const std::shared_ptr<FakeLink>& link, MethodId method, const rpc::MessageLite& message) {
    link->answer.clear();
    std::string control = message.SerializeAsString();
    server_->dispatcher()->Dispatch({method, control, {}, link, false}, rpc::Responder(link, method, 1));
    ReplyMessage reply;
    EXPECT_TRUE(reply.ParseFromString(link->answer));
    return reply;
  }
  void Refused(const std::shared_ptr<FakeLink>& link, MethodId method, const rpc::MessageLite& message) {
    link->error = Status::Ok();
    const std::string control = message.SerializeAsString();
    server_->dispatcher()->Dispatch({method, control, {}, link, false}, rpc::Responder(link, method, 1));
    EXPECT_FALSE(link->error.ok());
  }
  void RegisterNode(uint64_t attempt = 0) {
    v1::RegisterNodeRequest request;
    request.set_attempt(attempt);
    request.mutable_node()->set_node_id(node_.Binary());
    ResourceSet set;
    set.Set("CPU", 2 * ResourceSet::kUnit);
    *request.mutable_node()->mutable_total() = ToProto(set);
    *request.mutable_node()->mutable_available() = ToProto(set);
    EXPECT_EQ(Call<v1::RegisterNodeReply>(link_, MethodId::kRegisterNode, request).config_json(), "{}");
  }
  void CreateActor(const ActorId& actor) {
    v1::RegisterActorRequest request;
    v1::ActorCreation* creation = request.mutable_spec()->mutable_creation();
    creation->set_actor_id(actor.Binary());
    *creation->mutable_owner() = ToProto(Address{node_, owner_});
    Call<v1::RegisterActorReply>(link_, MethodId::kRegisterActor, request);
    v1::CreateActorRequest create;
    *create.mutable_spec() = request.spec();
    Call<v1::ActorEmpty>(link_, MethodId::kCreateActor, create);
  }

  ManualLoop loop_;
  MemoryStorage memory_;
  std::unique_ptr<GcsServer> server_;
  std::shared_ptr<FakeLink> link_;
  NodeId node_ = NodeId::FromRandom();
  WorkerId owner_ = WorkerId::FromRandom();
  int emptied_ = 0, storage_failed_ = 0;
};

TEST_F(GcsServerTest, DefinitionsStayAsLongAsAnythingOfTheirJobMayAskForThem) {
  Start(&memory_);
  RegisterNode();
  const std::string job = Call<v1::AddJobReply>(link_, MethodId::kAddJob, v1::AddJobRequest()).job_id();
  v1::KvPutRequest put;
  put.set_ns("fun");
  put.set_key("hash");
  put.set_value("code");
  put.set_job_id(job);
  Call<v1::KvPutReply>(link_, MethodId::kKvPut, put);
  const auto there = [this] {
    v1::KvGetRequest get;
    get.set_ns("fun");
    get.set_key("hash");
    return Call<v1::KvGetReply>(link_, MethodId::kKvGet, get).found();
  };
  const ActorId actor = ActorId::Of(JobId::FromBinaryOrNil(job));
  v1::RegisterActorRequest request;
  request.mutable_spec()->mutable_template_()->set_job_id(job);
  request.mutable_spec()->mutable_creation()->set_actor_id(actor.Binary());
  request.mutable_spec()->mutable_creation()->set_detached(true);
  Call<v1::RegisterActorReply>(link_, MethodId::kRegisterActor, request);
  v1::FinishJobRequest finish;
  finish.set_job_id(job);
  Call<v1::JobEmpty>(link_, MethodId::kFinishJob, finish);
  EXPECT_TRUE(there()) << "a detached actor may start again";
  v1::KillActorRequest kill;
  kill.set_actor_id(actor.Binary());
  kill.set_no_restart(true);
  Call<v1::ActorEmpty>(link_, MethodId::kKillActor, kill);
  EXPECT_FALSE(there());
  Call<v1::KvPutReply>(link_, MethodId::kKvPut, put);
  EXPECT_FALSE(there()) << "it came behind the end of all";
}

TEST_F(GcsServerTest, ActorIsStartedPublishedAndEndsWithItsDriver) {
  Start(&memory_);
  RegisterNode();
  v1::AddJobRequest add;
  std::string job = Call<v1::AddJobReply>(link_, MethodId::kAddJob, add).job_id();
  ActorId actor = ActorId::Of(JobId::FromBinaryOrNil(job));
  CreateActor(actor);
  EXPECT_THAT(link_->Told(), ElementsAre("RayletLease/StartActor"));
  v1::SubscribeRequest subscribe;
  subscribe.set_channel(v1::CHANNEL_ACTOR);
  subscribe.set_key(actor.Binary());
  Call<v1::PubSubEmpty>(link_, MethodId::kSubscribe, subscribe);
  EXPECT_THAT(link_->Told(), ElementsAre("PubSub/Publish")) << "the present state";
  v1::StartActorReply started;
  *started.mutable_worker() = ToProto(Address{node_, WorkerId::FromRandom()});
  link_->Answer(started);
  EXPECT_THAT(link_->Told(), ElementsAre("PubSub/Publish"));
  v1::PublishNotice notice;
  ASSERT_TRUE(notice.ParseFromString(link_->last_control));
  EXPECT_EQ(notice.actor().state(), v1::ACTOR_STATE_ALIVE);

  v1::ReportWorkerDiedRequest died;
  died.set_node_id(node_.Binary());
  died.set_worker_id(owner_.Binary());
  died.set_is_driver(true);
  died.set_job_id(job);
  Call<v1::NodeEmpty>(link_, MethodId::kReportWorkerDied, died);
  EXPECT_THAT(link_->Told(), ElementsAre("PubSub/Publish", "RayletLease/KillActor", "RayletLease/JobFinished"));
  EXPECT_NE(Call<v1::ListJobsReply>(link_, MethodId::kListJobs, v1::JobEmpty()).jobs(0).end_time_ms(), 0);
}

// Its raylet gave the first link up and registered over another one, whose request came first.
TEST_F(GcsServerTest, TheLinkOfAnEarlierRegistrationDoesNotCount) {
  Start(&memory_);
  const auto old = std::make_shared<FakeLink>(2);
  v1::RegisterNodeRequest request;
  request.mutable_node()->set_node_id(node_.Binary());
  request.set_attempt(2);
  Call<v1::RegisterNodeReply>(link_, MethodId::kRegisterNode, request);
  request.set_attempt(1);
  Refused(old, MethodId::kRegisterNode, request);
  old->Close(Status::Unavailable("it was given up"));
  v1::ListNodesRequest question;
  auto listed = Call<v1::ListNodesReply>(link_, MethodId::kListNodes, question);
  EXPECT_TRUE(listed.nodes(0).alive());
  EXPECT_EQ(listed.config_json(), "{}");
  question.set_without_config(true);
  listed = Call<v1::ListNodesReply>(link_, MethodId::kListNodes, question);
  EXPECT_TRUE(listed.nodes(0).alive());
  EXPECT_EQ(listed.config_json(), "");
}

// The first answer never reached the raylet, nor did the order to start the actor, which was placed right then.
TEST_F(GcsServerTest, AnActorPlacedBetweenTwoRegistrationsOfItsNodeIsStartedAfterTheSecond) {
  Start(&memory_);
  RegisterNode(1);
  const ActorId actor = ActorId::Of(JobId::FromBinaryOrNil(Call<v1::AddJobReply>(link_, MethodId::kAddJob, v1::AddJobRequest()).job_id()));
  CreateActor(actor);
  EXPECT_THAT(link_->Told(), ElementsAre("RayletLease/StartActor"));
  const std::shared_ptr<FakeLink> first = std::exchange(link_, std::make_shared<FakeLink>(2));
  RegisterNode(2);
  EXPECT_THAT(link_->Told(), ElementsAre("RayletLease/StartActor"));
  first->Close(Status::Unavailable("it was given up"));
  v1::StartActorReply started;
  *started.mutable_worker() = ToProto(Address{node_, WorkerId::FromRandom()});
  link_->Answer(started);
  EXPECT_EQ(Call<v1::ListActorsReply>(link_, MethodId::kListActors, v1::ListActorsRequest()).actors(0).state(), v1::ACTOR_STATE_ALIVE);
  RegisterNode(2);  // the same once more, which says nothing new
  EXPECT_THAT(link_->Told(), ElementsAre());
}

// What was sent before the news of its node's death reached its raylet.
TEST_F(GcsServerTest, JobsAndActorsOfADeadNodeEndAsTheyCome) {
  Start(&memory_);
  RegisterNode();
  link_->Close(Status::Unavailable("cut"));
  const auto late = std::make_shared<FakeLink>(2);
  v1::AddJobRequest add;
  add.mutable_job()->set_driver_worker_id(owner_.Binary());
  add.mutable_job()->set_driver_node_id(node_.Binary());
  Call<v1::AddJobReply>(late, MethodId::kAddJob, add);
  EXPECT_NE(Call<v1::ListJobsReply>(late, MethodId::kListJobs, v1::JobEmpty()).jobs(0).end_time_ms(), 0);
  v1::RegisterActorRequest actor;
  v1::ActorCreation* creation = actor.mutable_spec()->mutable_creation();
  creation->set_actor_id(ActorId::Of(JobId::FromInt(7)).Binary());
  *creation->mutable_owner() = ToProto(Address{node_, WorkerId::FromRandom()});
  Call<v1::RegisterActorReply>(late, MethodId::kRegisterActor, actor);
  EXPECT_EQ(Call<v1::ListActorsReply>(late, MethodId::kListActors, v1::ListActorsRequest()).actors(0).state(), v1::ACTOR_STATE_DEAD);
}

// So that a cluster can be upgraded node by node.
TEST_F(GcsServerTest, NodesMaySpeakTheProtocolBeforeOrAfterItsOwn) {
  Start(&memory_);
  const int own = std::stoi(std::string(kProtocolVersion));
  for (const int version : {own - 1, own, own + 1}) {
    v1::RegisterNodeRequest request;
    request.mutable_node()->set_node_id(NodeId::FromRandom().Binary());
    request.set_protocol_version(std::to_string(version));
    EXPECT_EQ(Call<v1::RegisterNodeReply>(link_, MethodId::kRegisterNode, request).protocol_version(), kProtocolVersion);
  }
  v1::RegisterNodeRequest request;
  request.mutable_node()->set_node_id(NodeId::FromRandom().Binary());
  request.set_protocol_version(std::to_string(own + 2));
  Refused(link_, MethodId::kRegisterNode, request);
  EXPECT_EQ(link_->error.code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(link_->error.message(), testing::HasSubstr("the raylet speaks protocol " + std::to_string(own + 2) + ", the GCS speaks " +
                                                         std::string(kProtocolVersion)));
}

TEST_F(GcsServerTest, EndOfTheLinkIsTheNodesDeath) {
  Start(&memory_);
  RegisterNode();
  CreateActor(ActorId::Of(JobId::FromInt(1)));
  auto other = std::make_shared<FakeLink>(2);
  v1::SubscribeRequest subscribe;
  subscribe.set_channel(v1::CHANNEL_NODE);
  Call<v1::PubSubEmpty>(other, MethodId::kSubscribe, subscribe);
  EXPECT_THAT(other->Told(), ElementsAre("PubSub/Publish"));
  link_->Close(Status::Unavailable("cut"));
  EXPECT_THAT(other->Told(), ElementsAre("PubSub/Publish"));
  EXPECT_EQ(emptied_, 1);
  v1::ListActorsRequest list;
  auto actors = Call<v1::ListActorsReply>(other, MethodId::kListActors, list).actors();
  ASSERT_EQ(actors.size(), 1);
  EXPECT_EQ(actors[0].state(), v1::ACTOR_STATE_DEAD);
}

// What processes of a dead node sent it may be there before it has registered.
TEST_F(GcsServerTest, ARayletThatIsNewHearsOfTheDead) {
  Start(&memory_);
  RegisterNode();
  link_->Close(Status::Unavailable("cut"));
  const auto raylet = std::make_shared<FakeLink>(2), tool = std::make_shared<FakeLink>(3);
  v1::RegisterNodeRequest request;
  request.mutable_node()->set_node_id(NodeId::FromRandom().Binary());
  Call<v1::RegisterNodeReply>(raylet, MethodId::kRegisterNode, request);
  v1::SubscribeRequest subscribe;
  subscribe.set_channel(v1::CHANNEL_NODE);
  subscribe.set_batches(true);
  std::map<std::string, bool> nodes;
  for (const auto& link : {raylet, tool}) {
    Call<v1::PubSubEmpty>(link, MethodId::kSubscribe, subscribe);
    const auto told = link->Newest<v1::PublishNotice>(MethodId::kPublish);
    EXPECT_EQ(told.nodes_size(), link == raylet ? 2 : 1);
    for (const auto& node : told.nodes()) nodes.emplace(node.node_id(), node.alive());
  }
  EXPECT_THAT(nodes, UnorderedElementsAre(Pair(node_.Binary(), false), Pair(request.node().node_id(), true)));
}

TEST_F(GcsServerTest, EndOfTheClusterIsToldToItsNodes) {
  Start(&memory_);
  RegisterNode();
  bool done = false;
  server_->EndCluster(std::chrono::seconds(1), [&done] { done = true; });
  EXPECT_THAT(link_->Told(), ElementsAre("RayletLease/Shutdown"));
  EXPECT_FALSE(done);
  link_->Answer(v1::LeaseEmpty());
  EXPECT_TRUE(done);
}

TEST_F(GcsServerTest, OwnerWasDeadBeforeItsActorCame) {
  Start(&memory_);
  RegisterNode();
  v1::ReportWorkerDiedRequest died;
  died.set_worker_id(owner_.Binary());
  Call<v1::NodeEmpty>(link_, MethodId::kReportWorkerDied, died);
  ActorId actor = ActorId::Of(JobId::FromInt(1));
  CreateActor(actor);
  v1::GetActorRequest get;
  get.set_actor_id(actor.Binary());
  EXPECT_EQ(Call<v1::GetActorReply>(link_, MethodId::kGetActor, get).actor().state(), v1::ACTOR_STATE_DEAD);
}

TEST_F(GcsServerTest, DurableBeforeReplyAndInOrder) {
  SlowStorage storage;
  Start(&storage);
  storage.FinishOne();  // of the cluster's id
  Call<v1::AddJobReply>(link_, MethodId::kAddJob, v1::AddJobRequest());
  EXPECT_EQ(link_->answer, "");
  Call<v1::AddJobReply>(link_, MethodId::kAddJob, v1::AddJobRequest());
  Call<v1::ListJobsReply>(link_, MethodId::kListJobs, v1::JobEmpty());
  EXPECT_EQ(link_->answer, "") << "a read does not overtake a write";
  EXPECT_THAT(storage.batches, ElementsAre(1, 2));
  storage.FinishOne();
  v1::AddJobReply first;
  ASSERT_TRUE(first.ParseFromString(link_->answer));
  EXPECT_EQ(first.job_id(), JobId::FromInt(1).Binary());
  storage.FinishOne();
  v1::ListJobsReply list;
  ASSERT_TRUE(list.ParseFromString(link_->answer));
  EXPECT_EQ(list.jobs_size(), 2);
}

TEST_F(GcsServerTest, FailedStorageAnswersNobody) {
  SlowStorage storage;
  Start(&storage);
  storage.FinishOne();
  Call<v1::AddJobReply>(link_, MethodId::kAddJob, v1::AddJobRequest());
  storage.FinishOne(Status::DataLoss("disk"));
  EXPECT_EQ(link_->answer, "");
  EXPECT_EQ(storage_failed_, 1);
}

// An order to drain: the answer is the raylet's, and where none comes the client hears that it is not known what became of it.
class DrainOrderTest : public GcsServerTest {
 protected:
  void SetUp() override {
    Start(&memory_);
    RegisterNode();
    link_->Told();
  }
  // Unanswered so far.
  void Order(const NodeId& node) {
    v1::DrainNodeRequest order;
    order.set_node_id(node.Binary());
    order.set_deadline_ms(5000);
    order.set_only_if_idle(true);
    client_->error = Status::DataLoss("not answered");
    const std::string control = order.SerializeAsString();
    server_->dispatcher()->Dispatch({MethodId::kDrainNode, control, {}, client_, false},
                                    rpc::Responder(client_, MethodId::kDrainNode, ++calls_));
  }
  bool IsAnswered() const { return client_->error.code() != StatusCode::kDataLoss; }
  void AnswerOrder(const Status& status) { std::exchange(link_->callbacks, {}).front()(status, {}); }

  const std::shared_ptr<FakeLink> client_ = std::make_shared<FakeLink>(2);
  uint64_t calls_ = 0;
};

TEST_F(DrainOrderTest, IsAnsweredAfterTheRaylet) {
  Order(node_);
  EXPECT_THAT(link_->Told(), ElementsAre("RayletLease/Drain"));
  EXPECT_TRUE(link_->Newest<v1::DrainNotice>(MethodId::kDrain).only_if_idle());
  EXPECT_FALSE(IsAnswered());
  link_->Answer(v1::LeaseEmpty());
  EXPECT_TRUE(client_->error.ok());
}

TEST_F(DrainOrderTest, IsRefusedByANodeThatIsNotIdleAndMayComeAgain) {
  Order(node_);
  AnswerOrder(Status::FailedPrecondition("not idle: 1 drivers"));
  EXPECT_EQ(client_->error.code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(client_->error.message(), "not idle: 1 drivers");
  Order(node_);
  link_->Answer(v1::LeaseEmpty());
  EXPECT_TRUE(client_->error.ok());
}

TEST_F(DrainOrderTest, OfWhichNothingIsHeardIsNotKnownToHaveBeenHeeded) {
  Order(node_);
  AnswerOrder(Status(StatusCode::kDeadlineExceeded, "no answer within 10 s"));
  EXPECT_EQ(client_->error.code(), StatusCode::kUnavailable);
  EXPECT_NE(client_->error.message().find("is not known"), std::string::npos);
}

TEST_F(DrainOrderTest, ToARayletThatDiesIsNotKnownToHaveBeenHeeded) {
  Order(node_);
  link_->Close(Status::Unavailable("reset"));
  EXPECT_EQ(client_->error.code(), StatusCode::kUnavailable);
  EXPECT_NE(client_->error.message().find("is not known"), std::string::npos);
  Order(node_);
  EXPECT_EQ(client_->error.code(), StatusCode::kNotFound) << "it is dead";
}

TEST_F(DrainOrderTest, ForAnUnknownNodeIsNotFound) {
  Order(NodeId::FromRandom());
  EXPECT_EQ(client_->error.code(), StatusCode::kNotFound);
  EXPECT_THAT(link_->Told(), ElementsAre());
}

// A raylet of this release hears of what is free in columns, one of the release before as it always did.
TEST_F(GcsServerTest, ViewsAreInColumnsForThoseWhoReadThem) {
  Start(&memory_);
  const std::shared_ptr<FakeLink> links[] = {std::make_shared<FakeLink>(1), std::make_shared<FakeLink>(2)};
  const NodeId nodes[] = {NodeId::FromRandom(), NodeId::FromRandom()};
  ResourceSet total;
  total.Set("CPU", 4 * ResourceSet::kUnit);
  total.Set("memory", 1000 * ResourceSet::kUnit);
  for (int i = 0; i < 2; ++i) {
    v1::RegisterNodeRequest request;
    request.set_reads_columns(i == 0);
    request.mutable_node()->set_node_id(nodes[i].Binary());
    *request.mutable_node()->mutable_total() = *request.mutable_node()->mutable_available() = ToProto(total);
    Call<v1::RegisterNodeReply>(links[i], MethodId::kRegisterNode, request);
  }
  const auto next = [this](const std::shared_ptr<FakeLink>& link) {  // rounds are 100 ms apart
    const size_t before = link->controls.size();
    const Time deadline = loop_.clock().Now() + std::chrono::seconds(10);
    while (link->controls.size() == before && loop_.clock().Now() < deadline) loop_.FireTimers();
    return link->Newest<v1::ResourceViewsNotice>(MethodId::kResourceViews);
  };
  const auto told = next(links[0]);
  uint32_t number = 0;
  for (const auto& view : told.nodes()) {
    if (view.node_id() == nodes[1].View()) number = view.number();
  }
  EXPECT_GT(number, 0u);

  ResourceSet available = total;
  available.Set("CPU", ResourceSet::kUnit / 2);
  for (const NodeId& node : nodes) {
    v1::ReportResourcesRequest report;
    report.set_node_id(node.Binary());
    report.set_version(7);
    *report.mutable_total() = ToProto(total);
    *report.mutable_available() = ToProto(available);
    Call<v1::NodeEmpty>(links[0], MethodId::kReportResources, report);
  }
  const auto columns = next(links[0]);
  EXPECT_EQ(columns.nodes_size(), 0);
  EXPECT_THAT(columns.versions(), ElementsAre(8, 8));
  EXPECT_THAT(columns.numbers(), testing::Contains(number));
  EXPECT_THAT(columns.taken(), ElementsAre(35000, 0, 35000, 0));
  const auto in_full = links[1]->Newest<v1::ResourceViewsNotice>(MethodId::kResourceViews);
  EXPECT_EQ(in_full.numbers_size(), 0);
  ASSERT_EQ(in_full.nodes_size(), 2);
  for (const auto& view : in_full.nodes()) EXPECT_EQ(FromProto(view.available()), available);

  // A resource that the total does not name has no place in columns.
  v1::ReportResourcesRequest report;
  report.set_node_id(nodes[1].Binary());
  report.set_version(8);
  *report.mutable_total() = ToProto(total);
  available.Set("more", 1);
  *report.mutable_available() = ToProto(available);
  Call<v1::NodeEmpty>(links[0], MethodId::kReportResources, report);
  EXPECT_EQ(next(links[0]).nodes_size(), 1);
}

// The end of a process is told to the nodes that it has met, to raylets of the release before, which ask for nothing, and to subscribers that are no raylets; to all if
// its raylet does not say whom it has met. So is what was missed.
TEST_F(GcsServerTest, TheEndOfAProcessIsToldToTheNodesThatItHasMet) {
  Start(&memory_);
  enum : size_t { kIts, kMet, kOther, kOld, kTool };
  std::vector<std::shared_ptr<FakeLink>> links;
  std::vector<NodeId> nodes;
  const auto subscribe = [this](const std::shared_ptr<FakeLink>& link, bool resume) {
    v1::SubscribeRequest request;
    request.set_channel(v1::CHANNEL_WORKER);
    request.set_resume(resume);
    Call<v1::PubSubEmpty>(link, MethodId::kSubscribe, request);
  };
  for (size_t i = kIts; i <= kTool; ++i) {
    links.push_back(std::make_shared<FakeLink>(i + 1));
    nodes.push_back(NodeId::FromRandom());
    v1::RegisterNodeRequest request;
    request.mutable_node()->set_node_id(nodes[i].Binary());
    request.set_watches_processes(i != kOld);
    if (i != kTool) Call<v1::RegisterNodeReply>(links[i], MethodId::kRegisterNode, request);
    subscribe(links[i], /*resume=*/false);
  }
  const auto told = [&](const std::string& worker) {
    std::vector<size_t> who;
    for (size_t i = 0; i < links.size(); ++i) {
      for (const std::string& what : links[i]->Told()) {
        if (what == "PubSub/Publish" && links[i]->Newest<v1::PublishNotice>(MethodId::kPublish).worker().worker_id() == worker)
          who.push_back(i);
      }
    }
    return who;
  };
  v1::ReportWorkerDiedRequest report;
  report.set_node_id(nodes[kIts].Binary());
  report.set_worker_id(WorkerId::FromRandom().Binary());
  report.set_to_met_nodes(true);
  report.add_met_node_ids(nodes[kMet].Binary());
  report.add_met_node_ids(NodeId::FromRandom().Binary());
  (void)told("");
  Call<v1::NodeEmpty>(links[kIts], MethodId::kReportWorkerDied, report);
  EXPECT_THAT(told(report.worker_id()), ElementsAre(kMet, kOld, kTool));
  for (const size_t i : {kMet, kOther, kOld, kTool}) subscribe(links[i], /*resume=*/true);
  EXPECT_THAT(told(report.worker_id()), ElementsAre(kMet, kOld, kTool));
  report.clear_to_met_nodes();
  report.clear_met_node_ids();
  report.set_worker_id(WorkerId::FromRandom().Binary());
  Call<v1::NodeEmpty>(links[kIts], MethodId::kReportWorkerDied, report);
  EXPECT_THAT(told(report.worker_id()), ElementsAre(kMet, kOther, kOld, kTool));
}

// Who subscribes anew is told what it may have missed: all together, or one by one if it is of the release before.
TEST_F(GcsServerTest, EndsOfWorkersThatWereMissedAreTold) {
  Start(&memory_);
  RegisterNode();
  std::vector<std::string> died;
  for (int i = 0; i < 2; ++i) {
    v1::ReportWorkerDiedRequest report;
    report.set_node_id(node_.Binary());
    report.set_worker_id(died.emplace_back(WorkerId::FromRandom().Binary()));
    Call<v1::NodeEmpty>(link_, MethodId::kReportWorkerDied, report);
  }
  for (const bool batches : {true, false}) {
    const auto link = std::make_shared<FakeLink>(batches ? 2 : 3);
    v1::SubscribeRequest request;
    request.set_channel(v1::CHANNEL_WORKER);
    request.set_resume(true);
    request.set_batches(batches);
    Call<v1::PubSubEmpty>(link, MethodId::kSubscribe, request);
    const auto newest = link->Newest<v1::PublishNotice>(MethodId::kPublish);
    if (batches) {
      EXPECT_THAT(link->Told(), ElementsAre("PubSub/Publish"));
      ASSERT_EQ(newest.workers_size(), 2);
      EXPECT_EQ(newest.workers(1).worker_id(), died[1]);
    } else {
      EXPECT_THAT(link->Told(), ElementsAre("PubSub/Publish", "PubSub/Publish"));
      EXPECT_EQ(newest.worker().worker_id(), died[1]);
    }
  }
}

}  // namespace
}  // namespace ray::gcs
