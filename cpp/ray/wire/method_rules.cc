#include "ray/wire/method_rules.h"

#include <array>

namespace ray {
namespace {

struct Stated {
  std::string_view service, method;
  MethodRule rule;
};
constexpr Stated kStated[] = {
#define X(service, method, repeat, one_way, waits, unordered, key, why) \
  {service, method, {Repeat::repeat, one_way, waits, unordered, key, why}},
#include "ray/v1/method_rules.inc"
#undef X
};

consteval MethodRule Find(std::string_view service, std::string_view method) {
  for (const Stated& stated : kStated) {
    if (stated.service == service && stated.method == method) return stated.rule;
  }
  throw "a method of methods.h that no proto declares";
}

consteval bool HasNumber(std::string_view service, std::string_view method) {
#define RAY_X(name, number, s, m) \
  if (service == s && method == m) return true;
  RAY_METHODS(RAY_X)
#undef RAY_X
  return false;
}

consteval bool AllHaveNumbers() {
  for (const Stated& stated : kStated) {
    if (!HasNumber(stated.service, stated.method)) return false;
  }
  return true;
}
static_assert(AllHaveNumbers(), "a method of the protos that methods.h does not list");

constexpr auto kRules = [] {
  std::array<std::optional<MethodRule>, kMaxMethodId> rules{};
#define RAY_X(name, number, service, method) rules[number] = Find(service, method);
  RAY_METHODS(RAY_X)
#undef RAY_X
  return rules;
}();

}  // namespace

std::optional<MethodRule> RuleOf(MethodId method) {
  const auto number = static_cast<size_t>(method);
  return number < kRules.size() ? kRules[number] : std::nullopt;
}

}  // namespace ray
