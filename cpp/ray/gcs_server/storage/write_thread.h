// WriteThread: carries out a storage's writes on a thread of its own, each time all that have queued up (group commit).
#pragma once

#include <condition_variable>
#include <functional>
#include <thread>
#include <vector>

#include "ray/async/loop.h"
#include "ray/gcs_server/storage/storage.h"
#include "ray/util/mutex.h"

namespace ray::gcs {

class WriteThread {
 public:
  using Batches = std::vector<std::vector<StorageOp>>;
  // `commit` makes them durable, in order, all or none. It runs on the thread, which the first Write starts. The loop must outlive this.
  WriteThread(async::Loop* loop, std::function<Status(const Batches&)> commit) : loop_(loop), commit_(std::move(commit)) {}
  // Commits what was given, then ends the thread.
  ~WriteThread() { Stop(); }
  WriteThread(const WriteThread&) = delete;
  WriteThread& operator=(const WriteThread&) = delete;

  // `done` runs on the loop.
  void Write(std::vector<StorageOp> batch, std::function<void(Status)> done);
  // What the destructor does. Idempotent.
  void Stop();
  // For `commit`, before it tries again. False: this is being stopped, there is no time for that.
  bool Sleep(Duration duration);

 private:
  void Serve();

  async::Loop* const loop_;
  const std::function<Status(const Batches&)> commit_;
  Mutex mu_;
  std::condition_variable wake_;
  Batches queue_ GUARDED_BY(mu_);
  std::vector<std::function<void(Status)>> done_ GUARDED_BY(mu_);  // of queue_
  bool stopping_ GUARDED_BY(mu_) = false;
  std::thread thread_;
};

}  // namespace ray::gcs
