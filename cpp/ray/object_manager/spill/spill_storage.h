// SpillStorage: where spilled objects go: LocalDisk or ExternalStorage.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "ray/util/status.h"

namespace ray::object_manager {

// A file that is used as memory, or the arena: bytes of `fd`, which the receiver does not own.
struct MemoryFile {
  int fd = -1;
  uint64_t offset = 0;
  uint64_t size = 0;
};

// Calls return at once, from any one thread; `done` runs on a thread of the storage. Files are named by number.
class SpillStorage {
 public:
  using Done = std::function<void(const Status&)>;
  using SegmentDone = std::function<void(Result<int> fd)>;

  virtual ~SpillStorage() = default;
  virtual int num_directories() const = 0;
  // Removes what nodes that are gone have left, where that can be told. In the background.
  virtual void RemoveLeftovers() = 0;
  // Writes a new file of the ranges, one after the other. After a failure there is no file. The ranges must not change until `done`.
  // RESOURCE_EXHAUSTED with cause OUT_OF_DISK if the disk is, or would be, too full.
  virtual void Write(int directory, uint64_t file, std::vector<MemoryFile> ranges, Done done) = 0;
  // Fills `to` with the file's bytes from `offset` on. DATA_LOSS if there are not so many.
  virtual void Read(int directory, uint64_t file, uint64_t offset, MemoryFile to, Done done) = 0;
  // No effect if there is no such file.
  virtual void Delete(int directory, uint64_t file) = 0;
  // A nameless file of `size` bytes, with blocks for all of them, so that a mapping of it can be written. The receiver owns it. Errors as Write's.
  virtual void MakeSegment(uint64_t size, SegmentDone done) = 0;
  // Ends what is going on, drops what is not begun, and removes all files. No `done` runs after it returns. Idempotent.
  virtual void Stop() = 0;
};

}  // namespace ray::object_manager
