#include "ray/raylet/logs/log_tailer.h"

#include <gtest/gtest.h>
#include <stdio.h>
#include <stdlib.h>

#include <fstream>
#include <future>

#include "ray/testing/promise/promise.h"
#include "ray/util/fs.h"

namespace ray::raylet {
namespace {

class LogTailerTest : public testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/log_tailer_XXXXXX";
    dir_ = mkdtemp(name);
    loop_ = std::move(*async::EpollLoop::Make({}));
    ASSERT_TRUE(loop_->Start().ok());
  }
  void TearDown() override {
    OnLoop([this] { tailer_.reset(); });
    loop_->Stop();
    (void)RemoveTree(dir_).ok();
  }
  template <typename F>
  void OnLoop(F fn) {
    RunOnLoop(loop_.get(), std::move(fn));
  }
  void MakeTailer(LogTailer::Sink sink) {
    OnLoop([&] { tailer_ = std::move(*LogTailer::Make(dir_, loop_.get(), std::chrono::milliseconds(1), std::move(sink))); });
  }
  void Append(const std::string& ending, const std::string& text) {
    std::ofstream(dir_ + "/" + WorkerLogName(worker_, job_, 42) + ending, std::ios::app) << text << std::flush;
  }

  std::string dir_;
  WorkerId worker_ = WorkerId::FromRandom();
  JobId job_ = JobId::FromInt(1);
  std::unique_ptr<async::EpollLoop> loop_;
  std::unique_ptr<LogTailer> tailer_;
};

TEST_F(LogTailerTest, PassesOnWhatIsAppended) {
  TestPromise<WorkerLines> got;
  MakeTailer([got](WorkerLines lines) { got.set_value(std::move(lines)); });
  OnLoop([&] { tailer_->Track(worker_, job_, 42); });
  Append(".err", "\x1eray-name f\nhello\n");
  const WorkerLines lines = got.get_future().get();
  EXPECT_EQ(lines.job, job_);
  EXPECT_EQ(lines.pid, 42);
  EXPECT_TRUE(lines.is_stderr);
  EXPECT_EQ(lines.batch, (LineSplitter::Batch{"f", {"hello"}}));
}

TEST_F(LogTailerTest, UntrackDrainsTheLastWords) {
  std::vector<std::string> got;
  MakeTailer([&](WorkerLines lines) { got.insert(got.end(), lines.batch.lines.begin(), lines.batch.lines.end()); });
  Append(".out", "early\n");
  OnLoop([&] { tailer_->Track(worker_, job_, 42); });
  Append(".out", "late\nlast words");
  OnLoop([&] { tailer_->Untrack(worker_); });
  EXPECT_EQ(got, (std::vector<std::string>{"early", "late", "last words"}));
}

TEST_F(LogTailerTest, FollowsRotatedFilesInOrder) {
  std::vector<std::string> got;
  MakeTailer([&](WorkerLines lines) { got.insert(got.end(), lines.batch.lines.begin(), lines.batch.lines.end()); });
  const std::string base = dir_ + "/" + WorkerLogName(worker_, job_, 42) + ".out";
  Append(".out", "1\n");
  OnLoop([&] {
    tailer_->Track(worker_, job_, 42);
    tailer_->Drain(worker_);
    Append(".out", "2\n");
    for (const char* line : {"3\n", "4\n"}) {  // twice between two looks
      (void)rename((base + ".1").c_str(), (base + ".2").c_str());
      ASSERT_EQ(rename(base.c_str(), (base + ".1").c_str()), 0);
      Append(".out", line);
    }
    tailer_->Untrack(worker_);
  });
  EXPECT_EQ(got, (std::vector<std::string>{"1", "2", "3", "4"}));
}

TEST_F(LogTailerTest, BeginsWithTheOldestOfFilesThatWereRotatedBefore) {
  std::vector<std::string> got;
  MakeTailer([&](WorkerLines lines) { got.insert(got.end(), lines.batch.lines.begin(), lines.batch.lines.end()); });
  Append(".out.2", "1\n");
  Append(".out.1", "2\n");
  Append(".out", "3\n");
  OnLoop([&] {
    tailer_->Track(worker_, job_, 42);
    tailer_->Untrack(worker_);
  });
  EXPECT_EQ(got, (std::vector<std::string>{"1", "2", "3"}));
}

}  // namespace
}  // namespace ray::raylet
