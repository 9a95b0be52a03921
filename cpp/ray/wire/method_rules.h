// What may be done when the fate of a message is not known. The rules are stated in the protos (method_rule.proto, which says what each means); the table
// is made of them when the project is built, and a method without a rule does not compile.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "ray/wire/methods.h"

namespace ray {

enum class Repeat : uint8_t { kReadOnly, kIdempotent, kKeyed, kLossy, kOnce };

struct MethodRule {
  Repeat repeat = Repeat::kOnce;
  bool one_way = false;
  bool waits = false;
  bool unordered = false;
  std::string_view key, why;

  // Its receiver bears to get it twice.
  constexpr bool MayRepeat() const { return repeat != Repeat::kOnce; }
  // The loss of the message, or of its answer, is made good: by sending it again, or since it does no harm.
  constexpr bool MayLose() const { return repeat == Repeat::kLossy || (!one_way && MayRepeat()); }
};

// Nothing for a number that no method has.
std::optional<MethodRule> RuleOf(MethodId method);

}  // namespace ray
