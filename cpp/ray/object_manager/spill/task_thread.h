// TaskThread: a thread that does one thing after the other, started with the first. Thread-safe.
#pragma once

#include <deque>
#include <functional>
#include <thread>

#include "ray/util/mutex.h"

namespace ray::object_manager {

class TaskThread {
 public:
  // `name`: as the system shows it, at most 15 characters.
  explicit TaskThread(const char* name) : name_(name) {}
  ~TaskThread() { Stop(); }
  TaskThread(const TaskThread&) = delete;
  TaskThread& operator=(const TaskThread&) = delete;

  // Returns at once. Dropped after Stop.
  void Add(std::function<void()> task);
  // Waits for the end of what is going on and drops what has not begun. Idempotent; not from the thread itself.
  void Stop();

 private:
  void Run();

  const char* const name_;
  Mutex mu_;
  std::condition_variable wake_;
  std::deque<std::function<void()>> tasks_ GUARDED_BY(mu_);
  bool stopped_ GUARDED_BY(mu_) = false;
  std::thread thread_;  // started under mu_, by the first Add; joined once no Add can start it any more
};

}  // namespace ray::object_manager
