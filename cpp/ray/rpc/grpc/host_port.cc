#include "ray/rpc/grpc/host_port.h"

#include <arpa/inet.h>

#include <charconv>

namespace ray::rpc {

bool HostPort::IsLoopback() const {
  if (host == "localhost") return true;
  in_addr v4{};
  if (inet_pton(AF_INET, host.c_str(), &v4) == 1) return (ntohl(v4.s_addr) >> 24) == 127;
  in6_addr v6{};
  return inet_pton(AF_INET6, host.c_str(), &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

std::string HostPort::ToString() const { return FormatHostPort(host, port); }

std::string FormatHostPort(std::string_view host, int port) {
  const bool v6 = host.find(':') != std::string_view::npos;
  return (v6 ? "[" : "") + std::string(host) + (v6 ? "]:" : ":") + std::to_string(port);
}

Result<HostPort> ParseHostPort(std::string_view text) {
  auto bad = [text](std::string_view why) { return Status::InvalidArgument("'" + std::string(text) + "': " + std::string(why)); };
  HostPort out;
  std::string_view port;
  if (text.starts_with('[')) {
    const size_t end = text.find(']');
    if (end == std::string_view::npos || !text.substr(end + 1).starts_with(':')) return bad("an IPv6 address is written [ADDRESS]:PORT");
    out.host = text.substr(1, end - 1);
    port = text.substr(end + 2);
    in6_addr v6{};
    if (inet_pton(AF_INET6, out.host.c_str(), &v6) != 1) return bad("there is no IPv6 address between the brackets");
  } else {
    const size_t colon = text.rfind(':');
    if (colon == std::string_view::npos) return bad("not HOST:PORT");
    if (text.find(':') != colon) return bad("an IPv6 address is written [ADDRESS]:PORT");
    out.host = text.substr(0, colon);
    port = text.substr(colon + 1);
  }
  if (out.host.empty()) return bad("the host is missing");
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), out.port);
  if (error != std::errc() || end != port.data() + port.size()) return bad("the port is not a number from 0 to 65535");
  return out;
}

}  // namespace ray::rpc
