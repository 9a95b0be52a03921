#include "ray/core_worker/submit/lease_pool_core.h"

#include <gtest/gtest.h>

#include <string>

namespace ray::core {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;

// Drives a core; effects as text, "push 1>10" = task 10 to lease 1.
class Pool {
 public:
  LeasePoolCore core{LeasePoolConfig{}};
  Time now{1'000'000'000};
  std::string Take() {
    std::string text;
    for (const LeaseEffect& e : out) {
      if (!text.empty()) text += ", ";
      std::string lease = std::to_string(e.lease), task = std::to_string(e.task);
      switch (e.kind) {
        case LeaseEffect::kRequest: text += "request " + lease; break;
        case LeaseEffect::kCancelRequest: text += "cancel " + lease; break;
        case LeaseEffect::kPush: text += "push " + lease + ">" + task; break;
        case LeaseEffect::kSteal: text += "steal " + lease + "x" + std::to_string(e.count); break;
        case LeaseEffect::kReturn:
          text += std::string("return ") + lease + (e.worker_failed ? " failed" : "") + (e.worker_exiting ? " exiting" : "");
          break;
        case LeaseEffect::kLost: text += "lost " + task; break;
        case LeaseEffect::kFail: text += "fail " + task; break;
      }
    }
    out.clear();
    return text;
  }
  std::string Submit(TaskNo task, uint64_t tmpl = 1) {
    core.Submit(task, 0, tmpl, now, &out);
    return Take();
  }
  std::string Grant(LeaseNo lease) {
    core.Granted(lease, now, &out);
    return Take();
  }
  std::string Done(LeaseNo lease, TaskNo task, Duration run, bool exiting = false) {
    core.Done(lease, task, run, exiting, now, &out);
    return Take();
  }
  std::string Returned(LeaseNo lease, TaskNo task) {
    core.Returned(lease, task, now, &out);
    return Take();
  }
  std::string Lost(LeaseNo lease, bool heard_all = true) {
    core.WorkerLost(lease, heard_all, now, &out);
    return Take();
  }
  std::string Tick() {
    core.Tick(now, &out);
    return Take();
  }
  LeaseEffects out;
};

TEST(LeasePoolCore, LeaseIsReusedAndReturnedWhenIdle) {
  Pool p;
  EXPECT_EQ(p.Submit(10), "request 1");
  EXPECT_EQ(p.Grant(1), "push 1>10");
  EXPECT_EQ(p.Done(1, 10, microseconds(10)), "");
  EXPECT_EQ(p.Submit(11), "push 1>11");
  EXPECT_EQ(p.Done(1, 11, microseconds(10)), "");
  EXPECT_EQ(p.core.NextTick(), p.now + milliseconds(100));
  p.now = p.now + milliseconds(100);
  EXPECT_EQ(p.Tick(), "return 1");
  EXPECT_TRUE(p.core.NextTick().is_infinite());
}

TEST(LeasePoolCore, ShortTasksArePipelinedAndLongOnesAreNot) {
  Pool p;
  p.Submit(1);
  p.Grant(1);
  EXPECT_EQ(p.Submit(2), "push 1>2, request 2");  // unknown cost: two at a time, and more workers are asked for
  p.Done(1, 1, microseconds(10));
  EXPECT_EQ(p.Done(1, 2, microseconds(10)), "");
  for (TaskNo t = 3; t < 90; ++t) EXPECT_EQ(p.Submit(t), "push 1>" + std::to_string(t));
  Pool q;
  q.Submit(1);
  q.Grant(1);
  q.Done(1, 1, milliseconds(50));
  EXPECT_EQ(q.Submit(2), "push 1>2");
  EXPECT_EQ(q.Submit(3), "request 2");
}

TEST(LeasePoolCore, NewLeaseStealsFromTheBusy) {
  Pool p;
  p.Submit(1);
  p.Grant(1);
  EXPECT_EQ(p.Submit(2), "push 1>2, request 2");
  EXPECT_EQ(p.Grant(2), "steal 1x1");
  EXPECT_EQ(p.Returned(1, 2), "push 2>2");
  // The one that handed back gets nothing before it finishes what it runs.
  EXPECT_EQ(p.Submit(3), "push 2>3, request 3");
}

TEST(LeasePoolCore, WhatAWorkerOfALostNodeHadGoesToNoneOfTheOthersOfThatNode) {
  Pool p;
  p.Submit(1);
  p.Grant(1);
  EXPECT_EQ(p.Submit(2), "push 1>2, request 2");
  EXPECT_EQ(p.Submit(3), "request 3");
  EXPECT_EQ(p.Grant(2), "push 2>3");
  EXPECT_EQ(p.Done(2, 3, microseconds(10)), "steal 1x1, cancel 3");  // idle, and would be given what is queued again
  const LeaseNo both[] = {1, 2};
  p.core.WorkersLost(both, /*heard_all=*/true, p.now, &p.out);
  EXPECT_EQ(p.Take(), "return 1 failed, lost 1, return 2 failed, request 4");
}

TEST(LeasePoolCore, OverdueHeadLosesItsFollowers) {
  Pool p;
  p.Submit(1);
  p.Grant(1);
  p.Done(1, 1, microseconds(10));
  p.Submit(2);
  EXPECT_EQ(p.Submit(3), "push 1>3");
  Time due = p.core.NextTick();
  EXPECT_LE(due, p.now + milliseconds(6));
  p.now = due;
  EXPECT_EQ(p.Tick(), "request 2");  // 2 runs longer than any before: 3 waits in earnest
  EXPECT_EQ(p.Grant(2), "steal 1x1");
  EXPECT_EQ(p.Returned(1, 3), "push 2>3");
}

TEST(LeasePoolCore, BlockedWorkerHandsBackAndIsLeftAlone) {
  Pool p;
  p.Submit(1);
  p.Grant(1);
  p.Submit(2);
  EXPECT_EQ(p.Returned(1, 2), "");
  EXPECT_EQ(p.core.queued(0), 1u);
  EXPECT_EQ(p.Grant(2), "push 2>2");
}

TEST(LeasePoolCore, LostWorkerChargesItsHeadOnly) {
  Pool p;
  p.Submit(1);
  p.Grant(1);
  p.Done(1, 1, microseconds(10));
  for (TaskNo t = 2; t < 5; ++t) p.Submit(t);
  EXPECT_EQ(p.Lost(1), "return 1 failed, lost 2, request 2, request 3");
  EXPECT_EQ(p.Grant(2), "push 2>3, push 2>4, cancel 3");
  EXPECT_EQ(p.Lost(1), "");
}

// Answers may be lost with the link: what came behind the head may have run as well.
TEST(LeasePoolCore, AWorkerThatCannotBeReachedChargesAllThatItHad) {
  Pool p;
  p.Submit(1);
  p.Grant(1);
  p.Done(1, 1, microseconds(10));
  for (TaskNo t = 2; t < 5; ++t) p.Submit(t);
  EXPECT_EQ(p.Lost(1, /*heard_all=*/false), "return 1 failed, lost 2, lost 3, lost 4");
  EXPECT_EQ(p.core.queued(0), 0u);
}

TEST(LeasePoolCore, RequestsAreBoundedAndCancelledWithTheBacklog) {
  Pool p;
  for (TaskNo t = 0; t < 100; ++t) p.Submit(t);
  EXPECT_EQ(p.core.requests(0), 16u);
  Pool q;
  q.Submit(1);
  q.Take();
  EXPECT_TRUE(q.core.RemoveQueued(1, 0, q.now, &q.out));
  EXPECT_EQ(q.Take(), "cancel 1");
  q.core.Refused(1, true, false, q.now, &q.out);
  EXPECT_EQ(q.Take(), "");
}

TEST(LeasePoolCore, RefusalBacksOffAndForGoodFails) {
  Pool p;
  p.Submit(1);
  p.core.Refused(1, false, false, p.now, &p.out);
  EXPECT_EQ(p.Take(), "");
  EXPECT_EQ(p.core.NextTick(), p.now + milliseconds(10));
  p.now = p.now + milliseconds(10);
  EXPECT_EQ(p.Tick(), "request 2");
  p.core.Refused(2, false, true, p.now, &p.out);
  EXPECT_EQ(p.Take(), "fail 1");
}

TEST(LeasePoolCore, ExitingWorkerGetsNoMore) {
  Pool p;
  p.Submit(1);
  p.Grant(1);
  EXPECT_EQ(p.Done(1, 1, microseconds(5), true), "return 1 exiting");
  EXPECT_EQ(p.Submit(2), "request 2");
}

TEST(LeasePoolCore, AYieldedLeaseGoesBackAfterTheTaskThatRuns) {
  Pool p;
  p.Submit(1);
  p.Grant(1);
  p.Submit(2);
  p.Submit(3);
  p.core.Yield(1, p.now, &p.out);
  EXPECT_EQ(p.Take(), "steal 1x1");
  EXPECT_EQ(p.Returned(1, 2), "");
  EXPECT_NE(p.Done(1, 1, microseconds(5)).find("return 1"), std::string::npos);
  EXPECT_EQ(p.core.queued(0), 2u);
  EXPECT_EQ(p.Grant(2).substr(0, 8), "push 2>2");
  p.core.Yield(99, p.now, &p.out);  // gone
  EXPECT_EQ(p.Take(), "");
}

TEST(LeasePoolCore, SingleUseLeasesServeOneTaskEach) {
  Pool p;
  p.core.SetSingleUse(0);
  EXPECT_EQ(p.Submit(1), "request 1");
  EXPECT_EQ(p.Submit(2), "request 2");
  EXPECT_EQ(p.Grant(1), "push 1>1");
  EXPECT_EQ(p.Done(1, 1, microseconds(5)), "return 1");
  EXPECT_EQ(p.Grant(2), "push 2>2");
}

TEST(LeasePoolCore, FanOutKeepsARequestAtEachPlace) {
  Pool p;
  p.core.SetFanOut(0, 3, p.now, &p.out);
  EXPECT_EQ(p.Submit(1), "request 1, request 2, request 3");
  EXPECT_EQ(p.Grant(2), "push 2>1, cancel 1, cancel 3");
}

TEST(LeasePoolCore, ReclaimReturnsIdleLeasesOnly) {
  Pool p;
  p.Submit(1);
  p.Grant(1);
  p.core.Reclaim(p.now, &p.out);
  EXPECT_EQ(p.Take(), "");
  p.Done(1, 1, microseconds(5));
  p.core.Reclaim(p.now, &p.out);
  EXPECT_EQ(p.Take(), "return 1");
}

TEST(LeasePoolCore, UnusedLeasesOfAClassGoBackAtOnce) {
  Pool p;
  p.Submit(1);
  p.Grant(1);
  p.core.Submit(2, 7, 1, p.now, &p.out);
  EXPECT_EQ(p.Take(), "request 2");
  p.Grant(2);
  p.core.ReturnUnused(7, &p.out);
  EXPECT_EQ(p.Take(), "") << "it runs something";
  p.Done(2, 2, microseconds(10));
  p.Done(1, 1, microseconds(10));
  p.core.ReturnUnused(7, &p.out);
  EXPECT_EQ(p.Take(), "return 2");
}

TEST(LeasePoolCore, ForgetsClassesThatNothingIsLeftOf) {
  Pool p;
  EXPECT_TRUE(p.core.Forget(0)) << "unknown";
  p.Submit(1);
  EXPECT_FALSE(p.core.Forget(0)) << "a task waits";
  p.core.RemoveQueued(1, 0, p.now, &p.out);
  EXPECT_EQ(p.Take(), "cancel 1");
  EXPECT_FALSE(p.core.Forget(0)) << "a request is unanswered";
  p.Grant(1);
  EXPECT_FALSE(p.core.Forget(0)) << "a lease is left";
  p.core.Reclaim(p.now, &p.out);
  EXPECT_EQ(p.Take(), "return 1");
  EXPECT_TRUE(p.core.Forget(0));
  EXPECT_EQ(p.Submit(2), "request 2") << "and it begins anew";
}

TEST(LeasePoolCore, TellsWhereATaskIs) {
  Pool p;
  for (TaskNo task = 1; task <= 4; ++task) p.Submit(task);
  EXPECT_EQ(p.core.QueuedBehind(3, 0), 2u);
  EXPECT_FALSE(p.core.PlaceOf(1, 1));
  p.Grant(1);  // two of a kind that never ran
  ASSERT_TRUE(p.core.PlaceOf(1, 2));
  EXPECT_EQ(p.core.PlaceOf(1, 2)->behind, 1u);
  EXPECT_EQ(p.core.PlaceOf(1, 1)->head_since, p.now);
  EXPECT_FALSE(p.core.QueuedBehind(1, 0));
  EXPECT_EQ(p.core.QueuedBehind(4, 0), 1u);
  EXPECT_FALSE(p.core.QueuedBehind(5, 0));
}

}  // namespace
}  // namespace ray::core
