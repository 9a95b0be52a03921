// TaskRunner: does one thing after the other, beside the loop that asks for it. TaskThread: on a thread, started with the first. Thread-safe.
#pragma once

#include <deque>
#include <functional>
#include <thread>

#include "ray/util/mutex.h"

namespace ray::object_manager {

class TaskRunner {
 public:
  virtual ~TaskRunner() = default;
  // Returns at once. Dropped after Stop.
  virtual void Add(std::function<void()> task) = 0;
  // Waits for the end of what is going on and drops what has not begun. Idempotent; not from a task.
  virtual void Stop() = 0;
};

class TaskThread final : public TaskRunner {
 public:
  // `name`: as the system shows it, at most 15 characters.
  explicit TaskThread(const char* name) : name_(name) {}
  ~TaskThread() override { Stop(); }
  TaskThread(const TaskThread&) = delete;
  TaskThread& operator=(const TaskThread&) = delete;

  void Add(std::function<void()> task) override;
  void Stop() override;

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
