#include "ray/common/resources.h"

#include <algorithm>
#include <cmath>

namespace ray {
namespace {

constexpr double kMaxAmount = 1e14;

struct NameLess {
  bool operator()(const std::pair<std::string, int64_t>& item, std::string_view name) const { return item.first < name; }
};

// Sums beyond what int64 holds stay at its end: only absurd inputs get there, and they must not become negative.
int64_t SaturatingAdd(int64_t a, int64_t b) {
  int64_t sum;
  if (__builtin_add_overflow(a, b, &sum)) return b > 0 ? INT64_MAX : INT64_MIN;
  return sum;
}

// 15000 -> "1.5"
std::string FormatAmount(int64_t amount) {
  std::string text = amount < 0 ? "-" : "";
  uint64_t magnitude = amount < 0 ? 0 - static_cast<uint64_t>(amount) : static_cast<uint64_t>(amount);
  text += std::to_string(magnitude / ResourceSet::kUnit);
  if (uint64_t fraction = magnitude % ResourceSet::kUnit; fraction != 0) {
    std::string digits = std::to_string(ResourceSet::kUnit + fraction).substr(1);
    digits.erase(digits.find_last_not_of('0') + 1);
    text += '.' + digits;
  }
  return text;
}

}  // namespace

Result<ResourceSet> ResourceSet::FromDoubles(const std::map<std::string, double>& amounts) {
  ResourceSet set;
  for (const auto& [name, amount] : amounts) {
    double scaled = amount * kUnit;
    auto fail = [&, &name = name, amount = amount](const char* why) {
      return Status::InvalidArgument("resource " + name + ": " + std::to_string(amount) + ' ' + why);
    };
    if (!(amount >= 0)) return fail("is not a number from 0 up");  // NaN too
    if (amount > kMaxAmount) return fail("is too large");
    // 0.1 has no exact double, so allow for the error of the last digits.
    if (std::abs(scaled - std::round(scaled)) > 1e-9 * std::max(1.0, scaled)) return fail("is not a multiple of 0.0001");
    if (auto units = static_cast<int64_t>(std::llround(scaled)); units != 0) set.items_.emplace_back(name, units);
  }
  return set;
}

std::map<std::string, double> ResourceSet::ToDoubles() const {
  std::map<std::string, double> amounts;
  for (const auto& [name, amount] : items_) amounts.emplace_hint(amounts.end(), name, static_cast<double>(amount) / kUnit);
  return amounts;
}

int64_t ResourceSet::Get(std::string_view name) const {
  auto it = std::lower_bound(items_.begin(), items_.end(), name, NameLess());
  return it != items_.end() && it->first == name ? it->second : 0;
}

void ResourceSet::Set(std::string_view name, int64_t amount) {
  auto it = std::lower_bound(items_.begin(), items_.end(), name, NameLess());
  bool found = it != items_.end() && it->first == name;
  if (amount == 0) {
    if (found) items_.erase(it);
  } else if (found) {
    it->second = amount;
  } else {
    items_.emplace(it, std::string(name), amount);
  }
}

void ResourceSet::Add(const ResourceSet& other) {
  if (&other == this) {
    for (auto& [name, amount] : items_) amount = SaturatingAdd(amount, amount);
    return;
  }
  for (const auto& [name, amount] : other.items_) Set(name, SaturatingAdd(Get(name), amount));
}

void ResourceSet::Subtract(const ResourceSet& other) {
  if (&other == this) {
    items_.clear();
    return;
  }
  for (const auto& [name, amount] : other.items_) Set(name, SaturatingAdd(Get(name), amount == INT64_MIN ? INT64_MAX : -amount));
}

bool ResourceSet::Covers(const ResourceSet& need) const {
  return std::all_of(need.items_.begin(), need.items_.end(),
                     [this](const auto& item) { return item.second <= 0 || Get(item.first) >= item.second; });
}

std::string ResourceSet::ToString() const {
  std::string text = "{";
  for (const auto& [name, amount] : items_) {
    if (text.size() > 1) text += ", ";
    text += name + ": " + FormatAmount(amount);
  }
  return text + '}';
}

}  // namespace ray
