// Logical resources: named amounts in units of 1/10000, exact. Value type; small, so a sorted vector.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ray/util/status.h"

namespace ray {

class ResourceSet {
 public:
  static constexpr int64_t kUnit = 10000;  // amount of one whole resource
  ResourceSet() = default;
  // INVALID_ARGUMENT for a negative amount, one that is not a multiple of 1/10000, or one beyond 1e14.
  static Result<ResourceSet> FromDoubles(const std::map<std::string, double>& amounts);
  std::map<std::string, double> ToDoubles() const;

  int64_t Get(std::string_view name) const;
  void Set(std::string_view name, int64_t amount);  // 0 removes
  void Add(const ResourceSet& other);
  // May leave negative amounts: a worker that wakes from a blocked get takes its CPU back even if it was given away.
  void Subtract(const ResourceSet& other);
  // Each amount of `need` is there.
  bool Covers(const ResourceSet& need) const;
  bool empty() const { return items_.empty(); }
  const std::vector<std::pair<std::string, int64_t>>& items() const { return items_; }  // sorted by name
  std::string ToString() const;                                                         // "{CPU: 2, GPU: 0.5}"
  friend bool operator==(const ResourceSet&, const ResourceSet&) = default;
  friend auto operator<=>(const ResourceSet&, const ResourceSet&) = default;

 private:
  std::vector<std::pair<std::string, int64_t>> items_;
};

}  // namespace ray
