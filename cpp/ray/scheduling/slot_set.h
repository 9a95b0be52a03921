// SlotSet: a set of small numbers as bitmaps upon bitmaps, each 64 times shorter than the one below.
//
// Problem: to walk through, from any place, those of many nodes that fit, without looking at the ones that do not. Insert, Erase and NextFrom cost one word per
// level: three for 200,000 numbers. A walk over neighbours stays in one cache line. Value type; owned by ClusterView; not thread-safe.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace ray::scheduling {

class SlotSet {
 public:
  static constexpr uint32_t kNone = UINT32_MAX;

  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  bool Contains(uint32_t slot) const { return slot / 64 < Words(0) && (levels_[0][slot / 64] >> slot % 64 & 1) != 0; }

  // To what `in` says.
  void Assign(uint32_t slot, bool in) {
    if (Contains(slot) == in) return;
    if (in) {
      Insert(slot);
    } else {
      Erase(slot);
    }
  }

  // The smallest number in the set from `slot` on; kNone: there is none.
  uint32_t NextFrom(uint32_t slot) const {
    // Up until a word has something left, then down to its first bit.
    size_t level = 0;
    for (;; ++level) {
      if (level >= levels_.size() || slot / 64 >= levels_[level].size()) return kNone;
      const uint64_t rest = levels_[level][slot / 64] >> slot % 64;
      if (rest != 0) {
        slot += static_cast<uint32_t>(std::countr_zero(rest));
        break;
      }
      slot = slot / 64 + 1;
    }
    while (level-- > 0) slot = slot * 64 + static_cast<uint32_t>(std::countr_zero(levels_[level][slot]));
    return slot;
  }

  // Visits those in [from, to) in order until `visit` returns true. Whether it did.
  template <typename F>
  bool Walk(uint32_t from, uint32_t to, F visit) const {
    for (uint32_t slot = NextFrom(from); slot < to; slot = NextFrom((slot / 64 + 1) * 64)) {
      const uint32_t base = slot / 64 * 64;
      for (uint64_t rest = levels_[0][slot / 64] >> slot % 64 << slot % 64; rest != 0; rest &= rest - 1) {
        slot = base + static_cast<uint32_t>(std::countr_zero(rest));
        if (slot >= to) return false;
        if (visit(slot)) return true;
      }
    }
    return false;
  }

  void Clear() {
    levels_.clear();
    size_ = 0;
  }

 private:
  size_t Words(size_t level) const { return level < levels_.size() ? levels_[level].size() : 0; }

  void Insert(uint32_t slot) {
    if (slot / 64 >= Words(0)) Grow(slot / 64 + 1);
    ++size_;
    for (std::vector<uint64_t>& words : levels_) {
      words[slot / 64] |= uint64_t{1} << slot % 64;
      slot /= 64;
    }
  }

  void Grow(size_t words) {
    words = std::bit_ceil(words);
    for (size_t level = 0;; ++level, words = (words + 63) / 64) {
      const bool fresh = level == levels_.size();
      if (fresh) levels_.emplace_back();
      levels_[level].resize(words);
      if (fresh && level > 0) {
        const std::vector<uint64_t>& below = levels_[level - 1];
        for (size_t i = 0; i < below.size(); ++i) levels_[level][i / 64] |= uint64_t{below[i] != 0} << i % 64;
      }
      if (words == 1) return;
    }
  }

  void Erase(uint32_t slot) {
    --size_;
    for (std::vector<uint64_t>& words : levels_) {
      uint64_t& word = words[slot / 64];
      word &= ~(uint64_t{1} << slot % 64);
      if (word != 0) return;
      slot /= 64;
    }
  }

  std::vector<std::vector<uint64_t>>
      levels_;  // [0]: one bit per number; [i + 1]: one per word of [i] that is not zero. The last has one word
  size_t size_ = 0;
};

}  // namespace ray::scheduling
