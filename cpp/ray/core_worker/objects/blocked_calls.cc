#include "ray/core_worker/objects/blocked_calls.h"

#include <algorithm>
#include <chrono>

namespace ray::core {

Time BlockedCalls::DeadlineOf(int64_t timeout_ms) const {
  // Beyond a century is for ever, and does not overflow.
  if (timeout_ms < 0 || timeout_ms > int64_t{100} * 365 * 24 * 3600 * 1000) return Time::Infinite();
  return loop_->clock().Now() + std::chrono::milliseconds(timeout_ms);
}

ReadResult BlockedCalls::Block(async::Waiter* waiter, Time deadline) {
  {
    MutexLock lock(&mu_);
    if (closed_.load(std::memory_order_relaxed)) return ReadResult::kClosed;
    blocked_.insert(waiter);
  }
  bool told = false;
  async::WaitResult result;
  const Time patience = on_blocked_ ? std::min(deadline, loop_->clock().Now() + blocked_after_) : deadline;
  result = loop_->Wait(waiter, patience);
  if (result == async::WaitResult::kDeadline && patience < deadline) {
    told = true;
    on_blocked_(true);
    result = loop_->Wait(waiter, deadline);
  }
  {
    MutexLock lock(&mu_);
    blocked_.erase(waiter);
  }
  if (told) on_blocked_(false);
  if (closed_.load(std::memory_order_acquire)) return ReadResult::kClosed;
  if (result == async::WaitResult::kDone) return ReadResult::kReady;
  return result == async::WaitResult::kDeadline ? ReadResult::kTimeout : ReadResult::kInterrupted;
}

void BlockedCalls::Close() {
  MutexLock lock(&mu_);
  closed_.store(true, std::memory_order_release);
  // They live on the stacks of their threads, which take the lock before they go.
  for (async::Waiter* waiter : blocked_) waiter->Notify();
}

}  // namespace ray::core
