// ArenaAllocator: which bytes of the arena belong to whom. All of its state lies outside the arena, so that no client can corrupt it.
//
// Writing to memory that was used before is ten times faster than touching fresh pages, so the allocator knows which free ranges have
// pages ("warm") and gives those out first: the best fit among them, the most recently freed of equals. Warm and cold free ranges that
// touch form one free run, so warmth never costs space. Pure; owned by the ObjectTableCore; not thread-safe. All operations O(log n).
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "ray/util/clock.h"

namespace ray::object_manager {

struct Range {
  uint64_t begin = 0;
  uint64_t end = 0;
  uint64_t size() const { return end - begin; }
  friend bool operator==(const Range&, const Range&) = default;
};

// Disjoint ranges, those that touch are merged; each remembers when its latest part was added.
class ExtentSet {
 public:
  struct Extent {
    uint64_t end;
    Time stamp;
  };
  void Insert(Range range, Time stamp);
  // Removes whatever of `range` is in the set.
  void Remove(Range range);
  // Start of an aligned place of `size` bytes in the smallest extent that has one, the youngest among equals. `align`: a power of two.
  std::optional<uint64_t> FindFit(uint64_t size, uint64_t align) const;
  // The extent that holds the byte at `offset`.
  std::optional<Range> Containing(uint64_t offset) const;
  // Parts of `range` that are in the set.
  std::vector<Range> Overlaps(Range range) const;
  // The `n` largest, largest first.
  std::vector<Range> Largest(size_t n) const;
  uint64_t bytes() const { return bytes_; }
  const std::map<uint64_t, Extent>& extents() const { return extents_; }

 private:
  using SizeKey = std::tuple<uint64_t, int64_t, uint64_t>;  // size, minus stamp, begin
  static SizeKey KeyOf(uint64_t begin, const Extent& e) { return {e.end - begin, -e.stamp.ns, begin}; }
  void Add(uint64_t begin, Extent extent);
  void Erase(std::map<uint64_t, Extent>::iterator it);

  std::map<uint64_t, Extent> extents_;  // by begin
  std::set<SizeKey> by_size_;           // the same extents
  uint64_t bytes_ = 0;                  // their sum
};

class ArenaAllocator {
 public:
  static constexpr uint64_t kAlignment = 64;  // of every block: a cache line, and what SIMD and Arrow ask for
  static constexpr uint64_t kPageSize = 4096;
  static constexpr uint64_t kLargeSize = 1024 * 1024;  // from here on blocks begin and end at pages

  struct Block {
    uint64_t offset;
    uint64_t warm_bytes;  // so many bytes from the start have pages
  };

  // `capacity` is rounded down to whole pages.
  explicit ArenaAllocator(uint64_t capacity);
  // What a block for `size` bytes takes. Zero bytes take a place too.
  static constexpr uint64_t BlockSize(uint64_t size) {
    const uint64_t unit = size >= kLargeSize ? kPageSize : kAlignment;
    return (std::max<uint64_t>(size, 1) + unit - 1) & ~(unit - 1);
  }
  // Nullopt: no run of free bytes is long enough.
  std::optional<Block> Allocate(uint64_t size);
  // Of the block, so many bytes from the start have pages (the default: all). REQUIRES: `offset` was allocated.
  void Free(uint64_t offset, Time now, uint64_t warm_bytes = UINT64_MAX);
  // Makes two blocks of one, to be freed one by one. REQUIRES: `offset` was allocated, `at` lies within and is a multiple of kAlignment.
  void Split(uint64_t offset, uint64_t at);

  // The next `max` bytes that nobody ever used, for warming ahead. Nullopt: there are none.
  std::optional<Range> NextFresh(uint64_t max) const;
  // `range` has pages now. Parts that were allocated meanwhile are left alone.
  void MarkWarm(Range range, Time now);
  // Forgets free warm pages that nobody used since `now - idle`, at most `max_bytes` and only above `floor` bytes of them. The caller
  // gives the pages back to the system before it allocates again.
  std::vector<Range> Trim(Time now, Duration idle, uint64_t floor, uint64_t max_bytes);

  uint64_t capacity() const { return capacity_; }
  uint64_t free_bytes() const { return free_.bytes(); }
  uint64_t warm_free_bytes() const { return warm_.bytes(); }
  // Empty if every byte is accounted for exactly once; else what is wrong.
  std::string TEST_CheckInvariants() const;

 private:
  const uint64_t capacity_;
  ExtentSet free_;
  ExtentSet warm_;                                    // subset of free_
  uint64_t frontier_ = 0;                             // from here on nothing has pages and everything is free; a page boundary
  std::unordered_map<uint64_t, uint64_t> allocated_;  // offset -> block size
};

}  // namespace ray::object_manager
