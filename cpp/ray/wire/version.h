// Version of everything in protos/ and docs/protocol/: processes of one cluster must agree on it. Compared as text.
#pragma once

#include <string_view>

namespace ray {

inline constexpr std::string_view kProtocolVersion = "1";

}  // namespace ray
