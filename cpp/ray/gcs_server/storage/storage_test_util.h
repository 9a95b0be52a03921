// For tests of storages: a loop that runs what is posted when it is told to, and batches of one row.
#pragma once

#include <unistd.h>

#include <condition_variable>
#include <cstdlib>
#include <deque>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "ray/async/loop.h"
#include "ray/gcs_server/storage/storage.h"
#include "ray/util/fs.h"

namespace ray::gcs {

class WaitingLoop final : public async::Loop {
 public:
  void Post(const char*, std::function<void()> fn) override {
    std::lock_guard lock(mu_);
    queue_.push_back(std::move(fn));
    posted_.notify_one();
  }
  async::TimerId AddTimer(Duration, std::function<void()>) override { return 1; }
  void CancelTimer(async::TimerId) override {}
  const Clock& clock() const override { return clock_; }
  bool InLoop() const override { return true; }
  void AddFlusher(std::function<void()>) override {}  // nothing here corks
  void RequestFlush() override {}
  // Runs one function, and waits for it to come.
  void RunOne() {
    std::unique_lock lock(mu_);
    posted_.wait(lock, [this] { return !queue_.empty(); });
    std::function<void()> fn = std::move(queue_.front());
    queue_.pop_front();
    lock.unlock();
    fn();
  }
  size_t size() {
    std::lock_guard lock(mu_);
    return queue_.size();
  }

 private:
  SystemClock clock_;
  std::mutex mu_;
  std::condition_variable posted_;
  std::deque<std::function<void()>> queue_;
};

// A folder that goes with the test.
class ScratchDir {
 public:
  ScratchDir() {
    std::string text = testing_tmp() + "/gcs_storage_XXXXXX";
    path_ = ::mkdtemp(text.data());
  }
  ~ScratchDir() { (void)RemoveTree(path_); }
  std::string File(const std::string& name) const { return path_ + "/" + name; }

 private:
  static std::string testing_tmp() {
    const char* given = std::getenv("TMPDIR");
    return given != nullptr ? given : "/tmp";
  }
  std::string path_;
};

inline StorageOp PutRow(const std::string& table, const std::string& key, const std::string& value) {
  return {table, key, {HeapBuffer::CopyOf(value)}, false};
}
inline StorageOp EraseRow(const std::string& table, const std::string& key) { return {table, key, {}, true}; }

// Writes, and waits for the outcome.
inline Status WriteNow(Storage* storage, WaitingLoop* loop, std::vector<StorageOp> batch) {
  bool called = false;
  Status outcome;
  storage->Write(std::move(batch), [&](const Status& status) {
    outcome = status;
    called = true;
  });
  while (!called) loop->RunOne();
  return outcome;
}

}  // namespace ray::gcs
