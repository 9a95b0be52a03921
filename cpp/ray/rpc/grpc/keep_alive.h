// When a TCP connection between nodes counts as broken though nobody said so. For every carrier.
#pragma once

namespace ray::rpc {

inline constexpr int kKeepAliveMs = 10000;        // a connection that is silent for this long is asked for a sign of life
inline constexpr int kKeepAliveTimeoutMs = 5000;  // and is broken when none comes for this long

}  // namespace ray::rpc
