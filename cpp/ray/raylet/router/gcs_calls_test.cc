#include "ray/raylet/router/gcs_calls.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "ray/raylet/router/fake_link.h"

namespace ray::raylet {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

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
