// SlotMax: an amount for each of many numbers, and the largest of each eight of them, of each eight of those, and so on.
//
// Problem: to find, from any place, the next node that has so much of a resource, however few have. Set and NextAtLeast look at eight amounts for each level: five for 30,000 numbers.
// Value type; owned by ClusterView; not thread-safe.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace ray::scheduling {

class SlotMax {
 public:
  static constexpr uint32_t kNone = UINT32_MAX;
  static constexpr int64_t kNothing = INT64_MIN;

  size_t size() const { return levels_.empty() ? 0 : levels_[0].size(); }
  int64_t max() const { return levels_.empty() ? kNothing : *std::max_element(levels_.back().begin(), levels_.back().end()); }

  // Of `size` numbers each has nothing.
  void Clear(size_t size) {
    levels_.clear();
    do {
      levels_.emplace_back(size, kNothing);
      size = (size + kFan - 1) / kFan;
    } while (levels_.back().size() > kFan);
  }
  // REQUIRES: slot < size().
  void Set(uint32_t slot, int64_t amount) {
    size_t i = slot;
    levels_[0][i] = amount;
    for (size_t level = 1; level < levels_.size(); ++level) {
      const std::vector<int64_t>& below = levels_[level - 1];
      const size_t begin = i / kFan * kFan;
      const auto first = below.begin() + static_cast<ptrdiff_t>(begin);
      const int64_t largest = *std::max_element(first, first + static_cast<ptrdiff_t>(std::min(kFan, below.size() - begin)));
      i /= kFan;
      if (levels_[level][i] == largest) return;
      levels_[level][i] = largest;
    }
  }
  // The smallest number from `slot` on that has `amount` or more; kNone: there is none.
  uint32_t NextAtLeast(uint32_t slot, int64_t amount) const {
    size_t i = slot, level = 0;
    for (;; ++level) {  // up until a group has one
      if (level == levels_.size() || i >= levels_[level].size()) return kNone;
      const size_t end = std::min(levels_[level].size(), (i / kFan + 1) * kFan);
      while (i < end && levels_[level][i] < amount) ++i;
      if (i < end) break;
      i = (end + kFan - 1) / kFan;
    }
    while (level-- > 0) {
      i *= kFan;
      while (levels_[level][i] < amount) ++i;
    }
    return static_cast<uint32_t>(i);
  }

 private:
  static constexpr size_t kFan = 8;
  std::vector<std::vector<int64_t>> levels_;  // [0]: the amounts; [i + 1]: the largest of each eight of [i]. The last has eight at most
};

}  // namespace ray::scheduling
