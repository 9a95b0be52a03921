#include "ray/wire/methods.h"

#include <array>
#include <unordered_map>

namespace ray {
namespace {

constexpr auto kNames = [] {
  std::array<std::string_view, kMaxMethodId> names{};
#define RAY_X(name, number, service, method) names[number] = service "/" method;
  RAY_METHODS(RAY_X)
#undef RAY_X
  return names;
}();

}  // namespace

std::string_view MethodName(MethodId method) {
  auto number = static_cast<size_t>(method);
  return number < kNames.size() && !kNames[number].empty() ? kNames[number] : "unknown";
}

std::optional<MethodId> MethodFromPath(std::string_view path) {
  static const auto* by_name = [] {
    auto* map = new std::unordered_map<std::string_view, MethodId>;
    for (size_t i = 0; i < kNames.size(); ++i) {
      if (!kNames[i].empty()) map->emplace(kNames[i], static_cast<MethodId>(i));
    }
    return map;
  }();
  constexpr std::string_view kPrefix = "/ray.v1.";
  if (!path.starts_with(kPrefix)) return std::nullopt;
  auto it = by_name->find(path.substr(kPrefix.size()));
  if (it == by_name->end()) return std::nullopt;
  return it->second;
}

}  // namespace ray
