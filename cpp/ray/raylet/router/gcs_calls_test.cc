#include "ray/raylet/router/gcs_calls.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace ray::raylet {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

// Keeps what is called; answers when told.
class FakeLink final : public rpc::Connection {
 public:
  void Call(MethodId method, const rpc::MessageLite& request, const PartList& parts, rpc::ReplyCallback callback,
            rpc::CallOptions options) override {
    CallRaw(method, request.SerializeAsString(), parts, std::move(callback), options);
  }
  void CallRaw(MethodId, std::string_view control, const PartList&, rpc::ReplyCallback callback, rpc::CallOptions) override {
    called.emplace_back(control);
    callbacks.push_back(std::move(callback));
  }
  void Notify(MethodId, const rpc::MessageLite&, const PartList&, bool) override {}
  void NotifyRaw(MethodId, std::string_view, const PartList&) override {}
  void Flush() override {}
  void Close(Status reason) override {
    closed_ = true;
    auto all = std::exchange(callbacks, {});
    // In no order, as carriers do.
    for (auto it = all.rbegin(); it != all.rend(); ++it) (*it)(reason, {});
  }
  bool closed() const override { return closed_; }
  void OnClose(std::function<void(const Status&)>) override {}
  uint64_t id() const override { return 1; }
  int64_t peer_pid() const override { return -1; }
  size_t unsent_bytes() const override { return 0; }
  void Answer(size_t i, const Status& status, const std::string& reply = "") {
    auto callback = std::move(callbacks.at(i));
    callbacks.erase(callbacks.begin() + static_cast<std::ptrdiff_t>(i));
    callback(status, rpc::Reply(reply));
  }

  std::vector<std::string> called;
  std::vector<rpc::ReplyCallback> callbacks;

 protected:
  void SendReply(MethodId, uint64_t, rpc::FrameKind, std::string_view, const rpc::MessageLite*, const PartList&, int, bool) override {}

 private:
  bool closed_ = false;
};

class GcsCallsTest : public testing::Test {
 protected:
  void Call(const std::string& text) {
    calls_.Call(MethodId::kKvPut, text, {}, [this, text](const Status& status, const rpc::Reply& reply) {
      answers_.push_back(text + ": " + (status.ok() ? std::string(reply.control) : std::string(StatusCodeName(status.code()))));
    });
  }
  std::shared_ptr<FakeLink> NewLink() {
    auto link = std::make_shared<FakeLink>();
    calls_.SetLink(link);
    return link;
  }
  GcsCalls calls_{100};
  std::vector<std::string> answers_;
};

TEST_F(GcsCallsTest, WithoutALinkThereWasNone) {
  Call("a");
  EXPECT_THAT(answers_, ElementsAre("a: UNAVAILABLE"));
}

TEST_F(GcsCallsTest, AnswersGoBack) {
  const auto link = NewLink();
  Call("a");
  Call("b");
  link->Answer(1, {}, "2");
  link->Answer(0, Status::NotFound("no"));
  EXPECT_THAT(answers_, ElementsAre("b: 2", "a: NOT_FOUND"));
  EXPECT_EQ(calls_.num_pending(), 0u);
}

TEST_F(GcsCallsTest, WhatWasNotAnsweredIsAskedAgainInOrder) {
  const auto first = NewLink();
  for (const char* text : {"a", "b", "c", "d"}) Call(text);
  first->Answer(1, {}, "done");
  first->Close(Status::Unavailable("killed"));
  calls_.Wait();
  Call("e");
  EXPECT_THAT(answers_, ElementsAre("b: done"));
  const auto second = NewLink();
  EXPECT_THAT(second->called, ElementsAre("a", "c", "d", "e"));
  while (!second->callbacks.empty()) second->Answer(0, {}, "ok");
  EXPECT_THAT(answers_, ElementsAre("b: done", "a: ok", "c: ok", "d: ok", "e: ok"));
}

TEST_F(GcsCallsTest, LinkThatDiesAgainLosesNothing) {
  const auto first = NewLink();
  Call("a");
  first->Close(Status::Unavailable("killed"));
  const auto second = NewLink();
  second->Close(Status::Unavailable("killed again"));
  calls_.Wait();
  const auto third = NewLink();
  third->Answer(0, {}, "ok");
  EXPECT_THAT(answers_, ElementsAre("a: ok"));
}

TEST_F(GcsCallsTest, LateWordsOfAnEarlierLinkDoNotCount) {
  const auto first = NewLink();
  Call("a");
  const auto second = NewLink();  // before the end of the first was noticed
  first->Answer(0, Status::Internal("late"));
  EXPECT_THAT(answers_, IsEmpty());
  second->Answer(0, {}, "ok");
  EXPECT_THAT(answers_, ElementsAre("a: ok"));
}

TEST_F(GcsCallsTest, GivenUpEverythingFails) {
  const auto link = NewLink();
  Call("a");
  link->Close(Status::Unavailable("killed"));
  calls_.Wait();
  Call("b");
  calls_.Fail(Status::Unavailable("too long"));
  Call("c");
  EXPECT_THAT(answers_, ElementsAre("a: UNAVAILABLE", "b: UNAVAILABLE", "c: UNAVAILABLE"));
}

TEST_F(GcsCallsTest, WaitingIsBounded) {
  NewLink()->Close(Status::Unavailable("killed"));
  calls_.Wait();
  Call(std::string(90, 'a'));
  Call(std::string(20, 'b'));
  ASSERT_EQ(answers_.size(), 1u);
  EXPECT_EQ(answers_[0], std::string(20, 'b') + ": RESOURCE_EXHAUSTED");
  const auto link = NewLink();
  link->Answer(0, {}, "ok");
  calls_.Wait();
  Call(std::string(20, 'c'));
  EXPECT_EQ(answers_.size(), 2u) << "room again";
}

TEST_F(GcsCallsTest, CallbackMayCall) {
  const auto link = NewLink();
  calls_.Call(MethodId::kKvPut, "a", {}, [this](const Status&, const rpc::Reply&) { Call("b"); });
  link->Answer(0, {});
  EXPECT_THAT(link->called, ElementsAre("a", "b"));
}

}  // namespace
}  // namespace ray::raylet
