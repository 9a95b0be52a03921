// The services over their dispatcher: a raylet is a fake link that records what it is told.
#include "ray/gcs_server/gcs_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>

#include "ray/v1/gcs_actor.pb.h"
#include "ray/v1/gcs_job.pb.h"
#include "ray/v1/gcs_node.pb.h"
#include "ray/v1/pubsub.pb.h"
#include "ray/v1/raylet_lease.pb.h"
#include "ray/wire/convert.h"

namespace ray::gcs {
namespace {

using testing::ElementsAre;

class ManualLoop final : public async::Loop {
 public:
  void Post(const char*, std::function<void()> fn) override { queue_.push_back(std::move(fn)); }
  async::TimerId AddTimer(Duration, std::function<void()>) override { return 1; }
  void CancelTimer(async::TimerId) override {}
  const Clock& clock() const override { return clock_; }
  bool InLoop() const override { return true; }
  void RunAll() {
    for (; !queue_.empty(); queue_.pop_front()) queue_.front()();
  }

 private:
  SystemClock clock_;
  std::deque<std::function<void()>> queue_;
};

class FakeLink final : public rpc::Connection {
 public:
  explicit FakeLink(uint64_t id) : id_(id) {}
  void Call(MethodId method, const rpc::MessageLite& request, const PartList& parts, rpc::ReplyCallback callback,
            rpc::CallOptions options) override {
    CallRaw(method, request.SerializeAsString(), parts, std::move(callback), options);
  }
  void CallRaw(MethodId method, std::string_view control, const PartList&, rpc::ReplyCallback callback, rpc::CallOptions) override {
    told.emplace_back(MethodName(method));
    last_control = control;
    callbacks.push_back(std::move(callback));
  }
  void Notify(MethodId method, const rpc::MessageLite& message, const PartList& parts, bool) override {
    NotifyRaw(method, message.SerializeAsString(), parts);
  }
  void NotifyRaw(MethodId method, std::string_view control, const PartList&) override {
    told.emplace_back(MethodName(method));
    last_control = control;
  }
  void Flush() override {}
  void Close(Status reason) override {
    if (closed_) return;
    closed_ = true;
    for (auto& callback : std::exchange(callbacks, {})) callback(reason, {});
    for (auto& callback : std::exchange(on_close, {})) callback(reason);
  }
  bool closed() const override { return closed_; }
  void OnClose(std::function<void(const Status&)> callback) override { on_close.push_back(std::move(callback)); }
  uint64_t id() const override { return id_; }
  int64_t peer_pid() const override { return -1; }
  size_t unsent_bytes() const override { return 0; }

  std::vector<std::string> Told() { return std::exchange(told, {}); }
  // Answers the oldest call.
  void Answer(const rpc::MessageLite& reply) {
    auto callback = std::move(callbacks.front());
    callbacks.erase(callbacks.begin());
    std::string control = reply.SerializeAsString();
    callback({}, rpc::Reply{control, {}});
  }

  std::vector<std::string> told;
  std::string last_control;
  std::vector<rpc::ReplyCallback> callbacks;
  std::vector<std::function<void(const Status&)>> on_close;
  std::string answer;  // control part of the newest reply
  Status error;

 protected:
  void SendReply(MethodId, uint64_t, rpc::FrameKind kind, std::string_view control, const rpc::MessageLite* message, const PartList&, int,
                 bool) override {
    error = kind == rpc::FrameKind::kError ? rpc::DecodeError(control) : Status::Ok();
    answer = message ? message->SerializeAsString() : std::string(control);
  }

 private:
  const uint64_t id_;
  bool closed_ = false;
};

// Finishes its writes when told.
class SlowStorage final : public Storage {
 public:
  void Write(std::vector<StorageOp> batch, std::function<void(Status)> done) override {
    batches.push_back(batch.size());
    pending.push_back(std::move(done));
  }
  void Load(const std::string&, std::function<void(Result<std::map<std::string, std::string>>)> done) override {
    done(std::map<std::string, std::string>());
  }
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
    server_ = std::make_unique<GcsServer>(std::move(options), &loop_, storage);
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
  void RegisterNode() {
    v1::RegisterNodeRequest request;
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
  Call<v1::AddJobReply>(link_, MethodId::kAddJob, v1::AddJobRequest());
  EXPECT_EQ(link_->answer, "");
  Call<v1::AddJobReply>(link_, MethodId::kAddJob, v1::AddJobRequest());
  Call<v1::ListJobsReply>(link_, MethodId::kListJobs, v1::JobEmpty());
  EXPECT_EQ(link_->answer, "") << "a read does not overtake a write";
  EXPECT_THAT(storage.batches, ElementsAre(2));
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
  Call<v1::AddJobReply>(link_, MethodId::kAddJob, v1::AddJobRequest());
  storage.FinishOne(Status::DataLoss("disk"));
  EXPECT_EQ(link_->answer, "");
  EXPECT_EQ(storage_failed_, 1);
}

}  // namespace
}  // namespace ray::gcs
