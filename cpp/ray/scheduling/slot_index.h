// SlotIndex: from ids to the numbers of the places where the things with these ids are.
//
// Problem: views are asked for nodes by their ids all the time. A hash map with entries of its own costs three misses of the cache where there are thousands; here the id
// is compared at the place that is wanted anyway, and what leads there is eight bytes. Open addressing, at most half full; what follows an erased entry moves up. Value type; owned by ClusterView; not
// thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace ray::scheduling {

class SlotIndex {
 public:
  static constexpr uint32_t kNone = UINT32_MAX;

  size_t size() const { return size_; }
  // The one with this hash for which `is(slot)` holds; kNone: there is none.
  template <typename F>
  uint32_t Find(size_t hash, F is) const {
    if (size_ == 0) return kNone;
    const auto tag = static_cast<uint32_t>(hash);
    for (size_t at = Home(tag); entries_[at].slot != kNone; at = Next(at)) {
      if (entries_[at].tag == tag && is(entries_[at].slot)) return entries_[at].slot;
    }
    return kNone;
  }
  // REQUIRES: it is not in it.
  void Insert(size_t hash, uint32_t slot) {
    if (2 * ++size_ > entries_.size()) {
      std::vector<Entry> before = std::exchange(entries_, std::vector<Entry>(entries_.empty() ? 8 : 2 * entries_.size()));
      for (const Entry& entry : before) {
        if (entry.slot != kNone) Put(entry);
      }
    }
    Put({static_cast<uint32_t>(hash), slot});
  }
  // REQUIRES: it is in it.
  void Erase(size_t hash, uint32_t slot) {
    size_t hole = Home(static_cast<uint32_t>(hash));
    while (entries_[hole].slot != slot) hole = Next(hole);
    for (size_t at = Next(hole); entries_[at].slot != kNone; at = Next(at)) {
      // It may move up unless it would come to lie before its home.
      const size_t from_home = (at - Home(entries_[at].tag)) & (entries_.size() - 1), from_hole = (at - hole) & (entries_.size() - 1);
      if (from_home < from_hole) continue;
      entries_[hole] = entries_[at];
      hole = at;
    }
    entries_[hole] = {};
    --size_;
  }

 private:
  struct Entry {
    uint32_t tag = 0;  // of the hash
    uint32_t slot = kNone;
  };
  size_t Home(uint32_t tag) const { return tag & (entries_.size() - 1); }
  size_t Next(size_t at) const { return (at + 1) & (entries_.size() - 1); }
  void Put(const Entry& entry) {
    size_t at = Home(entry.tag);
    while (entries_[at].slot != kNone) at = Next(at);
    entries_[at] = entry;
  }

  std::vector<Entry> entries_;  // a power of two of them
  size_t size_ = 0;
};

}  // namespace ray::scheduling
