// RecentSet: what was put in last, at most so many.
//
// For what must be known for a while and cannot be known for ever, such as which processes have died: news of them that travel another way still come for seconds,
// and a process that lives for months must not keep the names of all that ended meanwhile. Who relies on it must be right, if slower, without what was forgotten.
// Value type; not thread-safe.
#pragma once

#include <cstddef>
#include <deque>
#include <unordered_set>

namespace ray {

template <typename T, typename Hash>
class RecentSet {
 public:
  explicit RecentSet(size_t capacity = 4096) : capacity_(capacity) {}

  // False if it is there already; it is no more recent by that.
  bool insert(const T& item) {
    if (!items_.insert(item).second) return false;
    order_.push_back(item);
    if (order_.size() > capacity_) {
      items_.erase(order_.front());
      order_.pop_front();
    }
    return true;
  }
  bool contains(const T& item) const { return items_.contains(item); }
  bool empty() const { return items_.empty(); }
  size_t size() const { return items_.size(); }

 private:
  size_t capacity_;
  std::unordered_set<T, Hash> items_;
  std::deque<T> order_;  // the oldest first
};

}  // namespace ray
