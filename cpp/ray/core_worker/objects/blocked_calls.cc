#include "ray/core_worker/objects/blocked_calls.h"

#include <algorithm>
#include <chrono>

namespace ray::core {

Time BlockedCalls::DeadlineOf(int64_t timeout_ms) const {
  // Beyond a century is for ever, and does not overflow.
  if (timeout_ms < 0 || timeout_ms > int64_t{100} * 365 * 24 * 3600 * 1000) return Time::Infinite();
  return loop_->clock().Now() + std::chrono::milliseconds(timeout_ms);
}

ReadResult BlockedCalls::Block(async::Waiter* waiter, Time deadline, const Awaited* awaited) {
  const Time now = loop_->clock().Now();
  {
    const TaskId task = current_task_ ? current_task_() : TaskId::Nil();
    MutexLock lock(&mu_);
    if (closed_.load(std::memory_order_relaxed)) return ReadResult::kClosed;
    blocked_.emplace(waiter, Blocked{awaited, task, now});
  }
  bool told = false;
  async::WaitResult result;
  const Time patience = on_blocked_ ? std::min(deadline, now + blocked_after_) : deadline;
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
  for (const auto& [waiter, blocked] : blocked_) waiter->Notify();
}

bool BlockedCalls::Of(const TaskId& task, size_t max, std::vector<ObjectRefInfo>* refs, Time* since) const {
  *since = Time::Infinite();
  MutexLock lock(&mu_);
  for (const auto& [waiter, blocked] : blocked_) {
    if (blocked.task != task) continue;
    *since = std::min(*since, blocked.since);
    if (blocked.awaited == nullptr) continue;
    const Awaited& awaited = *blocked.awaited;
    if (awaited.positions.empty()) {
      for (size_t i = 0; i < awaited.refs.size() && refs->size() < max; ++i) refs->push_back(awaited.refs[i]);
    }
    for (size_t i = 0; i < awaited.positions.size() && refs->size() < max; ++i) refs->push_back(awaited.refs[awaited.positions[i]]);
  }
  return !since->is_infinite();
}

BlockedCalls::Call BlockedCalls::CallOf(const TaskId& task) const {
  MutexLock lock(&mu_);
  for (const auto& [waiter, blocked] : blocked_) {
    if (blocked.task == task) return blocked.awaited != nullptr && blocked.awaited->in_wait ? Call::kWait : Call::kGet;
  }
  return Call::kNone;
}

}  // namespace ray::core
