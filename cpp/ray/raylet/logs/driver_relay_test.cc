#include "ray/raylet/logs/driver_relay.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace ray::raylet {
namespace {

class DriverRelayTest : public testing::Test {
 protected:
  DriverRelayHooks Hooks() {
    return {[this](const JobId& job, std::function<void(std::optional<NodeId>)> done) { asked_.emplace_back(job, std::move(done)); },
            [this](const NodeId&) { return unsent_; },
            [this](const NodeId& node, const v1::LogLinesNotice& lines) {
              for (const std::string& line : lines.lines()) sent_.push_back((node == far_ ? "far " : "? ") + line);
            },
            [this](const NodeId& node, const v1::DriverMessageNotice& message) {
              sent_.push_back((node == far_ ? "far message " : "? ") + message.message());
            }};
  }
  void Print(const std::string& line) {
    v1::LogLinesNotice notice;
    notice.add_lines(line);
    relay_->Lines(job_, notice);
  }
  void Say(const std::string& text) {
    v1::DriverMessageNotice notice;
    notice.set_message(text);
    relay_->Message(job_, notice);
  }
  void Answer(std::optional<NodeId> node) {
    const auto asked = std::exchange(asked_, {});
    for (const auto& [job, done] : asked) done(node);
  }

  const NodeId self_ = NodeId::FromRandom(), far_ = NodeId::FromRandom();
  const JobId job_ = JobId::FromInt(1);
  std::vector<std::pair<JobId, std::function<void(std::optional<NodeId>)>>> asked_;
  std::optional<size_t> unsent_ = 0;
  std::vector<std::string> sent_;
  std::optional<DriverRelay> relay_{std::in_place, self_, DriverRelayConfig{.max_kept = 3, .max_jobs = 2, .max_unsent_bytes = 100},
                                    Hooks()};
};

TEST_F(DriverRelayTest, TheDriverIsLookedForOnceAndWhatCameMeanwhileIsSentInOrder) {
  Print("a");
  Say("b");
  EXPECT_EQ(asked_.size(), 1u);
  EXPECT_TRUE(sent_.empty());
  Answer(far_);
  Print("c");
  EXPECT_TRUE(asked_.empty());
  EXPECT_EQ(sent_, (std::vector<std::string>{"far a", "far message b", "far c"}));
}

TEST_F(DriverRelayTest, WhatIsForThisNodeOrForNobodyStays) {
  for (const NodeId& node : {self_, NodeId::Nil()}) {
    Print("a");
    Answer(node);
    Print("b");
    EXPECT_TRUE(sent_.empty());
    relay_.emplace(self_, DriverRelayConfig{}, Hooks());
  }
}

TEST_F(DriverRelayTest, OnlySoManyJobsAreRemembered) {
  for (uint32_t i = 1; i <= 3; ++i) {
    v1::LogLinesNotice notice;
    notice.add_lines("x");
    relay_->Lines(JobId::FromInt(i), notice);
    Answer(far_);
  }
  Print("again");
  EXPECT_EQ(asked_.size(), 1u) << "job 1 was forgotten for job 3";
}

TEST_F(DriverRelayTest, ASearchThatFailedIsRepeated) {
  Print("a");
  Answer(std::nullopt);
  EXPECT_TRUE(sent_.empty());
  Print("b");
  EXPECT_EQ(asked_.size(), 1u);
  Answer(far_);
  EXPECT_EQ(sent_, (std::vector<std::string>{"far b"}));
}

TEST_F(DriverRelayTest, ASlowDriverLosesLinesAndIsToldHowMany) {
  Print("a");
  Answer(far_);
  unsent_ = 101;
  Print("b");
  Print("c");
  Say("still comes");
  unsent_ = std::nullopt;
  Print("d");
  unsent_ = 100;
  Print("e");
  EXPECT_EQ(sent_, (std::vector<std::string>{"far a", "far message still comes",
                                             "far [3 lines of this node came too fast and were left out here; they are in its log files]",
                                             "far e"}));
}

TEST_F(DriverRelayTest, LittleIsKeptWhileTheDriverIsLookedFor) {
  for (const char* line : {"1", "2", "3", "4", "5"}) Print(line);
  Answer(far_);
  ASSERT_EQ(sent_.size(), 4u) << "three, and what is said of the others before the first";
  EXPECT_TRUE(sent_[0].find("[2 lines") != std::string::npos);
}

TEST_F(DriverRelayTest, AnAnswerAfterTheEndIsHarmless) {
  Print("a");
  relay_.reset();
  Answer(far_);
  EXPECT_TRUE(sent_.empty());
}

}  // namespace
}  // namespace ray::raylet
