// ArenaWriter: a process's way to write into an arena, the fastest way for each case (docs/architecture/object-manager.md):
//   fresh pages:                    pwrite, which makes pages without a fault for each; helpers fault theirs in meanwhile
//   used pages, not yet seen here:  the process's page tables are filled in one call, then memcpy
//   pages seen before:              memcpy; from kStreamBytes on with stores that pass the caches by, and by several threads
// Thread-safe; writers of different bytes do not disturb each other.
#pragma once

#include <stdlib.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <thread>
#include <vector>

#include "ray/object_manager/shm/arena.h"
#include "ray/util/mutex.h"

namespace ray::object_manager {

// A few helper threads, started with the first use, that take part in large pieces of work: each goes to the work that has the fewest of them.
class HelperThreads {
 public:
  // At most 3, and one less than there are processors: more bring nothing to a copy.
  HelperThreads();
  explicit HelperThreads(size_t max) : max_(max) {}
  ~HelperThreads();
  HelperThreads(const HelperThreads&) = delete;
  HelperThreads& operator=(const HelperThreads&) = delete;
  // Calls fn(0) .. fn(n - 1), each once, on the calling thread and whatever helpers are free; returns when all have returned.
  void ForEach(size_t n, const std::function<void(size_t)>& fn);

 private:
  struct Work {
    const std::function<void(size_t)>* fn;
    size_t n;
    size_t next = 0;     // the first piece that nobody has begun
    size_t helpers = 0;  // inside a piece of it
  };
  void Run();
  Work* PickLocked() REQUIRES(mu_);

  const size_t max_;
  Mutex mu_;
  std::condition_variable offered_, finished_;
  std::list<Work*> works_ GUARDED_BY(mu_);  // of callers inside ForEach
  std::vector<std::thread> threads_ GUARDED_BY(mu_);
  bool stopped_ GUARDED_BY(mu_) = false;
};

// memcpy for large ranges of memory that is not read again soon: half as fast again, since the old content of `to` is not fetched first.
void CopyStreaming(uint8_t* to, const uint8_t* from, size_t size);

class ArenaWriter {
 public:
  static constexpr size_t kStreamBytes =
      8 << 20;  // below, readers like to find it in the caches, and waking helpers costs more than it brings
  static constexpr size_t kChunkBytes = 2 << 20;      // what a thread copies in one go
  static constexpr size_t kPopulateBytes = 64 << 10;  // smaller writes simply fault
  static constexpr size_t kPwriteBytes = 64 << 10;

  // Owns `fd`. Maps the whole arena for writing.
  static Result<std::unique_ptr<ArenaWriter>> Make(int fd, uint64_t size);
  ~ArenaWriter();

  uint8_t* data() const { return mapping_->data(); }
  uint64_t size() const { return mapping_->size(); }
  int fd() const { return fd_; }
  // Copies `size` bytes to `offset` of the arena. Of the arena, [.., warm_end) is known to have pages as far as this write is concerned.
  Status Write(uint64_t offset, const void* from, size_t size, uint64_t warm_end);
  // Makes the pages of the range, as far as there are none, and fills this process's page tables: for others that write to data() themselves.
  void Prepare(uint64_t offset, size_t size, uint64_t warm_end);

 private:
  ArenaWriter(int fd, std::unique_ptr<Mapping> mapping);
  Status WriteCold(uint64_t offset, const uint8_t* from, size_t size);
  Status WriteFile(uint64_t offset, const uint8_t* from, size_t size) const;
  // The pages of the range are new: what this process's page tables had there is gone.
  void ForgetSeen(uint64_t offset, size_t size);
  void WriteWarm(uint64_t offset, const uint8_t* from, size_t size);
  // Fills this process's page tables for the range, where it has not been.
  void Populate(uint64_t offset, size_t size);

  const int fd_;
  const std::unique_ptr<Mapping> mapping_;
  // A bit for each page: this process's page tables have it. A hint: when wrong, pages fault one by one. From calloc, so that a large arena of
  // which little is used costs little.
  struct Free {
    void operator()(void* memory) const { ::free(memory); }
  };
  const std::unique_ptr<std::atomic<uint8_t>[], Free> seen_;
  HelperThreads helpers_;
};

}  // namespace ray::object_manager
