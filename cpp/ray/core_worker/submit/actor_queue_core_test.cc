#include "ray/core_worker/submit/actor_queue_core.h"

#include <gtest/gtest.h>

#include <string>

namespace ray::core {
namespace {

class Queue {
 public:
  ActorQueueCore core;
  ActorEffects out;
  // "send 7#0@1" = call 7 as number 0 of epoch 1.
  std::string Take() {
    std::string text;
    for (const ActorEffect& e : out) {
      if (!text.empty()) text += ", ";
      std::string call = std::to_string(e.call);
      switch (e.kind) {
        case ActorEffect::kConnect: text += "connect"; break;
        case ActorEffect::kSend: text += "send " + call + "#" + std::to_string(e.sequence) + "@" + std::to_string(e.epoch); break;
        case ActorEffect::kRetried: text += "retried " + call; break;
        case ActorEffect::kFailUnavailable: text += "unavailable " + call; break;
        case ActorEffect::kFailDead: text += "dead " + call; break;
        case ActorEffect::kAwaitEnd: text += "await end @" + std::to_string(e.epoch); break;
      }
    }
    out.clear();
    return text;
  }
  std::string Submit(CallNo call, int32_t retries = 0, bool ready = true, bool ooo = false, bool charged = false) {
    core.Submit(call, ready, ooo, retries, charged, &out);
    return Take();
  }
  std::string Ready(CallNo call) {
    core.Ready(call, &out);
    return Take();
  }
  std::string Alive(uint64_t n, bool moved = false) {
    core.OnAlive(n, moved, &out);
    return Take();
  }
  std::string Connected() {
    core.Connected(&out);
    return Take();
  }
  std::string Lost(uint64_t epoch) {
    core.ConnectionLost(epoch, &out);
    return Take();
  }
  std::string Restarting(uint64_t n, bool moved = false) {
    core.OnRestarting(n, moved, &out);
    return Take();
  }
  std::string Dead() {
    core.OnDead(&out);
    return Take();
  }
};

TEST(ActorQueueCore, CallsWaitForTheActorAndLeaveInOrder) {
  Queue q;
  EXPECT_EQ(q.Submit(1), "");
  EXPECT_EQ(q.Submit(2), "");
  EXPECT_EQ(q.Alive(0), "connect");
  EXPECT_EQ(q.Connected(), "send 1#0@1, send 2#1@1");
  EXPECT_EQ(q.Alive(0), "");
  EXPECT_EQ(q.Submit(3), "send 3#2@1");
  EXPECT_TRUE(q.core.Answered(1, 0));
  EXPECT_FALSE(q.core.Answered(1, 0));
  EXPECT_TRUE(q.core.Answered(1, 2));
  EXPECT_EQ(q.core.pending(), 1u);
  EXPECT_EQ(q.Submit(4), "send 4#3@1");
}

TEST(ActorQueueCore, UnreadyArgumentsHoldUpLaterCallsOnly) {
  Queue q;
  q.Alive(0);
  q.Connected();
  EXPECT_EQ(q.Submit(1, 0, false), "");
  EXPECT_EQ(q.Submit(2), "");
  EXPECT_EQ(q.Submit(3, 0, true, true), "send 3#0@1");
  EXPECT_EQ(q.Ready(1), "send 1#1@1, send 2#2@1");
}

TEST(ActorQueueCore, RestartResendsThoseWithRetriesInOrder) {
  Queue q;
  q.Alive(0);
  q.Connected();
  q.Submit(1, 1);
  q.Submit(2, 0);
  q.Submit(3, -1);
  EXPECT_EQ(q.Lost(1), "");
  EXPECT_FALSE(q.core.Answered(1, 0));
  EXPECT_EQ(q.Submit(4, 2), "");
  EXPECT_EQ(q.Restarting(1), "retried 1, unavailable 2, retried 3");
  EXPECT_EQ(q.Submit(5, 0), "unavailable 5");  // no call without retries waits for a restart
  EXPECT_EQ(q.Alive(1), "connect");
  EXPECT_EQ(q.Connected(), "send 1#0@2, send 3#1@2, send 4#2@2");
  // The second loss: call 1 has used up its retry.
  EXPECT_EQ(q.Lost(2), "");
  EXPECT_EQ(q.Restarting(2), "unavailable 1, retried 3, retried 4");
}

TEST(ActorQueueCore, RemovedCallsAreNotSentAgain) {
  Queue q;
  ActorEffects out;
  q.Alive(0);
  q.Connected();
  q.Submit(1, -1);
  q.Submit(2, -1);
  q.Submit(3, -1);
  EXPECT_FALSE(q.core.Remove(1, &out));  // it may run
  EXPECT_EQ(q.Lost(1), "");
  EXPECT_TRUE(q.core.Remove(2, &out));  // nobody has it
  EXPECT_EQ(q.Restarting(1), "unavailable 1, retried 3");
  EXPECT_EQ(q.core.pending(), 1u);
}

TEST(ActorQueueCore, BrokenConnectionToALivingActor) {
  Queue q;
  q.Alive(0);
  q.Connected();
  q.Submit(1, 0);
  q.Lost(1);
  EXPECT_EQ(q.Submit(2, 0), "");
  EXPECT_EQ(q.Connected(), "unavailable 1, send 2#0@2");
}

TEST(ActorQueueCore, DeathFailsAllAndWhatComesLater) {
  Queue q;
  q.Alive(0);
  q.Connected();
  q.Submit(1);
  q.Submit(2, 0, false);
  q.Lost(1);
  EXPECT_EQ(q.Dead(), "dead 1, dead 2");
  EXPECT_EQ(q.Submit(3), "dead 3");
  EXPECT_EQ(q.Alive(5), "");
  EXPECT_EQ(q.core.pending(), 0u);
}

TEST(ActorQueueCore, OldNewsIsIgnoredAndRemoveUnblocks) {
  Queue q;
  q.Restarting(2);
  EXPECT_EQ(q.Alive(1), "");
  q.Alive(2);
  q.Connected();
  q.Submit(1, 0, false);
  q.Submit(2);
  q.core.Remove(1, &q.out);
  EXPECT_EQ(q.Take(), "send 2#0@1");
  EXPECT_FALSE(q.core.Remove(2, &q.out));
}

TEST(ActorQueueCore, LimitOfPendingCalls) {
  Queue q;
  q.core = ActorQueueCore(ActorPhase::kPending, 2);
  q.Submit(1);
  EXPECT_FALSE(q.core.Full());
  q.Submit(2);
  EXPECT_TRUE(q.core.Full());
  q.Alive(0);
  q.Connected();
  EXPECT_TRUE(q.core.Full());
  q.core.Answered(1, 0);
  EXPECT_FALSE(q.core.Full());
}

TEST(ActorQueueCore, TellsWhereACallIs) {
  Queue q;
  q.Alive(0);
  q.Connected();
  for (CallNo call = 1; call <= 2; ++call) q.Submit(call);
  q.Submit(3, 0, /*ready=*/false);
  q.Submit(4);
  const auto sent = q.core.PlaceOf(2);
  ASSERT_TRUE(sent);
  EXPECT_TRUE(sent->sent);
  EXPECT_EQ(sent->behind, 1u);
  const auto held_up = q.core.PlaceOf(4);
  ASSERT_TRUE(held_up);
  EXPECT_FALSE(held_up->sent);
  EXPECT_EQ(held_up->behind, 3u);
  EXPECT_EQ(held_up->held_up_by, 3u);
  q.core.Answered(1, 1);
  EXPECT_FALSE(q.core.PlaceOf(2));
  EXPECT_EQ(q.core.PlaceOf(4)->behind, 2u);
}

TEST(ActorQueueCore, AMoveFailsNothingAndChargesNothing) {
  Queue q;
  q.Alive(0);
  q.Connected();
  for (CallNo call = 1; call <= 3; ++call) q.Submit(call);
  // News of the move overtakes the last answer: it waits for the end of the connection.
  EXPECT_EQ(q.Restarting(1, /*moved=*/true), "");
  EXPECT_EQ(q.core.phase(), ActorPhase::kAlive);
  EXPECT_TRUE(q.core.Answered(1, 0));
  q.core.ConnectionLost(1, &q.out);
  EXPECT_EQ(q.Take(), "");
  EXPECT_EQ(q.core.phase(), ActorPhase::kRestarting);
  EXPECT_EQ(q.Submit(4), "");  // made meanwhile: waits, though it has no retries
  EXPECT_EQ(q.Alive(1, /*moved=*/true), "connect");
  EXPECT_EQ(q.Connected(), "send 2#0@2, send 3#1@2, send 4#2@2");
}

TEST(ActorQueueCore, NewsOfADeathWaitsForTheLastAnswers) {
  Queue q;
  q.Alive(0);
  q.Connected();
  q.Submit(1);
  q.Submit(2);
  q.Submit(3, 0, /*ready=*/false);
  EXPECT_EQ(q.Dead(), "await end @1, dead 3");
  EXPECT_TRUE(q.core.dead());
  EXPECT_EQ(q.Submit(4), "dead 4");
  EXPECT_TRUE(q.core.Answered(1, 0));
  EXPECT_EQ(q.Dead(), "");
  EXPECT_EQ(q.Lost(1), "dead 2");
  EXPECT_EQ(q.core.phase(), ActorPhase::kDead);
}

TEST(ActorQueueCore, NewsOfARestartWaitsForTheLastAnswers) {
  Queue q;
  q.Alive(0);
  q.Connected();
  q.Submit(1);
  q.Submit(2, 1);
  EXPECT_EQ(q.Restarting(1), "await end @1");
  EXPECT_EQ(q.Submit(3, 1), "");  // not to the process that has gone
  EXPECT_EQ(q.Alive(1), "");      // the later news stands
  EXPECT_EQ(q.Restarting(1), "");
  EXPECT_TRUE(q.core.Answered(1, 0));
  EXPECT_EQ(q.Lost(1), "connect");
  EXPECT_EQ(q.Connected(), "retried 2, send 2#0@2, send 3#1@2");
}

TEST(ActorQueueCore, NothingIsSentToAProcessThatWasToldToEnd) {
  Queue q;
  q.Alive(0);
  q.Connected();
  q.Submit(1);
  q.Submit(2);
  q.core.OnEnding(0);
  EXPECT_EQ(q.Submit(3, -1), "");
  EXPECT_TRUE(q.core.Answered(1, 0));
  EXPECT_EQ(q.Lost(1), "");
  EXPECT_EQ(q.Restarting(1), "unavailable 2");
  EXPECT_EQ(q.Alive(1), "connect");
  EXPECT_EQ(q.Connected(), "send 3#0@2");
}

TEST(ActorQueueCore, TheNewsThatItsProcessHasGoneSaysNothingOfTheNextOne) {
  for (const bool restart_is_known : {false, true}) {
    Queue q;
    q.Alive(0);
    q.Connected();
    q.core.ConnectionLost(1, &q.out);
    if (restart_is_known) q.Restarting(1);
    q.core.OnProcessGone();
    EXPECT_EQ(q.Submit(1, 0, true, false, /*charged=*/true), "");
    EXPECT_EQ(q.Submit(2), restart_is_known ? "unavailable 2" : "");
    q.Restarting(1);
    EXPECT_EQ(q.Alive(1), "connect");
    EXPECT_EQ(q.Connected(), "send 1#0@2");
  }
}

TEST(ActorQueueCore, NewsOfAnEarlierProcessIsTold) {
  Queue q;
  EXPECT_TRUE(q.core.OnAlive(1, false, &q.out));
  EXPECT_FALSE(q.core.OnAlive(0, false, &q.out));
  EXPECT_EQ(q.Take(), "connect");
}

TEST(ActorQueueCore, ACallThatIsMadeAgainWaitsForTheRestartThatItsLastRetryPaidFor) {
  Queue q;
  q.Alive(0);
  q.Connected();
  q.core.ConnectionLost(1, &q.out);
  EXPECT_EQ(q.Restarting(1), "");
  EXPECT_EQ(q.Submit(1), "unavailable 1");
  EXPECT_EQ(q.Submit(2, 0, true, false, /*charged=*/true), "");
  q.Alive(1);
  EXPECT_EQ(q.Connected(), "send 2#0@2");
  q.core.ConnectionLost(2, &q.out);
  EXPECT_EQ(q.Restarting(2), "unavailable 2");  // it paid for one
}

TEST(ActorQueueCore, CallsAfterAKillOfARestartingActorWaitForWhatItLedTo) {
  for (const bool dies : {true, false}) {
    Queue q;
    q.Alive(0);
    q.Connected();
    q.core.ConnectionLost(1, &q.out);
    q.Restarting(1);
    q.core.OnEnding(1);
    EXPECT_EQ(q.Submit(1), "");
    EXPECT_EQ(dies ? q.Dead() : q.Restarting(2), dies ? "dead 1" : "unavailable 1");
  }
}

TEST(ActorQueueCore, AfterAMoveACrashIsACrash) {
  Queue q;
  q.Alive(0);
  q.Connected();
  q.Submit(1);
  EXPECT_EQ(q.Alive(1, /*moved=*/true), "");  // the end of the first process was not heard of
  q.core.ConnectionLost(1, &q.out);
  EXPECT_EQ(q.Take(), "connect");
  EXPECT_EQ(q.Connected(), "send 1#0@2");
  q.core.ConnectionLost(2, &q.out);
  EXPECT_EQ(q.Restarting(2), "unavailable 1");
}

}  // namespace
}  // namespace ray::core
