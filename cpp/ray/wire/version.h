// Version of everything in protos/ and docs/protocol/: a whole number. Processes of one node must have the same; nodes of one cluster may be one apart,
// so that a cluster can be upgraded node by node.
#pragma once

#include <charconv>
#include <string_view>

namespace ray {

inline constexpr std::string_view kProtocolVersion = "1";

// Whether a node that speaks `a` and one that speaks `b` may be in one cluster.
inline bool ProtocolsMayMeet(std::string_view a, std::string_view b) {
  int x = 0, y = 0;
  const bool numbers = std::from_chars(a.data(), a.data() + a.size(), x).ptr == a.data() + a.size() && !a.empty() &&
                       std::from_chars(b.data(), b.data() + b.size(), y).ptr == b.data() + b.size() && !b.empty();
  return numbers && x - y <= 1 && y - x <= 1;
}

}  // namespace ray
