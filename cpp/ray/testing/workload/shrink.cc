#include "ray/testing/workload/shrink.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace ray::sim {

std::set<size_t> Shrink(size_t last, size_t tries, const std::function<bool(const std::set<size_t>& without)>& fails) {
  std::vector<size_t> left(last + 1);
  for (size_t i = 0; i <= last; ++i) left[i] = i;
  std::set<size_t> without;
  size_t part = left.size();
  while (!left.empty()) {
    bool found = false;
    // The latest first: the cause is nearer to the end than to the beginning, as a rule.
    for (size_t end = left.size(); end > 0;) {
      const size_t begin = end - std::min(part, end);
      std::set<size_t> more = without;
      more.insert(left.begin() + static_cast<std::ptrdiff_t>(begin), left.begin() + static_cast<std::ptrdiff_t>(end));
      if (tries == 0) return without;
      --tries;
      if (fails(more)) {
        without = std::move(more);
        left.erase(left.begin() + static_cast<std::ptrdiff_t>(begin), left.begin() + static_cast<std::ptrdiff_t>(end));
        found = true;
      }
      end = begin;
    }
    if (part == 1 && !found) break;
    part = std::max<size_t>(1, std::min(part / 2, left.size()));
  }
  return without;
}

}  // namespace ray::sim
