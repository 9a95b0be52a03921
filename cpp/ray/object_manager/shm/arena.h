// Arena: the memory of one node's object store, an anonymous file (memfd), so that it does not depend on the size of /dev/shm, vanishes
// with the last process that has it, and can be handed over as a descriptor. Its size is fixed; pages appear when they are first touched.
// Mapping: a process's view of it. Both thread-safe after construction.
#pragma once

#include <cstdint>
#include <memory>

#include "ray/util/status.h"

namespace ray::object_manager {

class Arena {
 public:
  // An arena of `size` bytes, sealed against resizing: no client can make the others' mappings fault.
  static Result<std::unique_ptr<Arena>> Make(uint64_t size);
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  int fd() const { return fd_; }  // stays the arena's
  uint64_t size() const { return size_; }
  // Memory that its pages take now.
  uint64_t PageBytes() const;
  // Gives [begin, end) pages now, zeroed where there were none.
  Status AllocatePages(uint64_t begin, uint64_t end);
  // Returns the pages of [begin, end) to the system; the bytes read as zero from then on, in all mappings.
  Status ReleasePages(uint64_t begin, uint64_t end);

 private:
  Arena(int fd, uint64_t size) : fd_(fd), size_(size) {}
  const int fd_;
  const uint64_t size_;
};

class Mapping {
 public:
  enum class Mode { kRead, kReadWrite };
  // Maps the first `size` bytes of `fd`, which may be closed afterwards. Reserves addresses only.
  static Result<std::unique_ptr<Mapping>> Make(int fd, uint64_t size, Mode mode);
  ~Mapping();
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

  uint8_t* data() const { return data_; }  // written only if mapped kReadWrite
  uint64_t size() const { return size_; }

 private:
  Mapping(uint8_t* data, uint64_t size) : data_(data), size_(size) {}
  uint8_t* const data_;
  const uint64_t size_;
};

}  // namespace ray::object_manager
