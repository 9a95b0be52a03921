#include "ray/gcs_server/storage/write_thread.h"

#include <pthread.h>
#include <signal.h>

#include <memory>
#include <utility>

namespace ray::gcs {

void WriteThread::Write(std::vector<StorageOp> batch, std::function<void(Status)> done) {
  {
    MutexLock lock(&mu_);
    queue_.push_back(std::move(batch));
    done_.push_back(std::move(done));
  }
  wake_.notify_one();
  if (thread_.joinable()) return;
  // The process's signals are for its other threads.
  sigset_t all, old;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &old);
  thread_ = std::thread([this] { Serve(); });
  pthread_sigmask(SIG_SETMASK, &old, nullptr);
}

void WriteThread::Stop() {
  {
    MutexLock lock(&mu_);
    stopping_ = true;
  }
  wake_.notify_one();
  if (thread_.joinable()) thread_.join();
}

bool WriteThread::Sleep(Duration duration) {
  std::unique_lock<std::mutex> lock(mu_.native());
  return !wake_.wait_for(lock, duration, [this] { return stopping_; });
}

void WriteThread::Serve() {
  pthread_setname_np(pthread_self(), "gcs-storage");
  for (;;) {
    Batches batches;
    auto done = std::make_shared<std::vector<std::function<void(Status)>>>();
    {
      std::unique_lock<std::mutex> lock(mu_.native());
      wake_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
      if (queue_.empty()) return;
      batches.swap(queue_);
      done->swap(done_);
    }
    const Status status = commit_(batches);
    loop_->Post("gcs.stored", [done, status] {
      for (auto& fn : *done) fn(status);
    });
  }
}

}  // namespace ray::gcs
