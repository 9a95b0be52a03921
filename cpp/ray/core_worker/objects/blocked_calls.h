// BlockedCalls: the user threads of a process that wait for objects, and what ends their wait. Part of the ObjectService. Thread-safe.
#pragma once

#include <atomic>
#include <functional>
#include <unordered_set>

#include "ray/core_worker/objects/object_context.h"
#include "ray/util/mutex.h"

namespace ray::core {

class BlockedCalls {
 public:
  // `on_blocked`: the calling thread has been blocked for `blocked_after` / goes on now. May be empty.
  BlockedCalls(async::EpollLoop* loop, Duration blocked_after, std::function<void(bool blocked)> on_blocked)
      : loop_(loop), blocked_after_(blocked_after), on_blocked_(std::move(on_blocked)) {}

  // Until the waiter is notified, the deadline, a signal or Close. [blocks]
  ReadResult Block(async::Waiter* waiter, Time deadline);
  // Wakes every blocked call with kClosed; later ones fail too.
  void Close();
  bool closed() const { return closed_.load(std::memory_order_acquire); }
  // Negative: never.
  Time DeadlineOf(int64_t timeout_ms) const;

 private:
  async::EpollLoop* const loop_;
  const Duration blocked_after_;
  const std::function<void(bool)> on_blocked_;
  std::atomic<bool> closed_{false};
  Mutex mu_;
  std::unordered_set<async::Waiter*> blocked_ GUARDED_BY(mu_);
};

}  // namespace ray::core
