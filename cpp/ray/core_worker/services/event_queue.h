// EventQueue: what the driver shows its user (lines of workers, messages of the system), until the printing thread takes it. Bounded: when nobody
// prints, the oldest go and their number is told. Thread-safe; waits on its own, away from the loop, so that a printing thread never leads it.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <string>

#include "ray/common/buffer.h"

namespace ray::core {

struct UserEvent {
  enum Kind : int32_t { kLog = 1, kMessage = 2, kUnreadError = 3 };
  int32_t kind = kLog;
  std::string name, text, node_ip, message_kind;
  int64_t pid = 0;
  bool is_stderr = false;
  BufferPtr blob;  // kUnreadError, and kMessage of a retry after an error of user code: the error in the value layout
};

class EventQueue {
 public:
  void Add(UserEvent event) {
    std::lock_guard lock(mu_);
    if (events_.size() >= kCapacity) {
      events_.pop_front();
      ++lost_;
    }
    events_.push_back(std::move(event));
    ready_.notify_one();
  }
  // False: nothing in `timeout_ms` (-1: none), or closed and empty.
  bool Next(int64_t timeout_ms, UserEvent* out) {
    std::unique_lock lock(mu_);
    auto have = [&] { return !events_.empty() || closed_; };
    if (timeout_ms < 0) {
      ready_.wait(lock, have);
    } else if (!ready_.wait_for(lock, std::chrono::milliseconds(timeout_ms), have)) {
      return false;
    }
    if (events_.empty()) return false;
    if (lost_ > 0) {
      *out = {.kind = UserEvent::kMessage, .text = std::to_string(lost_) + " lines of output were dropped", .message_kind = "dropped"};
      lost_ = 0;
      return true;
    }
    *out = std::move(events_.front());
    events_.pop_front();
    return true;
  }
  void Close() {
    std::lock_guard lock(mu_);
    closed_ = true;
    ready_.notify_all();
  }

 private:
  static constexpr size_t kCapacity = 20000;
  std::mutex mu_;
  std::condition_variable ready_;
  std::deque<UserEvent> events_;
  uint64_t lost_ = 0;
  bool closed_ = false;
};

}  // namespace ray::core
