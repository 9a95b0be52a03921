#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>

#include "ray/rpc/core/dispatcher.h"
#include "ray/rpc/core/frame.h"
#include "ray/rpc/core/pending_calls.h"

namespace ray::rpc {
namespace {

using async::EpollLoop;
using async::Waiter;
using std::chrono::milliseconds;

TEST(ErrorCodec, RoundTrip) {
  for (int32_t cause : {-1, 0, 3, 70000}) {
    Status out = DecodeError(EncodeError(Status(StatusCode::kNotFound, "no such thing", cause)));
    EXPECT_EQ(out.code(), StatusCode::kNotFound);
    EXPECT_EQ(out.cause(), cause);
    EXPECT_EQ(out.message(), "no such thing");
  }
  EXPECT_EQ(DecodeError("").code(), StatusCode::kDataLoss);
  EXPECT_EQ(DecodeError("\x80\x80\x80\x80\x80\x80").code(), StatusCode::kDataLoss);
  EXPECT_EQ(DecodeError(std::string("\x63\x00hm", 4)).code(), StatusCode::kUnknown);
  EXPECT_EQ(DecodeError(std::string("\x00\x00hm", 4)).code(), StatusCode::kUnknown);
}

TEST(Frame, RoundTripAndEveryPrefixIsIncomplete) {
  PartList parts{HeapBuffer::CopyOf("abc"), HeapBuffer::CopyOf(""), HeapBuffer::CopyOf(std::string(1000, 'z'))};
  auto header = MakeFrameHeader(FrameKind::kRequest, MethodId::kPushTask, 77, 0, 5, parts, 1 << 20);
  ASSERT_TRUE(header.ok());
  std::string bytes;
  AppendFrame(*header, "hello", parts, &bytes);
  ASSERT_EQ(bytes.size(), kFrameHeaderBytes + header->frame_len);
  DecodedFrame frame;
  for (size_t n = 0; n < bytes.size(); ++n) {
    auto used = DecodeFrame(std::string_view(bytes).substr(0, n), 1 << 20, &frame);
    ASSERT_TRUE(used.ok());
    EXPECT_EQ(*used, 0u);
  }
  auto used = DecodeFrame(bytes + "next", 1 << 20, &frame);
  ASSERT_TRUE(used.ok());
  EXPECT_EQ(*used, bytes.size());
  EXPECT_EQ(frame.header.call_id, 77u);
  std::string with_next = bytes + "next";
  ASSERT_TRUE(DecodeFrame(with_next, 1 << 20, &frame).ok());
  EXPECT_EQ(frame.control, "hello");
  ASSERT_EQ(frame.parts.size(), 3u);
  EXPECT_EQ(frame.parts[0]->view(), "abc");
  EXPECT_EQ(frame.parts[2]->size(), 1000u);
}

TEST(Frame, EveryFlippedByteIsRejectedOrHarmless) {
  PartList parts{HeapBuffer::CopyOf("abc"), HeapBuffer::CopyOf("defg")};
  auto header = MakeFrameHeader(FrameKind::kReply, MethodId::kPushTask, 1, 0, 5, parts, 4096);
  std::string good;
  AppendFrame(*header, "hello", parts, &good);
  for (size_t i = 0; i < good.size(); ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string bad = good;
      bad[i] = static_cast<char>(bad[i] ^ (1 << bit));
      DecodedFrame frame;
      auto used = DecodeFrame(bad, 4096, &frame);
      if (used.ok()) {
        EXPECT_LE(*used, bad.size());
      } else {
        EXPECT_EQ(used.status().code(), StatusCode::kDataLoss);
      }
    }
  }
}

TEST(Frame, TooLarge) {
  EXPECT_FALSE(MakeFrameHeader(FrameKind::kReply, MethodId::kPushTask, 1, 0, 101, {}, 100).ok());
  EXPECT_FALSE(MakeFrameHeader(FrameKind::kReply, MethodId::kPushTask, 1, 0, 0, PartList(65536, HeapBuffer::CopyOf("")), 1 << 30).ok());
}

class PendingCallsTest : public testing::Test {
 protected:
  void SetUp() override {
    loop_ = EpollLoop::Make({}).value();
    ASSERT_TRUE(loop_->Start().ok());
  }
  void TearDown() override { loop_->Stop(); }
  void OnLoop(std::function<void()> fn) {
    Waiter done;
    loop_->Post("test", [&] {
      fn();
      done.Notify();
    });
    while (loop_->Wait(&done, Time::Infinite()) != async::WaitResult::kDone) {
    }
  }
  std::unique_ptr<EpollLoop> loop_;
};

TEST_F(PendingCallsTest, CompletesOnceAndIdsAreNotReused) {
  PendingCalls calls(loop_.get());
  int runs = 0;
  uint64_t first = calls.Add([&](Status status, Reply reply) { runs += status.ok() && reply.control == "r"; }, {});
  OnLoop([&] {
    EXPECT_TRUE(calls.Complete(first, {}, Reply("r")));
    EXPECT_FALSE(calls.Complete(first, {}, Reply("r")));
  });
  EXPECT_EQ(runs, 1);
  EXPECT_NE(calls.Add([](Status, Reply) {}, {}), first);
  OnLoop([&] { calls.FailAll(Status::Unavailable("end")); });
}

TEST_F(PendingCallsTest, TimeoutsInOrderOfTheirDeadlines) {
  PendingCalls calls(loop_.get());
  std::vector<int> order;
  Waiter done;
  auto add = [&](int n, Duration timeout) {
    return calls.Add(
        [&order, &done, n](Status status, Reply) {
          EXPECT_EQ(status.code(), StatusCode::kDeadlineExceeded);
          order.push_back(n);
          if (order.size() == 3) done.Notify();
        },
        timeout);
  };
  add(3, milliseconds(30));
  add(1, milliseconds(5));
  add(2, milliseconds(15));
  uint64_t answered = calls.Add([](Status status, Reply) { EXPECT_TRUE(status.ok()); }, milliseconds(1000));
  OnLoop([&] { calls.Complete(answered, {}, {}); });
  while (loop_->Wait(&done, Time::Infinite()) != async::WaitResult::kDone) {
  }
  EXPECT_EQ(order, (std::vector<int>{1, 2, 3}));
  EXPECT_EQ(calls.size(), 0u);
}

TEST_F(PendingCallsTest, FailAllThenAdd) {
  PendingCalls calls(loop_.get());
  int failed = 0;
  auto callback = [&](Status status, Reply) { failed += status.code() == StatusCode::kUnavailable; };
  for (int i = 0; i < 10; ++i) calls.Add(callback, std::chrono::seconds(100));
  OnLoop([&] { calls.FailAll(Status::Unavailable("end")); });
  EXPECT_EQ(failed, 10);
  EXPECT_EQ(calls.Add(callback, {}), 0u);
  OnLoop([] {});
  EXPECT_EQ(failed, 11);
}

TEST_F(PendingCallsTest, DescriptorNotTakenIsClosed) {
  PendingCalls calls(loop_.get());
  int fds[2];
  ASSERT_EQ(pipe(fds), 0);
  uint64_t id = calls.Add([](Status, Reply) {}, {});
  OnLoop([&] { calls.Complete(id, {}, Reply({}, {}, fds[0])); });
  EXPECT_EQ(fcntl(fds[0], F_GETFD), -1);
  OnLoop([&] { calls.Complete(id, {}, Reply({}, {}, fds[1])); });
  EXPECT_EQ(fcntl(fds[1], F_GETFD), -1);
}

TEST(DispatcherTest, UnknownMethodsDoNotCrash) {
  Dispatcher dispatcher;
  dispatcher.Dispatch(Request{static_cast<MethodId>(60000), {}, {}, nullptr, true}, Responder());
  int seen = 0;
  dispatcher.RegisterFallback([&](Request, Responder) { ++seen; });
  dispatcher.Dispatch(Request{static_cast<MethodId>(60000), {}, {}, nullptr, true}, Responder());
  EXPECT_EQ(seen, 1);
}

// Whoever may send us anything may send that, and the handler would answer where nobody asked.
TEST(DispatcherTest, OneWayMessagesOfMethodsThatAreAnsweredAreDropped) {
  Dispatcher dispatcher;
  int handled = 0;
  const auto count = [&](const Request&, const Responder&) { ++handled; };
  dispatcher.Register(MethodId::kStoreStats, count);
  dispatcher.Register(MethodId::kStoreSeal, count);
  dispatcher.RegisterFallback(count);
  dispatcher.Dispatch(Request{MethodId::kStoreStats, {}, {}, nullptr, true}, Responder());
  dispatcher.Dispatch(Request{MethodId::kKvGet, {}, {}, nullptr, true}, Responder());
  EXPECT_EQ(handled, 0);
  dispatcher.Dispatch(Request{MethodId::kStoreSeal, {}, {}, nullptr, true}, Responder());
  dispatcher.Dispatch(Request{MethodId::kStoreStats, {}, {}, nullptr, false}, Responder());
  EXPECT_EQ(handled, 2);
  // A peer that goes on sending them does not fill the log.
  testing::internal::CaptureStderr();
  for (int i = 0; i < 1000; ++i) dispatcher.Dispatch(Request{MethodId::kKvPut, {}, {}, nullptr, true}, Responder());
  const std::string log = testing::internal::GetCapturedStderr();
  EXPECT_EQ(std::count(log.begin(), log.end(), '\n'), 10) << log;
  EXPECT_EQ(handled, 2);
}

}  // namespace
}  // namespace ray::rpc
