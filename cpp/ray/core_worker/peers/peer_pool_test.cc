#include "ray/core_worker/peers/peer_pool.h"

#include <gtest/gtest.h>

#include <map>

namespace ray::core {
namespace {

class FakeConnection final : public rpc::Connection {
 public:
  void Call(MethodId, const rpc::MessageLite&, const PartList&, rpc::ReplyCallback, rpc::CallOptions) override {}
  void CallRaw(MethodId, std::string_view, const PartList&, rpc::ReplyCallback, rpc::CallOptions) override {}
  void Notify(MethodId, const rpc::MessageLite&, const PartList&, bool) override {}
  void NotifyRaw(MethodId, std::string_view, const PartList&) override {}
  void Flush() override {}
  void Close(Status reason) override {
    if (closed_) return;
    closed_ = true;
    for (auto& callback : on_close_) callback(reason);
  }
  bool closed() const override { return closed_; }
  void OnClose(std::function<void(const Status&)> callback) override { on_close_.push_back(std::move(callback)); }
  uint64_t id() const override { return 0; }
  int64_t peer_pid() const override { return -1; }
  size_t unsent_bytes() const override { return 0; }

 protected:
  void SendReply(MethodId, uint64_t, rpc::FrameKind, std::string_view, const rpc::MessageLite*, const PartList&, int, bool) override {}

 private:
  bool closed_ = false;
  std::vector<std::function<void(const Status&)>> on_close_;
};

class FakeLoop final : public async::Loop {
 public:
  void Post(const char*, std::function<void()> fn) override { fn(); }
  async::TimerId AddTimer(Duration, std::function<void()> fn) override {
    timers.push_back(std::move(fn));
    return timers.size();
  }
  void CancelTimer(async::TimerId) override {}
  const Clock& clock() const override { return clock_; }
  bool InLoop() const override { return true; }
  void AddFlusher(std::function<void()>) override {}  // nothing here corks
  void RequestFlush() override {}
  std::vector<std::function<void()>> timers;

 private:
  SystemClock clock_;
};

class PeerPoolTest : public ::testing::Test {
 protected:
  FakeLoop loop_;
  int connects_ = 0;
  bool reachable_ = true, descriptors_left_ = true;
  const Address peer_{NodeId::FromRandom(), WorkerId::FromRandom()};
  std::shared_ptr<PeerPool> pool_ = PeerPool::Make(
      [this](const std::string& name) -> Result<rpc::ConnectionPtr> {
        EXPECT_EQ(name, "w-" + peer_.worker_id.Hex().substr(0, 16) + ".sock");
        ++connects_;
        if (!descriptors_left_) return Status::ResourceExhausted("no descriptor is left");
        if (!reachable_) return Status::NotFound("nobody listens");
        return rpc::ConnectionPtr(std::make_shared<FakeConnection>());
      },
      &loop_);
};

TEST_F(PeerPoolTest, OneConnectionForEachPeerUntilItCloses) {
  auto first = pool_->Get(peer_);
  ASSERT_TRUE(first.ok());
  EXPECT_EQ(*pool_->Get(peer_), *first);
  (*first)->Close(Status::Unavailable("gone"));
  auto second = pool_->Get(peer_);
  ASSERT_TRUE(second.ok());
  EXPECT_NE(*second, *first);
  EXPECT_EQ(connects_, 2);
}

TEST_F(PeerPoolTest, WhoDoesNotAnswerIsUnavailable) {
  reachable_ = false;
  EXPECT_EQ(pool_->Get(peer_).status().code(), StatusCode::kUnavailable);
}

TEST_F(PeerPoolTest, WithoutDescriptorsNobodyIsUnavailableAndWhatThePeerHasOpenedWillDo) {
  descriptors_left_ = false;
  EXPECT_EQ(pool_->Get(peer_).status().code(), StatusCode::kResourceExhausted);
  auto incoming = std::make_shared<FakeConnection>();
  pool_->Adopt(peer_, incoming);
  EXPECT_EQ(*pool_->Get(peer_), incoming);
  descriptors_left_ = true;
  EXPECT_NE(*pool_->Get(peer_), incoming);
}

TEST_F(PeerPoolTest, WhatFollowsRepliesGoesWhereRepliesWent) {
  auto incoming = std::make_shared<FakeConnection>();
  pool_->Adopt(peer_, incoming);
  pool_->Adopt(peer_, incoming);
  EXPECT_EQ(*pool_->ReplyRoute(peer_), incoming);
  EXPECT_EQ(connects_, 0);
  EXPECT_NE(*pool_->Get(peer_), incoming);
  incoming->Close(Status::Unavailable("gone"));
  EXPECT_EQ(*pool_->ReplyRoute(peer_), *pool_->Get(peer_));
}

TEST_F(PeerPoolTest, TheDeadAreRefusedAtOnceAndClosedAfterTheirLastWords) {
  auto connection = *pool_->Get(peer_);
  int told = 0;
  pool_->OnWorkerDied([&](const WorkerId& worker) { told += worker == peer_.worker_id; });
  pool_->MarkDead(peer_.worker_id);
  pool_->MarkDead(peer_.worker_id);
  EXPECT_EQ(told, 1);
  EXPECT_TRUE(pool_->IsDead(peer_.worker_id));
  EXPECT_EQ(pool_->Get(peer_).status().code(), StatusCode::kUnavailable);
  EXPECT_EQ(connects_, 1);
  EXPECT_FALSE(connection->closed());
  ASSERT_EQ(loop_.timers.size(), 1u);
  loop_.timers[0]();
  EXPECT_TRUE(connection->closed());
}

TEST_F(PeerPoolTest, LastWordsEndWithTheConnections) {
  ASSERT_TRUE(pool_->Get(peer_).ok());
  int told = 0;
  pool_->AfterLastWords(peer_, [&] { ++told; });
  pool_->MarkDead(peer_.worker_id);
  EXPECT_EQ(told, 0) << "what it sent may still be on its way";
  ASSERT_EQ(loop_.timers.size(), 2u);
  loop_.timers[0]();
  EXPECT_EQ(told, 0) << "its connection is still open";
  loop_.timers[1]();
  EXPECT_EQ(told, 1);
  pool_->AfterLastWords(peer_, [&] { ++told; });
  EXPECT_EQ(told, 2) << "it said them long ago";
  const Address unknown{NodeId::Nil(), WorkerId::FromRandom()};
  pool_->AfterLastWords(unknown, [&] { ++told; });
  EXPECT_EQ(told, 2) << "it lives, as far as is known";
  pool_->MarkDead(unknown.worker_id);
  EXPECT_EQ(told, 3) << "it had said nothing to us";
}

TEST_F(PeerPoolTest, LastWordsOfThoseWhoseDeathIsNotHeardOf) {
  const Address unknown{NodeId::Nil(), WorkerId::FromRandom()};
  auto connection = *pool_->Get(peer_);
  std::vector<std::string> told;
  pool_->AfterLastWords(unknown, [&] { told.push_back("unknown"); });
  pool_->AfterLastWords(peer_, [&] { told.push_back("peer"); });
  ASSERT_EQ(loop_.timers.size(), 2u);
  EXPECT_EQ(told, std::vector<std::string>{}) << "what opens a connection may still be on its way";
  loop_.timers[0]();
  EXPECT_EQ(told, std::vector<std::string>{"unknown"}) << "it has none here";
  loop_.timers[1]();
  EXPECT_EQ(told, std::vector<std::string>{"unknown"});
  connection->Close(Status::Unavailable("it has ended"));
  EXPECT_EQ(told, (std::vector<std::string>{"unknown", "peer"}));
}

TEST_F(PeerPoolTest, AfterCloseNothingOpens) {
  auto connection = *pool_->Get(peer_);
  pool_->Close();
  EXPECT_TRUE(connection->closed());
  EXPECT_EQ(pool_->Get(peer_).status().code(), StatusCode::kFailedPrecondition);
}

// With a way to other nodes.
class RemotePeersTest : public ::testing::Test {
 protected:
  RemotePeersTest() {
    loop_ = std::move(*async::EpollLoop::Make({}));
    EXPECT_TRUE(loop_->Start().ok());
    pool_ = PeerPool::Make(
        [this](const std::string&) -> Result<rpc::ConnectionPtr> {
          ++connects_;
          return rpc::ConnectionPtr(std::make_shared<FakeConnection>());
        },
        loop_.get());
    rpc::TunnelHub::Deps deps;
    deps.loop = loop_.get();
    deps.self = self_;
    deps.dispatcher = std::make_shared<rpc::Dispatcher>();
    deps.send = [](MethodId, std::string_view, const PartList&) {};
    deps.flush = [] {};
    hub_ = rpc::TunnelHub::Make(std::move(deps));
    pool_->SetNode(self_.node_id, hub_);
    pool_->OnWorkerDied([this](const WorkerId& worker) { dead_.push_back(worker); });
  }
  ~RemotePeersTest() override {
    pool_->Close();
    hub_->Shutdown();
    loop_->Stop();
  }
  const Address self_{NodeId::FromRandom(), WorkerId::FromRandom()};
  const Address near_{self_.node_id, WorkerId::FromRandom()}, far_{NodeId::FromRandom(), WorkerId::FromRandom()};
  std::unique_ptr<async::EpollLoop> loop_;
  std::shared_ptr<rpc::TunnelHub> hub_;
  std::shared_ptr<PeerPool> pool_;
  int connects_ = 0;
  std::vector<WorkerId> dead_;
};

TEST_F(RemotePeersTest, TunnelsToOtherNodesOnly) {
  ASSERT_TRUE(pool_->Get(near_).ok());
  ASSERT_TRUE(pool_->Get({NodeId::Nil(), WorkerId::FromRandom()}).ok()) << "no node: this one";
  EXPECT_EQ(connects_, 2);
  EXPECT_EQ(hub_->size(), 0u);
  auto tunnel = pool_->Get(far_);
  ASSERT_TRUE(tunnel.ok());
  EXPECT_EQ(*pool_->Get(far_), *tunnel);
  EXPECT_EQ(connects_, 2);
  EXPECT_EQ(hub_->size(), 1u);
}

TEST_F(RemotePeersTest, RayletsOfOtherNodesAndTheOwn) {
  EXPECT_FALSE(pool_->GetRaylet(self_.node_id).ok()) << "not set yet";
  auto own = std::make_shared<FakeConnection>();
  pool_->SetRaylet(own);
  EXPECT_EQ(*pool_->GetRaylet(self_.node_id), own);
  auto other = pool_->GetRaylet(far_.node_id);
  ASSERT_TRUE(other.ok());
  EXPECT_EQ(*pool_->GetRaylet(far_.node_id), *other);
}

TEST_F(RemotePeersTest, NodeTakesAllItsProcessesAlong) {
  const Address known{far_.node_id, WorkerId::FromRandom()};
  auto raylet = pool_->GetRaylet(far_.node_id);
  ASSERT_TRUE(pool_->Get(far_).ok());
  ASSERT_TRUE(pool_->Get(near_).ok());
  pool_->Adopt(known, std::make_shared<FakeConnection>());
  int nodes_told = 0;
  pool_->OnNodeDied([&](const NodeId& node) {
    ++nodes_told;
    EXPECT_EQ(node, far_.node_id);
    EXPECT_EQ(dead_.size(), 2u) << "after its workers";
  });
  EXPECT_EQ(pool_->WorkersOf(far_.node_id).size(), 2u);
  pool_->MarkNodeDead(far_.node_id);
  pool_->MarkNodeDead(far_.node_id);
  EXPECT_EQ(nodes_told, 1);
  EXPECT_TRUE(pool_->IsDead(far_) && pool_->IsDead(known));
  EXPECT_FALSE(pool_->IsDead(near_));
  EXPECT_TRUE((*raylet)->closed());
  const Address unknown{far_.node_id, WorkerId::FromRandom()};
  EXPECT_TRUE(pool_->IsDead(unknown));
  EXPECT_EQ(pool_->Get(unknown).status().code(), StatusCode::kUnavailable);
  EXPECT_EQ(pool_->GetRaylet(far_.node_id).status().code(), StatusCode::kUnavailable);
}

TEST_F(RemotePeersTest, LastWordsEndWithTheNodeOfWhomNobodyHereKnew) {
  bool told = false;
  pool_->AfterLastWords({far_.node_id, WorkerId::FromRandom()}, [&] { told = true; });
  pool_->MarkNodeDead(self_.node_id);
  EXPECT_FALSE(told);
  pool_->MarkNodeDead(far_.node_id);
  EXPECT_TRUE(told);
}

}  // namespace
}  // namespace ray::core
