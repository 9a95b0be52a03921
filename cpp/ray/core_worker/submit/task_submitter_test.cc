// What an owner asks of raylets for tasks with labels in a placement group. Its own raylet is a connection that notes requests, that of another node the far end of a tunnel.
#include "ray/core_worker/submit/task_submitter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>

#include "ray/v1/pubsub.pb.h"
#include "ray/v1/raylet_lease.pb.h"
#include "ray/wire/convert.h"

namespace ray::core {
namespace {

using ::testing::ElementsAre;

class QueueLoop final : public async::UserLoop {
 public:
  void Post(const char*, std::function<void()> fn) override { queue_.push_back(std::move(fn)); }
  async::TimerId AddTimer(Duration, std::function<void()>) override { return ++last_timer_; }
  void CancelTimer(async::TimerId) override {}
  const Clock& clock() const override { return clock_; }
  bool InLoop() const override { return true; }
  void AddFlusher(std::function<void()> fn) override { flushers_.push_back(std::move(fn)); }
  void RequestFlush() override {}
  async::WaitResult Wait(async::Waiter*, Time, bool) override { return async::WaitResult::kDeadline; }
  void EnterUserCode() override {}
  void LeaveUserCode() override {}
  void RunAll() {
    do {
      for (; !queue_.empty(); queue_.pop_front()) queue_.front()();
      for (const auto& flush : flushers_) flush();
    } while (!queue_.empty());
  }

 protected:
  void OnSet() override {}

 private:
  SystemClock clock_;
  std::deque<std::function<void()>> queue_;
  std::vector<std::function<void()>> flushers_;
  async::TimerId last_timer_ = 0;
};

// A raylet as its owner sees it: requests for leases wait until they are answered.
struct FakeRaylet {
  NodeId node = NodeId::FromRandom();
  struct Asked {
    v1::RequestLeaseRequest request;
    std::function<void(const v1::RequestLeaseReply&)> answer;
  };
  std::deque<Asked> asked;
  std::vector<std::string> cancelled;  // lease ids
  Asked Next() {
    if (asked.empty()) {
      ADD_FAILURE() << "nothing was asked";
      return {{}, [](const v1::RequestLeaseReply&) {}};
    }
    Asked first = std::move(asked.front());
    asked.pop_front();
    return first;
  }
};

class OwnRaylet final : public rpc::Connection {
 public:
  explicit OwnRaylet(FakeRaylet* raylet) : raylet_(raylet) {}
  void Call(MethodId method, const rpc::MessageLite& request, const PartList& parts, rpc::ReplyCallback callback,
            rpc::CallOptions options) override {
    CallRaw(method, request.SerializeAsString(), parts, std::move(callback), options);
  }
  void CallRaw(MethodId method, std::string_view control, const PartList&, rpc::ReplyCallback callback, rpc::CallOptions) override {
    if (method != MethodId::kRequestLease) return;
    FakeRaylet::Asked& asked = raylet_->asked.emplace_back();
    EXPECT_TRUE(asked.request.ParseFromArray(control.data(), static_cast<int>(control.size())));
    asked.answer = [callback = std::move(callback)](const v1::RequestLeaseReply& reply) {
      const std::string bytes = reply.SerializeAsString();
      callback({}, rpc::Reply{bytes, {}});
    };
  }
  void Notify(MethodId method, const rpc::MessageLite& message, const PartList& parts, bool) override {
    NotifyRaw(method, message.SerializeAsString(), parts);
  }
  void NotifyRaw(MethodId method, std::string_view control, const PartList&) override {
    v1::CancelLeaseRequest cancel;
    if (method == MethodId::kCancelLease && cancel.ParseFromArray(control.data(), static_cast<int>(control.size())))
      raylet_->cancelled.push_back(cancel.lease_id());
  }
  void Flush() override {}
  void Close(Status) override {}
  bool closed() const override { return false; }
  void OnClose(std::function<void(const Status&)>) override {}
  uint64_t id() const override { return 1; }
  int64_t peer_pid() const override { return -1; }
  size_t unsent_bytes() const override { return 0; }

 protected:
  void SendReply(MethodId, uint64_t, rpc::FrameKind, std::string_view, const rpc::MessageLite*, const PartList&, int, bool) override {}

 private:
  FakeRaylet* const raylet_;
};

class LabelsInAGroupTest : public ::testing::Test {
 protected:
  LabelsInAGroupTest() {
    near_ = MakeHub({own_.node, self_.worker_id}, std::make_shared<rpc::Dispatcher>(), &far_);
    const auto dispatcher = std::make_shared<rpc::Dispatcher>();
    dispatcher->RegisterTyped<v1::RequestLeaseRequest>(
        MethodId::kRequestLease, [this](const v1::RequestLeaseRequest& request, rpc::Request&, rpc::Responder responder) {
          auto answer = std::make_shared<rpc::Responder>(std::move(responder));
          other_.asked.push_back({request, [answer](const v1::RequestLeaseReply& reply) { answer->Send(reply); }});
        });
    dispatcher->RegisterTyped<v1::CancelLeaseRequest>(
        MethodId::kCancelLease,
        [this](const v1::CancelLeaseRequest& request, rpc::Request&, rpc::Responder) { other_.cancelled.push_back(request.lease_id()); });
    far_ = MakeHub({other_.node, WorkerId::Nil()}, dispatcher, &near_);
    peers_->SetNode(own_.node, near_);
    peers_->SetRaylet(std::make_shared<OwnRaylet>(&own_));
    groups_.SetHandler([this](const PlacementGroupId& id) { submitter_.OnGroupChanged(id); });
    strategy_.kind = SchedulingStrategy::kPlacementGroup;
    strategy_.placement_group_id = group_;
    strategy_.selectors = {{{"zone", "a"}}, {{"zone", "!b"}}};
  }
  ~LabelsInAGroupTest() override {
    submitter_.Shutdown();
    near_->Drop();
    far_->Drop();
  }
  std::shared_ptr<rpc::TunnelHub> MakeHub(const Address& self, std::shared_ptr<rpc::Dispatcher> dispatcher,
                                          std::shared_ptr<rpc::TunnelHub>* to) {
    rpc::TunnelHub::Deps deps;
    deps.loop = &loop_;
    deps.self = self;
    deps.dispatcher = std::move(dispatcher);
    deps.flush = [] {};
    deps.send = [this, to](MethodId method, std::string_view control, const PartList& parts) {
      v1::TunnelFrames message;
      if (method == MethodId::kTunnelClosed || !message.ParseFromArray(control.data(), static_cast<int>(control.size()))) return;
      loop_.Post("frames", [to, message, parts] { (*to)->OnFrames(message, parts); });
    };
    return rpc::TunnelHub::Make(std::move(deps));
  }
  void Submit() {
    const auto tmpl = std::make_shared<TaskTemplate>();
    tmpl->job_id = JobId::FromInt(1);
    tmpl->strategy = strategy_;
    tmpl->resources.Set("CPU", ResourceSet::kUnit);
    const auto task = std::make_shared<PendingTask>();
    task->spec.tmpl = tmpl;
    task->cls = submitter_.ClassOf(*tmpl, 0);
    tasks_.push_back(task);
    submitter_.Submit(task);
    loop_.RunAll();
  }
  // News of the group: where its bundles are.
  void Place(const std::vector<NodeId>& nodes) {
    v1::PlacementGroupInfo info;
    info.set_placement_group_id(group_.Binary());
    info.set_version(++version_);
    info.set_state(v1::PLACEMENT_GROUP_STATE_CREATED);
    info.set_placed_at_ms(1);
    for (const NodeId& node : nodes) info.add_bundles()->set_node_id(node.Binary());
    groups_.OnPublish(info);
    loop_.RunAll();
  }
  void Answer(const FakeRaylet::Asked& asked, const std::function<void(v1::RequestLeaseReply*)>& fill) {
    v1::RequestLeaseReply reply;
    fill(&reply);
    asked.answer(reply);
    loop_.RunAll();
  }
  static void LabelsDiffer(v1::RequestLeaseReply* reply) {
    reply->set_rejected(true);
    reply->set_labels_differ(true);
  }

  FakeRaylet own_, other_;
  const Address self_{own_.node, WorkerId::FromRandom()};
  const PlacementGroupId group_ = PlacementGroupId::FromRandom();
  QueueLoop loop_;
  std::shared_ptr<rpc::TunnelHub> near_, far_;
  const std::shared_ptr<PeerPool> peers_ =
      PeerPool::Make([](const std::string&) -> Result<rpc::ConnectionPtr> { return Status::NotFound("nobody"); }, &loop_);
  PlacementGroupService groups_{{.loop = &loop_, .peers = peers_.get(), .self = self_, .job_id = JobId::FromInt(1)}};
  TaskSubmitter submitter_{{.loop = &loop_, .peers = peers_.get(), .groups = &groups_, .self = self_}};
  SchedulingStrategy strategy_;
  uint64_t version_ = 0;
  std::vector<PendingTaskPtr> tasks_;
};

TEST_F(LabelsInAGroupTest, TheRequestNamesTheGroupAndTheLabels) {
  Submit();
  EXPECT_TRUE(own_.asked.empty()) << "where the group is has not been heard";
  Place({own_.node, own_.node});
  ASSERT_EQ(own_.asked.size(), 1u);
  const v1::RequestLeaseRequest request = own_.Next().request;
  EXPECT_EQ(request.placement(), v1::LEASE_PLACEMENT_HERE);
  EXPECT_EQ(request.strategy().kind(), v1::STRATEGY_KIND_PLACEMENT_GROUP);
  EXPECT_EQ(request.strategy().placement_group_id(), group_.Binary());
  EXPECT_EQ(request.strategy().bundle_index(), -1);
  ASSERT_EQ(request.strategy().selectors_size(), 2);
  EXPECT_EQ(request.strategy().selectors(0).constraints().at("zone"), "a");
  EXPECT_EQ(request.strategy().selectors(1).constraints().at("zone"), "!b");
  EXPECT_FALSE(request.other_places()) << "both bundles are here: it waits here, in vain or not";
  EXPECT_FALSE(request.locality());
}

TEST_F(LabelsInAGroupTest, ANodeWithOtherLabelsIsLeftForTheNextOne) {
  Submit();
  Place({own_.node, other_.node});
  ASSERT_EQ(own_.asked.size(), 1u);
  ASSERT_EQ(other_.asked.size(), 1u) << "any bundle will do: one request waits at each node";
  const FakeRaylet::Asked here = own_.Next(), there = other_.Next();
  EXPECT_TRUE(here.request.other_places());
  EXPECT_TRUE(there.request.other_places());
  Answer(here, LabelsDiffer);
  // The same lease is asked for at the other node, which is the last one that may do.
  EXPECT_TRUE(own_.asked.empty());
  ASSERT_EQ(other_.asked.size(), 1u);
  const FakeRaylet::Asked second = other_.Next();
  EXPECT_EQ(second.request.lease_id(), here.request.lease_id());
  EXPECT_EQ(second.request.ask(), here.request.ask() + 1);
  EXPECT_FALSE(second.request.other_places());
  EXPECT_EQ(second.request.placement(), v1::LEASE_PLACEMENT_HERE);
  // What comes later does not try the first one again.
  Submit();
  EXPECT_TRUE(own_.asked.empty());
}

TEST_F(LabelsInAGroupTest, WhereNoNodeWillDoItWaitsUntilTheGroupChanges) {
  Submit();
  Place({own_.node});
  const FakeRaylet::Asked first = own_.Next();
  EXPECT_FALSE(first.request.other_places()) << "so the raylet keeps it, and says why it waits";
  EXPECT_TRUE(own_.cancelled.empty());
  // A bundle has moved: what waits is taken back, and asked for where the bundles are now.
  Place({other_.node});
  EXPECT_THAT(own_.cancelled, ElementsAre(first.request.lease_id()));
  Answer(first, [](v1::RequestLeaseReply* reply) { reply->set_cancelled(true); });
  EXPECT_TRUE(own_.asked.empty());
  ASSERT_EQ(other_.asked.size(), 1u);
  EXPECT_NE(other_.Next().request.lease_id(), first.request.lease_id());
}

TEST_F(LabelsInAGroupTest, TheLastOfTheUnfitKeepsIt) {
  Submit();
  Place({own_.node, other_.node});
  const FakeRaylet::Asked here = own_.Next(), there = other_.Next();
  Answer(here, LabelsDiffer);
  Answer(there, LabelsDiffer);
  // All were ruled out: what is left waits at one of them, which is told that there is no other.
  std::vector<v1::RequestLeaseRequest> waiting;
  for (FakeRaylet* raylet : {&own_, &other_}) {
    while (!raylet->asked.empty()) waiting.push_back(raylet->Next().request);
  }
  ASSERT_FALSE(waiting.empty());
  for (const auto& request : waiting) EXPECT_FALSE(request.other_places());
}

TEST_F(LabelsInAGroupTest, ANamedBundleHasNoOtherPlace) {
  strategy_.bundle_index = 1;
  Submit();
  Place({own_.node, other_.node});
  EXPECT_TRUE(own_.asked.empty());
  ASSERT_EQ(other_.asked.size(), 1u);
  const v1::RequestLeaseRequest request = other_.Next().request;
  EXPECT_EQ(request.strategy().bundle_index(), 1);
  EXPECT_EQ(request.strategy().selectors_size(), 2);
  EXPECT_FALSE(request.other_places());
}

TEST_F(LabelsInAGroupTest, WithoutLabelsNothingIsTakenBack) {
  strategy_.selectors.clear();
  Submit();
  Place({own_.node});
  EXPECT_EQ(own_.Next().request.strategy().selectors_size(), 0);
  Place({own_.node, other_.node});
  EXPECT_TRUE(own_.cancelled.empty());
}

}  // namespace
}  // namespace ray::core
