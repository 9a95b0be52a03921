#include "ray/object_manager/table/arena_allocator.h"

#include <algorithm>
#include <iterator>

#include "ray/util/check.h"

namespace ray::object_manager {
namespace {

uint64_t RoundUp(uint64_t n, uint64_t align) { return (n + align - 1) & ~(align - 1); }
uint64_t RoundDown(uint64_t n, uint64_t align) { return n & ~(align - 1); }

}  // namespace

void ExtentSet::Add(uint64_t begin, Extent extent) {
  extents_.emplace(begin, extent);
  by_size_.insert(KeyOf(begin, extent));
  bytes_ += extent.end - begin;
}

void ExtentSet::Erase(std::map<uint64_t, Extent>::iterator it) {
  by_size_.erase(KeyOf(it->first, it->second));
  bytes_ -= it->second.end - it->first;
  extents_.erase(it);
}

void ExtentSet::Insert(Range range, Time stamp) {
  if (range.begin >= range.end) return;
  auto next = extents_.lower_bound(range.begin);
  if (next != extents_.begin()) {
    if (auto prev = std::prev(next); prev->second.end >= range.begin) {
      range = {prev->first, std::max(range.end, prev->second.end)};
      stamp = std::max(stamp, prev->second.stamp);
      Erase(prev);
    }
  }
  while (next != extents_.end() && next->first <= range.end) {
    range.end = std::max(range.end, next->second.end);
    stamp = std::max(stamp, next->second.stamp);
    Erase(next++);
  }
  Add(range.begin, {range.end, stamp});
}

void ExtentSet::Remove(Range range) {
  if (range.begin >= range.end) return;
  auto it = extents_.upper_bound(range.begin);
  if (it != extents_.begin()) --it;
  while (it != extents_.end() && it->first < range.end) {
    auto [begin, extent] = *it;
    auto current = it++;
    if (extent.end <= range.begin) continue;
    Erase(current);
    if (begin < range.begin) Add(begin, {range.begin, extent.stamp});
    if (extent.end > range.end) Add(range.end, {extent.end, extent.stamp});
  }
}

std::optional<uint64_t> ExtentSet::FindFit(uint64_t size, uint64_t align) const {
  // Extents of nearly this size may fail on alignment alone: a few are tried, then one is taken that fits wherever it begins.
  constexpr int kTries = 8;
  constexpr int64_t kFirst = INT64_MIN;
  auto it = by_size_.lower_bound({size, kFirst, 0});
  for (int i = 0; i < kTries && it != by_size_.end(); ++i, ++it) {
    auto [extent_size, stamp, begin] = *it;
    uint64_t start = RoundUp(begin, align);
    if (start + size <= begin + extent_size) return start;
  }
  it = by_size_.lower_bound({size + align - 1, kFirst, 0});
  if (it == by_size_.end()) return std::nullopt;
  return RoundUp(std::get<2>(*it), align);
}

std::optional<Range> ExtentSet::Containing(uint64_t offset) const {
  auto it = extents_.upper_bound(offset);
  if (it == extents_.begin()) return std::nullopt;
  --it;
  if (it->second.end <= offset) return std::nullopt;
  return Range{it->first, it->second.end};
}

std::vector<Range> ExtentSet::Overlaps(Range range) const {
  std::vector<Range> out;
  auto it = extents_.upper_bound(range.begin);
  if (it != extents_.begin()) --it;
  for (; it != extents_.end() && it->first < range.end; ++it) {
    Range part{std::max(it->first, range.begin), std::min(it->second.end, range.end)};
    if (part.begin < part.end) out.push_back(part);
  }
  return out;
}

std::vector<Range> ExtentSet::Largest(size_t n) const {
  std::vector<Range> out;
  for (auto it = by_size_.rbegin(); it != by_size_.rend() && out.size() < n; ++it) {
    uint64_t begin = std::get<2>(*it);
    out.push_back({begin, begin + std::get<0>(*it)});
  }
  return out;
}

ArenaAllocator::ArenaAllocator(uint64_t capacity) : capacity_(RoundDown(capacity, kPageSize)) { free_.Insert({0, capacity_}, Time{}); }

std::optional<ArenaAllocator::Block> ArenaAllocator::Allocate(uint64_t size) {
  if (size > capacity_) return std::nullopt;  // also keeps the sums below from overflowing
  const uint64_t need = BlockSize(size);
  const uint64_t align = need >= kLargeSize ? kPageSize : kAlignment;
  auto place = warm_.FindFit(need, align);
  if (!place) {
    // No warm range is long enough alone; one that cold free bytes follow still saves touching its own part.
    for (const Range& warm : warm_.Largest(4)) {
      uint64_t start = RoundUp(warm.begin, align);
      if (start < warm.end && start + need <= free_.Containing(warm.begin)->end) {
        place = start;
        break;
      }
    }
  }
  if (!place) place = free_.FindFit(need, align);
  if (!place) return std::nullopt;
  const Range range{*place, *place + need};
  uint64_t warm_bytes = 0;
  if (auto warm = warm_.Containing(range.begin)) warm_bytes = std::min(warm->end, range.end) - range.begin;
  free_.Remove(range);
  warm_.Remove(range);
  allocated_.emplace(range.begin, need);
  frontier_ = std::max(frontier_, RoundUp(range.end, kPageSize));
  return Block{range.begin, warm_bytes};
}

void ArenaAllocator::Free(uint64_t offset, Time now, uint64_t warm_bytes) {
  auto it = allocated_.find(offset);
  RAY_CHECK(it != allocated_.end()) << "freeing an unallocated block at " << offset;
  const Range range{offset, offset + it->second};
  allocated_.erase(it);
  free_.Insert(range, now);
  warm_.Insert({range.begin, range.begin + std::min(warm_bytes, range.size())}, now);
}

void ArenaAllocator::Split(uint64_t offset, uint64_t at) {
  auto it = allocated_.find(offset);
  RAY_CHECK(it != allocated_.end() && at > offset && at < offset + it->second && at % kAlignment == 0);
  const uint64_t end = offset + it->second;
  it->second = at - offset;
  allocated_.emplace(at, end - at);
}

std::optional<Range> ArenaAllocator::NextFresh(uint64_t max) const {
  if (frontier_ >= capacity_ || max < kPageSize) return std::nullopt;
  return Range{frontier_, std::min(capacity_, frontier_ + RoundDown(max, kPageSize))};
}

void ArenaAllocator::MarkWarm(Range range, Time now) {
  for (const Range& part : free_.Overlaps(range)) warm_.Insert(part, now);
  frontier_ = std::max(frontier_, range.end);
}

std::vector<Range> ArenaAllocator::Trim(Time now, Duration idle, uint64_t floor, uint64_t max_bytes) {
  std::vector<Range> out;
  // Highest addresses first: low ones are where the next objects go.
  for (auto it = warm_.extents().rbegin(); it != warm_.extents().rend(); ++it) {
    uint64_t kept = warm_.bytes();
    uint64_t taken = 0;
    for (const Range& r : out) taken += r.size();
    kept -= taken;
    if (kept <= floor || taken >= max_bytes) break;
    if (it->second.stamp + idle > now) continue;
    Range pages{RoundUp(it->first, kPageSize), RoundDown(it->second.end, kPageSize)};
    if (pages.begin >= pages.end) continue;
    uint64_t budget = RoundDown(std::min(kept - floor, max_bytes - taken), kPageSize);
    if (budget == 0) break;
    pages.begin = std::max(pages.begin, pages.end - std::min(pages.size(), budget));
    out.push_back(pages);
  }
  for (const Range& r : out) {
    warm_.Remove(r);
    if (r.end == frontier_) frontier_ = r.begin;
  }
  return out;
}

std::string ArenaAllocator::TEST_CheckInvariants() const {
  std::map<uint64_t, uint64_t> all;  // begin -> end
  for (const auto& [begin, extent] : free_.extents()) all.emplace(begin, extent.end);
  for (const auto& [begin, size] : allocated_) {
    if (begin % kAlignment != 0) return "unaligned block";
    if (!all.emplace(begin, begin + size).second) return "a block that is also free";
  }
  uint64_t at = 0;
  bool last_free = false;
  for (const auto& [begin, end] : all) {
    if (begin != at) return "gap or overlap at " + std::to_string(at);
    bool is_free = free_.extents().contains(begin);
    if (is_free && last_free) return "free neighbours that were not merged";
    last_free = is_free;
    at = end;
  }
  if (at != capacity_) return "the end is not at the capacity";
  for (const auto& [begin, extent] : warm_.extents()) {
    auto run = free_.Containing(begin);
    if (!run || run->end < extent.end) return "warm but not free";
    if (extent.end > frontier_) return "warm beyond the frontier";
  }
  return "";
}

}  // namespace ray::object_manager
