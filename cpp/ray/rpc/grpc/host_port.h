// Addresses of TCP listeners as people write them: "10.0.0.1:6379", "[::1]:6379", "head.example:6379". Pure.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "ray/util/status.h"

namespace ray::rpc {

struct HostPort {
  std::string host;  // without brackets
  uint16_t port = 0;

  // Only this machine can reach it: 127.0.0.0/8, ::1 or localhost. Other names are taken to be reachable from elsewhere.
  bool IsLoopback() const;
  std::string ToString() const;  // with brackets around an IPv6 address
};

// INVALID_ARGUMENT says what is wrong with `text`.
Result<HostPort> ParseHostPort(std::string_view text);
std::string FormatHostPort(std::string_view host, int port);
// "unix:/path", as opposed to "host:port".
inline bool IsUnixAddress(std::string_view address) { return address.starts_with("unix:"); }

}  // namespace ray::rpc
