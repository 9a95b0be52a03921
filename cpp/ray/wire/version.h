// Version of everything in protos/ and docs/protocol/: a whole number. Processes of one node must have the same; nodes of one cluster may be one apart,
// so that a cluster can be upgraded node by node.
#pragma once

#include <charconv>
#include <string_view>
#include <system_error>

namespace ray {

inline constexpr std::string_view kProtocolVersion = "1";

// Whether a node that speaks `a` and one that speaks `b` may be in one cluster.
inline bool ProtocolsMayMeet(std::string_view a, std::string_view b) {
  const auto read = [](std::string_view text, int* number) {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *number);
    return error == std::errc() && end == text.data() + text.size() && *number >= 0;
  };
  int x = 0, y = 0;
  return read(a, &x) && read(b, &y) && x - y <= 1 && y - x <= 1;
}

}  // namespace ray
