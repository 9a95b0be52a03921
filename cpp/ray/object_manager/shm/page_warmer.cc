#include "ray/object_manager/shm/page_warmer.h"

#include <pthread.h>

#include "ray/util/check.h"
#include "ray/util/signals.h"

namespace ray::object_manager {

void PageWarmer::Warm(uint64_t begin, uint64_t end) {
  {
    MutexLock lock(&mu_);
    RAY_CHECK(!request_ && !stopped_);
    request_.emplace(begin, end);
  }
  wake_.notify_one();
  if (!thread_.joinable()) {
    // The process's signals are for its other threads.
    ScopedBlockSignals block;
    thread_ = std::thread([this] { Run(); });
  }
}

void PageWarmer::Stop() {
  {
    MutexLock lock(&mu_);
    stopped_ = true;
  }
  wake_.notify_one();
  if (thread_.joinable()) thread_.join();
}

void PageWarmer::Run() {
  pthread_setname_np(pthread_self(), "store-warm");
  for (;;) {
    std::pair<uint64_t, uint64_t> range;
    {
      std::unique_lock<std::mutex> lock(mu_.native());
      wake_.wait(lock, [this] { return stopped_ || request_.has_value(); });
      if (stopped_) return;
      range = *request_;
      request_.reset();
    }
    on_done_(range.first, range.second, arena_->AllocatePages(range.first, range.second));
  }
}

}  // namespace ray::object_manager
