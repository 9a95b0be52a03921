#include "ray/async/loop.h"

#include <gtest/gtest.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <random>
#include <thread>
#include <vector>

namespace ray::async {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;

class LoopTest : public testing::Test {
 protected:
  void SetUp() override { Make({}); }
  void Make(LoopOptions options) {
    if (loop_) loop_->Stop();
    loop_ = EpollLoop::Make(std::move(options)).value();
    ASSERT_TRUE(loop_->Start().ok());
  }
  void TearDown() override { loop_->Stop(); }
  void Await(Waiter* waiter) {
    Time deadline = loop_->clock().Now() + seconds(60);
    WaitResult result;
    while ((result = loop_->Wait(waiter, deadline)) == WaitResult::kInterrupted) {
    }
    ASSERT_EQ(result, WaitResult::kDone) << "a wake-up was lost";
  }
  std::unique_ptr<EpollLoop> loop_;
};

// What was expected comes, late or not at all: the wait ends all the same.
TEST_F(LoopTest, AWaitThatExpectsSomethingPollsAndThenSleeps) {
  Make({.expect_spin = milliseconds(1)});
  for (int i = 0; i < 50; ++i) {
    Waiter waiter;
    std::thread peer([&] {
      if (i % 2 == 0) std::this_thread::sleep_for(milliseconds(2));  // it sleeps by then
      loop_->Post("t", [&] { waiter.Notify(); });
    });
    loop_->ExpectSoon();
    Await(&waiter);
    peer.join();
  }
  Waiter never;
  loop_->ExpectSoon();
  EXPECT_EQ(loop_->Wait(&never, loop_->clock().Now() + milliseconds(5)), WaitResult::kDeadline);
}

TEST_F(LoopTest, PostsRunInOrderOnTheLoop) {
  std::vector<int> seen;
  Waiter done;
  for (int i = 0; i < 100; ++i) {
    loop_->Post("t", [&, i] {
      EXPECT_TRUE(loop_->InLoop());
      seen.push_back(i);
      if (i == 99) done.Notify();
    });
  }
  Await(&done);
  EXPECT_FALSE(loop_->InLoop());
  for (int i = 0; i < 100; ++i) EXPECT_EQ(seen[i], i);
}

TEST_F(LoopTest, DeadlinePassesAndSetWaiterWinsAtOnce) {
  Waiter waiter;
  Time start = loop_->clock().Now();
  EXPECT_EQ(loop_->Wait(&waiter, start + milliseconds(5)), WaitResult::kDeadline);
  EXPECT_GE(loop_->clock().Now(), start + milliseconds(5));
  waiter.Notify();
  EXPECT_EQ(loop_->Wait(&waiter, Time{0}), WaitResult::kDone);
  waiter.Reset();
  EXPECT_EQ(loop_->Wait(&waiter, Time{0}), WaitResult::kDeadline);
}

TEST_F(LoopTest, AWaitWithAPastDeadlineStillRunsWhatIsReady) {
  Waiter waiter;
  // Either this thread or the I/O thread runs it; polling with deadline 0 must suffice in the end.
  loop_->Post("t", [&] { waiter.Notify(); });
  while (loop_->Wait(&waiter, Time{0}) != WaitResult::kDone) {
  }
}

TEST_F(LoopTest, TimersInOrderAndCancelled) {
  std::vector<int> seen;
  Waiter done;
  loop_->Post("t", [&] {
    loop_->AddTimer(milliseconds(8), [&] {
      seen.push_back(2);
      done.Notify();
    });
    TimerId gone = loop_->AddTimer(milliseconds(4), [&] { seen.push_back(99); });
    loop_->AddTimer(milliseconds(2), [&, gone] {
      seen.push_back(1);
      loop_->CancelTimer(gone);
      loop_->CancelTimer(gone);
    });
    loop_->AddTimer(Duration::zero(), [&] { seen.push_back(0); });
  });
  Await(&done);
  EXPECT_EQ(seen, (std::vector<int>{0, 1, 2}));
}

TEST_F(LoopTest, DescriptorEventsAndUnwatchWithinABatch) {
  int a[2], b[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, a), 0);
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, b), 0);
  int calls = 0;
  Waiter done;
  // Both become ready at once; whichever comes first unwatches both, so the other must not be called.
  auto callback = [&](uint32_t) {
    ++calls;
    loop_->UnwatchFd(a[0]);
    loop_->UnwatchFd(b[0]);
    loop_->AddTimer(milliseconds(2), [&] { done.Notify(); });
  };
  loop_->Post("t", [&] {
    ASSERT_EQ(::write(a[1], "x", 1), 1);
    ASSERT_EQ(::write(b[1], "x", 1), 1);
    ASSERT_TRUE(loop_->WatchFd(a[0], EPOLLIN, callback).ok());
    ASSERT_TRUE(loop_->WatchFd(b[0], EPOLLIN, callback).ok());
    EXPECT_FALSE(loop_->WatchFd(b[0], EPOLLIN, callback).ok());
  });
  Await(&done);
  EXPECT_EQ(calls, 1);
  for (int fd : {a[0], a[1], b[0], b[1]}) ::close(fd);
}

TEST_F(LoopTest, SignalInterruptsLeaderAndFollower) {
  struct sigaction action {};
  action.sa_handler = [](int) {};
  sigaction(SIGUSR1, &action, nullptr);
  std::atomic<int> interrupted{0};
  auto wait = [&] {
    Waiter never;
    if (loop_->Wait(&never, Time::Infinite()) == WaitResult::kInterrupted) ++interrupted;
  };
  std::thread one(wait), two(wait);
  // Repeated because a signal may come before the sleep.
  while (interrupted < 2) {
    for (std::thread* t : {&one, &two}) pthread_kill(t->native_handle(), SIGUSR1);
    std::this_thread::sleep_for(milliseconds(1));
  }
  one.join();
  two.join();
}

TEST_F(LoopTest, StopEndsWaits) {
  Waiter never, never_too;
  std::atomic<int> ended{0};
  auto wait = [&](Waiter* waiter) {
    EXPECT_EQ(loop_->Wait(waiter, Time::Infinite()), WaitResult::kInterrupted);
    ++ended;
  };
  std::thread one(wait, &never), two(wait, &never_too);
  loop_->Stop();
  one.join();
  two.join();
  EXPECT_EQ(ended, 2);
}

TEST_F(LoopTest, RunInCallingThreadUntilStopped) {
  auto loop = EpollLoop::Make({}).value();
  int runs = 0;
  loop->Post("t", [&] {
    ++runs;
    loop->AddTimer(milliseconds(1), [&] {
      ++runs;
      loop->Stop();
    });
  });
  loop->Run();
  EXPECT_EQ(runs, 2);
}

TEST_F(LoopTest, FlushRequestedDuringUserCodeRunsSoon) {
  std::atomic<int> flushes{0};
  loop_->AddFlusher([&] { ++flushes; });
  Waiter added;
  loop_->Post("t", [&] { added.Notify(); });
  Await(&added);
  loop_->EnterUserCode();
  for (int i = 0; i < 20; ++i) {
    int before = flushes;
    loop_->RequestFlush();
    while (flushes == before) std::this_thread::yield();  // nobody waits on the loop: the I/O thread must do it
  }
  loop_->LeaveUserCode();
}

TEST_F(LoopTest, FramesArriveDuringLongUserCode) {
  int fds[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
  std::atomic<int> received{0};
  ASSERT_TRUE(loop_
                  ->WatchFd(fds[0], EPOLLIN,
                            [&](uint32_t) {
                              char buffer[64];
                              received += static_cast<int>(std::max<ssize_t>(0, ::read(fds[0], buffer, sizeof buffer)));
                            })
                  .ok());
  for (int round = 0; round < 20; ++round) {
    loop_->PollOnce();
    loop_->EnterUserCode();
    for (int i = 0; i < 3; ++i) {
      int before = received;
      ASSERT_EQ(::write(fds[1], "x", 1), 1);
      while (received == before) std::this_thread::yield();
    }
    loop_->LeaveUserCode();
  }
  Waiter done;
  loop_->Post("t", [&] {
    loop_->UnwatchFd(fds[0]);
    done.Notify();
  });
  Await(&done);
  ::close(fds[0]);
  ::close(fds[1]);
}

// Waiters set from everywhere: by other threads, posts, timers and descriptors, with threads that lead, follow, poll and run user code at random,
// with signals on top. Any lost wake-up shows as a deadline of a minute.
void Stress(EpollLoop* loop, int rounds, bool signals) {
  struct sigaction action {};
  action.sa_handler = [](int) {};
  sigaction(SIGUSR1, &action, nullptr);
  int fds[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
  std::atomic<Waiter*> by_fd[256] = {};
  ASSERT_TRUE(loop->WatchFd(fds[0], EPOLLIN,
                            [&](uint32_t) {
                              unsigned char buffer[64];
                              ssize_t n = ::read(fds[0], buffer, sizeof buffer);
                              for (ssize_t i = 0; i < n; ++i) by_fd[buffer[i]].exchange(nullptr)->Notify();
                            })
                  .ok());
  constexpr int kThreads = 6;
  std::atomic<Waiter*> by_thread{nullptr};
  std::atomic<bool> stop{false};
  std::thread notifier([&] {
    while (!stop) {
      if (Waiter* waiter = by_thread.exchange(nullptr))
        waiter->Notify();
      else
        std::this_thread::yield();
    }
  });
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      std::minstd_rand random(t + 1);
      for (int i = 0; i < rounds; ++i) {
        Waiter waiter;
        switch (random() % 6) {
          case 0: loop->Post("t", [&waiter] { waiter.Notify(); }); break;
          case 1: loop->AddTimer(microseconds(random() % 300), [&waiter] { waiter.Notify(); }); break;
          case 2: {
            Waiter* expected = nullptr;
            while (!by_thread.compare_exchange_weak(expected, &waiter)) {
              expected = nullptr;
              std::this_thread::yield();
            }
            break;
          }
          case 3: {
            by_fd[t].store(&waiter);
            char byte = static_cast<char>(t);
            ASSERT_EQ(::write(fds[1], &byte, 1), 1);
            break;
          }
          case 4:
            loop->EnterUserCode();
            loop->PollOnce();
            loop->RequestFlush();
            loop->Post("t", [&waiter, loop] { loop->Post("u", [&waiter] { waiter.Notify(); }); });
            loop->LeaveUserCode();
            break;
          case 5: {
            Waiter never;
            EXPECT_NE(loop->Wait(&never, loop->clock().Now() + microseconds(random() % 200)), WaitResult::kDone);
            waiter.Notify();
            break;
          }
        }
        Time deadline = loop->clock().Now() + seconds(60);
        WaitResult result;
        while ((result = loop->Wait(&waiter, deadline)) == WaitResult::kInterrupted) {
        }
        ASSERT_EQ(result, WaitResult::kDone) << "a wake-up was lost";
      }
    });
  }
  // Threads are joined after the last signal.
  std::minstd_rand random(7);
  for (int i = 0; signals && i < 1000; ++i) {
    for (auto& thread : threads) pthread_kill(thread.native_handle(), SIGUSR1);
    std::this_thread::sleep_for(microseconds(random() % 300));
  }
  for (auto& thread : threads) thread.join();
  stop = true;
  notifier.join();
  Waiter done;
  loop->Post("t", [&] {
    loop->UnwatchFd(fds[0]);
    done.Notify();
  });
  while (loop->Wait(&done, Time::Infinite()) != WaitResult::kDone) {
  }
  ::close(fds[0]);
  ::close(fds[1]);
}

TEST_F(LoopTest, StressSpinning) { Stress(loop_.get(), 2000, false); }
TEST_F(LoopTest, StressSleeping) {
  Make({.max_spin = Duration::zero()});
  Stress(loop_.get(), 2000, false);
}
TEST_F(LoopTest, StressWithSignals) { Stress(loop_.get(), 3000, true); }

TEST_F(LoopTest, ManyWaitersAreSetByOneLeader) {
  constexpr int kThreads = 16;
  for (int round = 0; round < 50; ++round) {
    Waiter waiters[kThreads];
    std::vector<std::thread> threads;
    for (Waiter& waiter : waiters) threads.emplace_back([&] { Await(&waiter); });
    loop_->AddTimer(microseconds(200), [&] {
      for (Waiter& waiter : waiters) waiter.Notify();
    });
    for (auto& thread : threads) thread.join();
  }
}

}  // namespace
}  // namespace ray::async
