// BlockedCalls: the user threads of a process that wait for objects, and what ends their wait. Part of the ObjectService. Thread-safe.
#pragma once

#include <atomic>
#include <functional>
#include <span>
#include <unordered_map>
#include <vector>

#include "ray/core_worker/objects/object_context.h"
#include "ray/util/mutex.h"

namespace ray::core {

// What a blocked call waits for: some of `refs`, at the positions named (none: all of them). On the stack of its thread.
struct Awaited {
  std::span<const ObjectRefInfo> refs;
  std::span<const uint32_t> positions;
  bool in_wait = false;  // by Wait, else by Get
};

class BlockedCalls {
 public:
  // `on_blocked`: the calling thread has been blocked for `blocked_after` / goes on now. `current_task`: the task that the calling thread runs; nil:
  // none. Both may be empty.
  BlockedCalls(async::UserLoop* loop, Duration blocked_after, std::function<void(bool blocked)> on_blocked,
               std::function<TaskId()> current_task)
      : loop_(loop), blocked_after_(blocked_after), on_blocked_(std::move(on_blocked)), current_task_(std::move(current_task)) {}

  // Until the waiter is notified, the deadline, a signal or Close. `awaited`, for Of: outlives the call. [blocks]
  ReadResult Block(async::Waiter* waiter, Time deadline, const Awaited* awaited = nullptr);
  // Wakes every blocked call with kClosed; later ones fail too.
  void Close();
  bool closed() const { return closed_.load(std::memory_order_acquire); }
  // Negative: never.
  Time DeadlineOf(int64_t timeout_ms) const;
  // For people: what the threads of a task wait for, at most `max` of it, and since when the longest does. False: none of them is blocked.
  bool Of(const TaskId& task, size_t max, std::vector<ObjectRefInfo>* refs, Time* since) const;
  enum class Call : uint8_t { kNone, kGet, kWait };
  // The kind of call in which a thread of the task is blocked.
  Call CallOf(const TaskId& task) const;

 private:
  async::UserLoop* const loop_;
  const Duration blocked_after_;
  const std::function<void(bool)> on_blocked_;
  const std::function<TaskId()> current_task_;
  struct Blocked {
    const Awaited* awaited = nullptr;
    TaskId task;
    Time since;
  };
  std::atomic<bool> closed_{false};
  mutable Mutex mu_;
  std::unordered_map<async::Waiter*, Blocked> blocked_ GUARDED_BY(mu_);
};

}  // namespace ray::core
