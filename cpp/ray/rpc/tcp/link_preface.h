// LinkPreface: what goes over a TCP connection before its frames (docs/protocol/link.md): who dials says what it speaks and shows the cluster's token; the
// other end answers in one go, and closes if it does not like it. No byte of a frame is looked at before that. Pure.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "ray/util/status.h"

namespace ray::rpc {

// No other protocol that such a port sees begins like that: an HTTP/2 client says "PRI * HTTP/2.0", a TLS one sends a record.
inline constexpr std::string_view kLinkMagic = "RAYLINK1";
inline constexpr std::string_view kBulkMagic = "RAYBULK1";  // a link for the chunks of objects
// Where TLS is configured, these go ahead of its handshake, and all of the preface comes within.
inline constexpr std::string_view kTlsLinkMagic = "RAYTLSL1";
inline constexpr std::string_view kTlsBulkMagic = "RAYTLSB1";
inline constexpr size_t kMaxAuthorization = 4096;

struct LinkPreface {
  std::string authorization;  // "Bearer <token>"; empty: none
  size_t size = 0;            // bytes that it takes
};
std::string EncodePreface(std::string_view authorization, std::string_view magic = kLinkMagic);
// nullopt: more bytes are needed. DATA_LOSS: this is none.
Result<std::optional<LinkPreface>> DecodePreface(std::string_view bytes);

// OK: the link is open. Otherwise the message says why not.
std::string EncodeWelcome(const Status& status);
// Bytes that it takes, 0: more are needed. UNAUTHENTICATED with the peer's reason, if that is what it says.
Result<size_t> DecodeWelcome(std::string_view bytes);

}  // namespace ray::rpc
