// Loop: where handlers, timers and posted functions of a process run, one at a time.
//
// "On the loop" means: under the loop's polling right. Only one thread holds it at a time, so everything that runs on the loop
// is serialised, but it need not always be the same thread: in a worker or driver, a user thread that waits reads the sockets
// itself (Wait), and the loop's own I/O thread stands in only when nobody waits. Functions run on the loop never block,
// never take the GIL and never call Wait.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "ray/util/clock.h"
#include "ray/util/status.h"

namespace ray::async {

using TimerId = uint64_t;

class Loop {
 public:
  virtual ~Loop() = default;
  // Runs `fn` on the loop, after what was posted before. Thread-safe. `name` shows in stats.
  virtual void Post(const char* name, std::function<void()> fn) = 0;
  // Runs `fn` on the loop once `delay` has passed. Thread-safe. Ids are never reused.
  virtual TimerId AddTimer(Duration delay, std::function<void()> fn) = 0;
  // After the call (made on the loop) the timer will not run. Unknown ids are fine.
  virtual void CancelTimer(TimerId id) = 0;
  virtual const Clock& clock() const = 0;
  // Whether the calling thread is running something on the loop now.
  virtual bool InLoop() const = 0;
  // A hint: what was handled just now will bring the next event within microseconds. Thread-safe, nearly free.
  virtual void ExpectSoon() {}
  // Registers `fn` to run on the loop after what is handled in one go, before the loop waits: flushes corked sends. Thread-safe.
  virtual void AddFlusher(std::function<void()> fn) = 0;
  // Something was corked outside the loop: the flushers will run soon. Thread-safe, nearly free when repeated.
  virtual void RequestFlush() = 0;
};

class UserLoop;

// One-shot event that a user thread waits for; set from any thread. Reusable after Reset by its owner.
class Waiter {
 public:
  // Wakes the waiting thread, if it sleeps. Idempotent, thread-safe, never blocks. The waiter may be gone as soon as it is set.
  void Notify();
  bool IsSet() const { return state_.load(std::memory_order_acquire) == kSet; }
  void Reset() { state_.store(kIdle, std::memory_order_relaxed); }

 private:
  friend class EpollLoop;
  friend class UserLoop;
  // One word says everything, so that Notify touches the waiter once: a larger value is the UserLoop that is to wake the waiting thread (in the EpollLoop
  // its leader, which may sleep in the epoll set). Followers of an EpollLoop sleep on the word's low half as a futex.
  static constexpr uintptr_t kIdle = 0, kSet = 1, kFollowing = 2;
  std::atomic<uintptr_t> state_{kIdle};
};

enum class WaitResult { kDone, kDeadline, kInterrupted };

// A loop that user threads wait on: that of a worker or driver.
class UserLoop : public Loop {
 public:
  // Blocks the calling user thread until `waiter` is set, the deadline passes, or a signal arrives (kInterrupted: run the signal
  // handlers and call again). What happens on the loop goes on meanwhile. REQUIRES: not on the loop, GIL not held, no lock held.
  // `may_spin`: false where other threads of this process have work to do, which polling would keep from the processor.
  virtual WaitResult Wait(Waiter* waiter, Time deadline, bool may_spin) = 0;
  WaitResult Wait(Waiter* waiter, Time deadline) { return Wait(waiter, deadline, /*may_spin=*/true); }
  // A thread that serves frames in a hot loop (the executor) tells when it starts and ends user code.
  virtual void EnterUserCode() = 0;
  virtual void LeaveUserCode() = 0;

 protected:
  friend class Waiter;
  // From now on whoever sets the waiter calls OnSet, until it is taken back. False: it is set already.
  bool BeToldOf(Waiter* waiter) {
    uintptr_t expected = Waiter::kIdle;
    return waiter->state_.compare_exchange_strong(expected, reinterpret_cast<uintptr_t>(this));
  }
  void TakeBack(Waiter* waiter) {
    uintptr_t expected = reinterpret_cast<uintptr_t>(this);
    waiter->state_.compare_exchange_strong(expected, Waiter::kIdle);
  }
  // Some waiter was set; on the thread that did it. Never blocks.
  virtual void OnSet() = 0;
};

// Called on the loop with the ready epoll events.
using FdCallback = std::function<void(uint32_t events)>;

struct LoopOptions {
  std::string name = "io";                            // name of the I/O thread
  Duration max_spin = std::chrono::microseconds(50);  // success-adaptive polling before sleeping; 0: never spin
  // After ExpectSoon who waits, or the I/O thread, polls that long before it sleeps, as long as that pays off. Between two looks it lets others run: it keeps a
  // processor from halting, not from those who need it.
  Duration expect_spin = Duration::zero();
  Duration watch_interval = std::chrono::milliseconds(1);  // how long a busy user thread may leave frames unread in a hot burst
};

// The real one, over epoll.
//
// Polling right: an inner epoll set holds all descriptors; the I/O thread sleeps on an outer set that contains the inner one. A
// waiting user thread disarms the inner set in the outer one (one epoll_ctl, no wake-up), polls it itself, and re-arms it when it is
// done; if something is ready by then the kernel wakes the I/O thread, which is the only moment a wake-up is due.
// Several user threads may wait: one leads, the others sleep on their Waiter; a leader that is done hands on.
class EpollLoop final : public UserLoop {
 public:
  static Result<std::unique_ptr<EpollLoop>> Make(LoopOptions options);
  ~EpollLoop() override;  // REQUIRES: stopped, if it was started

  // Starts the I/O thread, with all signals blocked. Without it (Run), the calling thread is the I/O thread until Stop.
  Status Start();
  void Run();
  // Ends the loop: nothing runs on it once the call has returned (called on the loop: once the current function has). Posts and timers
  // left are dropped with the loop; waits go on returning kInterrupted. Idempotent. Not from the I/O thread, save under Run.
  void Stop();

  void Post(const char* name, std::function<void()> fn) override;
  TimerId AddTimer(Duration delay, std::function<void()> fn) override;
  void CancelTimer(TimerId id) override;
  const Clock& clock() const override;
  bool InLoop() const override;
  void ExpectSoon() override;

  // Level-triggered. The descriptor stays the caller's. Thread-safe; callbacks come on the loop.
  Status WatchFd(int fd, uint32_t events, FdCallback callback);
  Status ModifyFd(int fd, uint32_t events);
  // On the loop: no callback after the call returns.
  void UnwatchFd(int fd);

  // Drives the loop meanwhile. The main thread gets kInterrupted once a second anyway, for a signal that came just before it slept.
  using UserLoop::Wait;
  WaitResult Wait(Waiter* waiter, Time deadline, bool may_spin) override;
  // Handles what is ready now, without blocking, if the polling right is free. For a thread with an event loop of its own, which sleeps on
  // poll_fd: readable while something is ready.
  void PollOnce();
  int poll_fd() const;
  // During user code the I/O thread takes over reading after at most watch_interval.
  void EnterUserCode() override;
  void LeaveUserCode() override;
  // Flushers run before the loop sleeps and at least every watch_interval during user code, even if no thread polls.
  void AddFlusher(std::function<void()> fn) override;
  void RequestFlush() override;

 private:
  struct Impl;
  void OnSet() override;
  explicit EpollLoop(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace ray::async
