// Two hubs in one process; what one sends arrives at the other, unless a test takes it out.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>

#include "ray/common/errors.h"
#include "ray/rpc/tunnel/channel_core.h"
#include "ray/rpc/tunnel/tunnel_hub.h"
#include "ray/testing/promise/promise.h"
#include "ray/v1/gcs_kv.pb.h"
#include "ray/wire/convert.h"

namespace ray::rpc {
namespace {

TEST(ChannelCoreTest, WindowBoundsWhatIsUnderWay) {
  ChannelCore core(100);
  EXPECT_TRUE(core.MaySend());
  EXPECT_EQ(core.OnSent(99), 0u);
  EXPECT_TRUE(core.MaySend());
  EXPECT_EQ(core.OnSent(1000), 1u);  // one may overshoot
  EXPECT_FALSE(core.MaySend());
  EXPECT_TRUE(core.OnAcknowledged(999));
  EXPECT_FALSE(core.MaySend());
  EXPECT_TRUE(core.OnAcknowledged(500)) << "old news";
  EXPECT_EQ(core.under_way(), 100u);
  EXPECT_TRUE(core.OnAcknowledged(1000));
  EXPECT_TRUE(core.MaySend());
  EXPECT_FALSE(core.OnAcknowledged(1100)) << "more than was sent";
}

TEST(ChannelCoreTest, LossShowsAndConsumptionIsToldInTime) {
  ChannelCore core(100);
  EXPECT_TRUE(core.OnReceived(0));
  EXPECT_TRUE(core.OnReceived(1));
  EXPECT_FALSE(core.OnHandled(24));
  EXPECT_TRUE(core.OnHandled(1));
  EXPECT_EQ(core.TellConsumed(), 25u);
  EXPECT_FALSE(core.OnHandled(1));
  EXPECT_FALSE(core.OnReceived(3));
}

class TunnelTest : public testing::Test {
 protected:
  struct End {
    Address self{NodeId::FromRandom(), WorkerId::FromRandom()};
    std::shared_ptr<Dispatcher> dispatcher = std::make_shared<Dispatcher>();
    std::shared_ptr<TunnelHub> hub;
    std::vector<Address> gone;
    int sent = 0, drop = -1;  // of its envelopes with payload, the one to lose
    bool held = false;
    std::vector<std::pair<v1::TunnelFrames, PartList>> kept;
  };

  TunnelTest() {
    loop_ = std::move(*async::EpollLoop::Make({}));
    EXPECT_TRUE(loop_->Start().ok());
    Connect(&a_, &b_);
    Connect(&b_, &a_);
    b_.dispatcher->RegisterTyped<v1::KvGetRequest>(MethodId::kKvGet,
                                                   [](const v1::KvGetRequest& message, Request& request, Responder responder) {
                                                     if (message.key() == "bad") return responder.Fail(Status::NotFound("no such key"));
                                                     v1::KvGetReply reply;
                                                     reply.set_value(message.key());
                                                     responder.Send(reply, request.parts);
                                                   });
    b_.dispatcher->RegisterTyped<v1::KvKeysRequest>(MethodId::kKvKeys,
                                                    [this](const v1::KvKeysRequest&, Request& request, Responder responder) {
                                                      waiting_.push_back(std::move(responder));
                                                      incoming_ = request.connection;
                                                      incoming_->OnClose([this](const Status&) { incoming_closed_.set_value(); });
                                                    });
  }
  ~TunnelTest() override {
    for (End* end : {&a_, &b_}) end->hub->Shutdown();
    OnLoop([this] {
      waiting_.clear();
      incoming_ = nullptr;
    });
    OnLoop([] {});
    EXPECT_EQ(a_.hub->size() + b_.hub->size(), 0u);
    loop_->Stop();
  }
  void Connect(End* from, End* to) {
    TunnelHub::Deps deps;
    deps.loop = loop_.get();
    deps.self = from->self;
    deps.dispatcher = from->dispatcher;
    deps.config.window_bytes = 10000;
    deps.flush = [] {};
    deps.on_peer_gone = [from](const Address& peer) { from->gone.push_back(peer); };
    deps.send = [this, from, to](MethodId method, std::string_view control, const PartList& parts) {
      if (method == MethodId::kTunnelClosed) {
        v1::TunnelClosed message;
        ASSERT_TRUE(message.ParseFromArray(control.data(), static_cast<int>(control.size())));
        loop_->Post("closed", [to, message] { to->hub->OnClosed(message); });
        return;
      }
      v1::TunnelFrames message;
      ASSERT_TRUE(message.ParseFromArray(control.data(), static_cast<int>(control.size())));
      EXPECT_EQ(FromProto(message.to()), to->self);
      EXPECT_EQ(FromProto(message.from()), from->self);
      if (!parts.empty() && from->sent++ == from->drop) return;
      if (from->held) return from->kept.emplace_back(message, parts), void();
      loop_->Post("frames", [to, message, parts] { to->hub->OnFrames(message, parts); });
    };
    from->hub = TunnelHub::Make(std::move(deps));
  }
  template <typename F>
  void OnLoop(F fn) {
    RunOnLoop(loop_.get(), std::move(fn));
  }
  struct Answer {
    Status status;
    std::string value;
    std::vector<std::string> parts;
  };
  std::future<Answer> Ask(const ConnectionPtr& connection, const std::string& key, const PartList& parts = {}, bool corked = false) {
    TestPromise<Answer> promise;
    v1::KvGetRequest request;
    request.set_key(key);
    connection->Call(MethodId::kKvGet, request, parts,
                     [promise](Status status, Reply reply) {
                       Answer answer{std::move(status), {}, {}};
                       v1::KvGetReply message;
                       if (answer.status.ok() && message.ParseFromArray(reply.control.data(), static_cast<int>(reply.control.size())))
                         answer.value = message.value();
                       for (const BufferPtr& part : reply.parts) answer.parts.emplace_back(part->view());
                       promise.set_value(std::move(answer));
                     },
                     {.corked = corked});
    return promise.get_future();
  }

  std::unique_ptr<async::EpollLoop> loop_;
  End a_, b_;
  std::vector<Responder> waiting_;
  ConnectionPtr incoming_;
  TestPromise<void> incoming_closed_;
};

TEST_F(TunnelTest, LooksLikeAnyOtherConnection) {
  ConnectionPtr tunnel = a_.hub->Connect(b_.self);
  const Answer answer =
      Ask(tunnel, "k", {HeapBuffer::CopyOf("part"), HeapBuffer::CopyOf(""), HeapBuffer::CopyOf(std::string(1 << 20, 'x'))}).get();
  ASSERT_TRUE(answer.status.ok()) << answer.status.ToString();
  EXPECT_EQ(answer.value, "k");
  EXPECT_THAT(answer.parts, testing::ElementsAre("part", "", std::string(1 << 20, 'x')));
  EXPECT_EQ(Ask(tunnel, "bad").get().status.code(), StatusCode::kNotFound);
  EXPECT_EQ(tunnel->peer_pid(), -1);
}

TEST_F(TunnelTest, CorkedFramesShareAnEnvelope) {
  ConnectionPtr tunnel = a_.hub->Connect(b_.self);
  std::vector<std::future<Answer>> answers;
  OnLoop([&] {
    for (int i = 0; i < 50; ++i) answers.push_back(Ask(tunnel, std::to_string(i)));
  });
  for (int i = 0; i < 50; ++i) EXPECT_EQ(answers[i].get().value, std::to_string(i));
  EXPECT_EQ(a_.sent, 1);
  const int before = a_.sent;
  auto corked = Ask(tunnel, "late", {}, /*corked=*/true);
  EXPECT_EQ(corked.get().value, "late") << "the loop flushes it";
  EXPECT_EQ(a_.sent, before + 1);
}

TEST_F(TunnelTest, SenderKeepsWhatTheWindowDoesNotTake) {
  ConnectionPtr tunnel = a_.hub->Connect(b_.self);
  a_.held = true;
  std::vector<std::future<Answer>> answers;
  const std::string piece(3000, 'x');
  for (int i = 0; i < 100; ++i) answers.push_back(Ask(tunnel, std::to_string(i), {HeapBuffer::CopyOf(piece)}));
  EXPECT_LE(a_.sent, 5) << "a window of 10000 bytes, and one beyond";
  EXPECT_GT(tunnel->unsent_bytes(), 100 * piece.size());
  OnLoop([&] {
    a_.held = false;
    for (auto& [message, parts] : std::exchange(a_.kept, {})) b_.hub->OnFrames(message, parts);
  });
  for (int i = 0; i < 100; ++i) EXPECT_EQ(answers[i].get().value, std::to_string(i));
  OnLoop([] {});
  EXPECT_LT(tunnel->unsent_bytes(), 10000u);
}

TEST_F(TunnelTest, LossClosesBothEnds) {
  ConnectionPtr tunnel = a_.hub->Connect(b_.self);
  tunnel->Call(MethodId::kKvKeys, v1::KvKeysRequest(), {},
               [](const Status& status, const Reply&) { EXPECT_EQ(status.code(), StatusCode::kUnavailable); });
  ASSERT_TRUE(Ask(tunnel, "k").get().status.ok());
  a_.drop = a_.sent;
  auto lost = Ask(tunnel, "lost"), next = Ask(tunnel, "next");
  EXPECT_EQ(lost.get().status.code(), StatusCode::kUnavailable);
  EXPECT_EQ(next.get().status.code(), StatusCode::kUnavailable);
  EXPECT_TRUE(tunnel->closed());
  incoming_closed_.get_future().get();
  EXPECT_TRUE(Ask(a_.hub->Connect(b_.self), "anew").get().status.ok());
}

TEST_F(TunnelTest, CloseIsSeenByThePeerAfterWhatWasSaid) {
  ConnectionPtr tunnel = a_.hub->Connect(b_.self);
  tunnel->Call(MethodId::kKvKeys, v1::KvKeysRequest(), {}, [](const Status&, const Reply&) {});
  tunnel->Close(Status::Cancelled("enough"));
  incoming_closed_.get_future().get();
  EXPECT_EQ(waiting_.size(), 1u);
  EXPECT_EQ(Ask(tunnel, "k").get().status.code(), StatusCode::kUnavailable);
}

TEST_F(TunnelTest, LateFramesOfAClosedChannelAreRefused) {
  ConnectionPtr tunnel = a_.hub->Connect(b_.self);
  tunnel->Call(MethodId::kKvKeys, v1::KvKeysRequest(), {}, [](const Status&, const Reply&) {});
  ASSERT_TRUE(Ask(tunnel, "k").get().status.ok());
  incoming_->Close(Status::Cancelled("b has enough"));
  auto answer = Ask(tunnel, "k").get();  // may cross the news of the close
  EXPECT_EQ(answer.status.code(), StatusCode::kUnavailable);
}

TEST_F(TunnelTest, RayletTellsThatThePeerIsGone) {
  ConnectionPtr first = a_.hub->Connect(b_.self), second = a_.hub->Connect(b_.self),
                other = a_.hub->Connect({b_.self.node_id, WorkerId::FromRandom()});
  v1::TunnelClosed gone;
  ToProto(a_.self, gone.mutable_to());
  ToProto(b_.self, gone.mutable_from());
  gone.set_cause(v1::TUNNEL_CAUSE_GONE);
  int32_t cause = -1, other_cause = 0;
  first->OnClose([&cause](const Status& reason) { cause = reason.cause(); });
  other->OnClose([&other_cause](const Status& reason) { other_cause = reason.cause(); });
  OnLoop([&] { a_.hub->OnClosed(gone); });
  EXPECT_TRUE(first->closed() && second->closed());
  EXPECT_FALSE(other->closed());
  EXPECT_THAT(a_.gone, testing::ElementsAre(b_.self));
  OnLoop([&] { a_.hub->CloseNode(b_.self.node_id, "dead"); });
  EXPECT_TRUE(other->closed());
  OnLoop([] {});  // callbacks are posts
  EXPECT_EQ(cause, static_cast<int32_t>(ErrorType::kWorkerDied));
  EXPECT_EQ(other_cause, -1) << "what it said last may be lost";
}

}  // namespace
}  // namespace ray::rpc
