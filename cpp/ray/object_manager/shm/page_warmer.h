// PageWarmer: makes pages of an arena ahead of their use, on a thread of its own, since a fresh page costs ten times what a used one does.
// Owned by the store's shell. One request at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <thread>

#include "ray/object_manager/shm/arena.h"
#include "ray/util/mutex.h"

namespace ray::object_manager {

class PageWarmer {
 public:
  // `on_done(begin, end, status)` runs on the warmer's thread. `arena` must outlive the warmer.
  using DoneCallback = std::function<void(uint64_t begin, uint64_t end, const Status& status)>;
  PageWarmer(Arena* arena, DoneCallback on_done) : arena_(arena), on_done_(std::move(on_done)) {}
  ~PageWarmer() { Stop(); }

  // Makes pages for [begin, end). The thread is started with the first call. REQUIRES: the last request was answered; not after Stop.
  void Warm(uint64_t begin, uint64_t end);
  // Finishes the request in progress, without an answer if it had not begun, and joins the thread. Idempotent.
  void Stop();

 private:
  void Run();

  Arena* const arena_;
  const DoneCallback on_done_;
  std::thread thread_;  // used by the owner only
  Mutex mu_;
  std::condition_variable wake_;
  std::optional<std::pair<uint64_t, uint64_t>> request_ GUARDED_BY(mu_);
  bool stopped_ GUARDED_BY(mu_) = false;
};

}  // namespace ray::object_manager
