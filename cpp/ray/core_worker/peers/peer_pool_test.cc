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
  std::vector<std::function<void()>> timers;

 private:
  SystemClock clock_;
};

class PeerPoolTest : public ::testing::Test {
 protected:
  FakeLoop loop_;
  int connects_ = 0;
  bool reachable_ = true;
  const Address peer_{NodeId::FromRandom(), WorkerId::FromRandom()};
  std::shared_ptr<PeerPool> pool_ = PeerPool::Make(
      [this](const std::string& name) -> Result<rpc::ConnectionPtr> {
        EXPECT_EQ(name, "w-" + peer_.worker_id.Hex().substr(0, 16) + ".sock");
        ++connects_;
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

TEST_F(PeerPoolTest, AfterCloseNothingOpens) {
  auto connection = *pool_->Get(peer_);
  pool_->Close();
  EXPECT_TRUE(connection->closed());
  EXPECT_EQ(pool_->Get(peer_).status().code(), StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace ray::core
