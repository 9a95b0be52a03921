// ArenaWriter: a process's way to write into an arena, the fastest way for each case (docs/architecture/object-manager.md):
//   fresh pages:                    pwrite, which makes pages without a fault for each
//   used pages, not yet seen here:  the process's page tables are filled in one call, then memcpy
//   pages seen before:              memcpy, by two threads from kParallelBytes on
// Thread-safe; writers of different bytes do not disturb each other.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "ray/object_manager/shm/arena.h"
#include "ray/util/mutex.h"

namespace ray::object_manager {

// One helper thread, started with the first use, that halves the time of a large piece of work. A caller who finds it busy works alone.
class HelperThread {
 public:
  HelperThread() = default;
  ~HelperThread();
  HelperThread(const HelperThread&) = delete;
  HelperThread& operator=(const HelperThread&) = delete;
  // Calls fn(0) .. fn(n - 1), each once, on the calling thread and perhaps the helper; returns when all have returned.
  void ForEach(size_t n, const std::function<void(size_t)>& fn);

 private:
  struct Work;
  void Run();

  Mutex owner_mu_;  // held by the caller whom the helper serves
  std::thread thread_ GUARDED_BY(owner_mu_);
  Mutex mu_;
  std::condition_variable changed_;
  Work* work_ GUARDED_BY(mu_) = nullptr;  // offered to the helper
  bool busy_ GUARDED_BY(mu_) = false;     // the helper is inside it
  bool stopped_ GUARDED_BY(mu_) = false;
};

class ArenaWriter {
 public:
  static constexpr size_t kParallelBytes = 32 << 20;   // below, waking the helper costs more than it brings
  static constexpr size_t kChunkBytes = 4 << 20;       // what a thread copies in one go
  static constexpr size_t kPopulateBytes = 256 << 10;  // smaller writes simply fault
  static constexpr size_t kPwriteBytes = 64 << 10;

  // Owns `fd`. Maps the whole arena for writing.
  static Result<std::unique_ptr<ArenaWriter>> Make(int fd, uint64_t size);
  ~ArenaWriter();

  uint8_t* data() const { return mapping_->data(); }
  uint64_t size() const { return mapping_->size(); }
  int fd() const { return fd_; }
  // Copies `size` bytes to `offset` of the arena. Of the arena, [.., warm_end) is known to have pages as far as this write is concerned.
  Status Write(uint64_t offset, const void* from, size_t size, uint64_t warm_end);

 private:
  ArenaWriter(int fd, std::unique_ptr<Mapping> mapping);
  Status WriteCold(uint64_t offset, const uint8_t* from, size_t size);
  void WriteWarm(uint64_t offset, const uint8_t* from, size_t size);
  void CopyChunk(uint64_t offset, const uint8_t* from, size_t size);

  const int fd_;
  const std::unique_ptr<Mapping> mapping_;
  // One bit for each kSeenBytes: this process's page tables have (nearly) all of it. A hint: when wrong, pages fault one by one.
  static constexpr uint64_t kSeenBytes = 256 << 10;
  std::vector<std::atomic<uint8_t>> seen_;
  HelperThread helper_;
};

}  // namespace ray::object_manager
