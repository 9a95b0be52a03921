#include "ray/object_manager/spill/task_thread.h"

#include <pthread.h>

#include <utility>

#include "ray/util/signals.h"

namespace ray::object_manager {

void TaskThread::Add(std::function<void()> task) {
  MutexLock lock(&mu_);
  if (stopped_) return;
  tasks_.push_back(std::move(task));
  wake_.notify_one();
  if (thread_.joinable()) return;
  // The process's signals are for its other threads.
  ScopedBlockSignals block;
  thread_ = std::thread([this] { Run(); });
}

void TaskThread::Stop() {
  std::deque<std::function<void()>> dropped;
  {
    MutexLock lock(&mu_);
    stopped_ = true;
    dropped.swap(tasks_);
  }
  wake_.notify_one();
  if (thread_.joinable()) thread_.join();
}

void TaskThread::Run() {
  pthread_setname_np(pthread_self(), name_);
  std::unique_lock<std::mutex> lock(mu_.native());
  for (;;) {
    wake_.wait(lock, [this] { return stopped_ || !tasks_.empty(); });
    if (stopped_) return;
    std::function<void()> task = std::move(tasks_.front());
    tasks_.pop_front();
    lock.unlock();
    task();
    task = nullptr;
    lock.lock();
  }
}

}  // namespace ray::object_manager
