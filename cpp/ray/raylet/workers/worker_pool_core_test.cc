#include "ray/raylet/workers/worker_pool_core.h"

#include <gtest/gtest.h>

namespace ray::raylet {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

template <typename Id>
Id Named(uint8_t n) {
  Id id;
  for (size_t i = 0; i < Id::kSize; ++i) id.mutable_data()[i] = n;
  return id;
}

// Workers are numbered from 1 in the order of their starts, as their tokens are; effects are shown as text.
class WorkerPool : public testing::Test {
 protected:
  void Make(WorkerPoolConfig config) {
    core_.emplace(config, [this] { return Named<WorkerId>(++last_); });
  }
  static WorkerPoolConfig Config() {
    WorkerPoolConfig config;
    config.max_parallel_starts = 2;
    config.max_idle = 2;
    config.prestart = 2;
    return config;
  }
  static WorkerKey Key(uint8_t job, std::string env = "") { return {Named<JobId>(job), std::move(env)}; }
  template <typename F>
  std::string Do(F f) {
    PoolEffects out;
    f(&out);
    std::string text;
    auto add = [&text](const std::string& s) { text += (text.empty() ? "" : ", ") + s; };
    auto n = [](const auto& id) { return std::to_string(id.data()[0]); };
    for (const auto& effect : out) {
      if (const auto* a = std::get_if<WorkerAssigned>(&effect)) add("lease " + n(a->lease) + " gets " + n(a->worker));
      if (const auto* f2 = std::get_if<WorkerFork>(&effect)) add("fork " + n(f2->worker));
      if (const auto* e = std::get_if<WorkerAskExit>(&effect)) add("exit " + n(e->worker));
      if (const auto* k = std::get_if<WorkerKill>(&effect)) add("kill " + n(k->worker));
      if (const auto* p = std::get_if<WorkerPopFailed>(&effect)) add("fail " + n(p->lease));
    }
    return text;
  }
  std::string Pop(uint8_t lease, uint8_t job = 1, bool fresh = false, bool actor = false) {
    return Do([&](PoolEffects* out) { core_->Pop(Named<LeaseId>(lease), Key(job), fresh, actor, now_, out); });
  }
  std::string Up(uint8_t worker) {
    return Do([&](PoolEffects* out) { EXPECT_TRUE(core_->Registered(Named<WorkerId>(worker), worker, now_, out)); });
  }
  std::string Back(uint8_t worker, bool reusable = true) {
    now_ = now_ + milliseconds(1);
    return Do([&](PoolEffects* out) { core_->Returned(Named<WorkerId>(worker), reusable, now_, out); });
  }
  std::string Dead(uint8_t worker) {
    return Do([&](PoolEffects* out) { core_->Died(Named<WorkerId>(worker), "gone", WorkerEnd::kFailed, now_, out); });
  }
  std::string Tick() {
    return Do([&](PoolEffects* out) { core_->Tick(now_, out); });
  }

  uint8_t last_ = 0;
  Time now_;
  std::optional<WorkerPoolCore> core_;
};

TEST_F(WorkerPool, StartsOnDemandAndReusesTheMostRecent) {
  Make(Config());
  EXPECT_EQ(Pop(1), "fork 1");
  EXPECT_EQ(Pop(2), "fork 2");
  EXPECT_EQ(Up(1), "lease 1 gets 1");
  EXPECT_EQ(Up(2), "lease 2 gets 2");
  EXPECT_EQ(Back(2), "");
  EXPECT_EQ(Back(1), "");
  EXPECT_EQ(Pop(3), "lease 3 gets 1");
  EXPECT_EQ(Pop(4), "lease 4 gets 2");
}

TEST_F(WorkerPool, StartsAreCappedAndReturnsServeThoseWhoWait) {
  Make(Config());
  EXPECT_EQ(Pop(1), "fork 1");
  EXPECT_EQ(Pop(2), "fork 2");
  EXPECT_EQ(Pop(3), "");
  EXPECT_EQ(Up(1), "lease 1 gets 1, fork 3");
  EXPECT_EQ(Back(1), "lease 2 gets 1");
  EXPECT_EQ(Up(2), "lease 3 gets 2");
  EXPECT_EQ(Up(3), "");
  EXPECT_EQ(core_->StateOf(Named<WorkerId>(3)), WorkerState::kIdle);
}

// A node that lives for long sees the end of more jobs than it can remember.
TEST_F(WorkerPool, TheLastJobsThatEndedAreRemembered) {
  Make(Config());
  Pop(1);
  Pop(2);
  Up(1);
  Up(2);
  const auto finish = [this](const JobId& job) {
    return Do([&](PoolEffects* out) {
      core_->JobFinished(
          job, [](const WorkerId&) { return true; }, [](const LeaseId&) { return true; }, now_, out);
    });
  };
  finish(Key(1).job);
  for (uint32_t job = 1; job < 100; ++job) finish(JobId::FromInt(job));
  EXPECT_EQ(Back(1), "exit 1");
  for (uint32_t job = 100; job < 10000; ++job) finish(JobId::FromInt(job));
  EXPECT_EQ(Back(2), "");  // idle, as any other
}

TEST_F(WorkerPool, JobsDoNotShareWorkers) {
  Make(Config());
  Pop(1, 1);
  Up(1);
  Back(1);
  EXPECT_EQ(Pop(2, 2), "fork 2");
}

TEST_F(WorkerPool, FreshMeansHasRunNothing) {
  Make(Config());
  Pop(1);
  Up(1);
  Back(1);
  EXPECT_EQ(Pop(2, 1, /*fresh=*/true), "fork 2");
  EXPECT_EQ(Up(2), "lease 2 gets 2");
}

TEST_F(WorkerPool, ActorsAndSpoiledWorkersAreNotReused) {
  Make(Config());
  Pop(1, 1, false, /*actor=*/true);
  Up(1);
  EXPECT_EQ(core_->StateOf(Named<WorkerId>(1)), WorkerState::kActor);
  Back(1);
  Pop(2);
  Up(2);
  Back(2, /*reusable=*/false);
  EXPECT_EQ(Pop(3), "fork 3");
}

TEST_F(WorkerPool, PrestartsForANewJob) {
  Make(Config());
  auto start = [&] { return Do([&](PoolEffects* out) { core_->JobStarted(Named<JobId>(1), now_, out); }); };
  EXPECT_EQ(start(), "fork 1, fork 2");
  EXPECT_EQ(Pop(1), "");
  EXPECT_EQ(Up(1), "lease 1 gets 1");
  EXPECT_EQ(Up(2), "");
  EXPECT_EQ(Pop(2), "lease 2 gets 2");
}

TEST_F(WorkerPool, IdleWorkersBeyondTheLimitLeaveOldestFirst) {
  Make(Config());
  for (uint8_t i = 1; i <= 4; ++i) {
    Pop(i);
    Up(i);
  }
  for (uint8_t i = 1; i <= 4; ++i) Back(i);
  EXPECT_EQ(core_->NextDeadline(), Time{} + milliseconds(1) + seconds(1));
  EXPECT_EQ(Tick(), "");
  now_ = Time{} + seconds(2);
  EXPECT_EQ(Tick(), "exit 1, exit 2");
  EXPECT_TRUE(core_->NextDeadline().is_infinite());
  EXPECT_EQ(Dead(1), "");
  EXPECT_EQ(Pop(5), "lease 5 gets 4");
}

TEST_F(WorkerPool, FailedStartsAreTriedAgainThenTold) {
  Make(Config());
  EXPECT_EQ(Pop(1), "fork 1");
  EXPECT_EQ(Dead(1), "fork 2");
  EXPECT_EQ(Dead(2), "fail 1");
  EXPECT_EQ(Pop(2), "fork 3");
  EXPECT_EQ(Up(3), "lease 2 gets 3");
}

TEST_F(WorkerPool, SilentStartsAreKilledAndNoLongerWelcome) {
  Make(Config());
  Pop(1);
  now_ = Time{} + seconds(30);
  EXPECT_EQ(Tick(), "kill 1");
  EXPECT_EQ(Tick(), "");
  PoolEffects out;
  EXPECT_FALSE(core_->Registered(Named<WorkerId>(1), 1, now_, &out));
  EXPECT_EQ(Dead(1), "fork 2");
  EXPECT_FALSE(core_->Registered(Named<WorkerId>(2), 9, now_, &out));
}

TEST_F(WorkerPool, AJobsEndTakesItsWorkers) {
  Make(Config());
  Pop(1);
  Up(1);
  Pop(2);
  Up(2);
  Pop(3);
  Pop(4, 2);
  EXPECT_EQ(Do([&](PoolEffects* out) {
              core_->JobFinished(
                  Named<JobId>(1), [](const WorkerId& w) { return w == Named<WorkerId>(2); }, [](const LeaseId&) { return false; }, now_,
                  out);
            }),
            "fail 3, kill 1, kill 3");
  EXPECT_EQ(Back(2), "exit 2");
  EXPECT_EQ(Dead(3), "");
  EXPECT_EQ(Up(4), "lease 4 gets 4");
}

TEST_F(WorkerPool, CancelledRequestsGetNothing) {
  Make(Config());
  Pop(1);
  EXPECT_TRUE(core_->CancelPop(Named<LeaseId>(1)));
  EXPECT_FALSE(core_->CancelPop(Named<LeaseId>(1)));
  EXPECT_EQ(Up(1), "");
}

}  // namespace
}  // namespace ray::raylet
