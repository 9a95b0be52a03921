#include "ray/rpc/tcp/link_preface.h"

#include <algorithm>
#include <cstdint>

namespace ray::rpc {
namespace {

constexpr char kOpen = 0, kRefused = 1;
constexpr size_t kMaxReason = 4096;
constexpr size_t kLengthBytes = 2;
static_assert(kLinkMagic.size() == kBulkMagic.size());

void AppendLength(size_t length, std::string* out) {
  out->push_back(static_cast<char>(length & 0xff));
  out->push_back(static_cast<char>(length >> 8));
}

size_t LengthAt(std::string_view bytes, size_t at) {
  return static_cast<uint8_t>(bytes[at]) | size_t{static_cast<uint8_t>(bytes[at + 1])} << 8;
}

}  // namespace

std::string EncodePreface(std::string_view authorization, std::string_view magic) {
  std::string out(magic);
  AppendLength(authorization.size(), &out);
  return out.append(authorization);
}

Result<std::optional<LinkPreface>> DecodePreface(std::string_view bytes) {
  const size_t known = std::min(bytes.size(), kLinkMagic.size());
  const std::string_view begins = bytes.substr(0, known);
  if (begins != kLinkMagic.substr(0, known) && begins != kBulkMagic.substr(0, known))
    return Status::DataLoss("a connection that does not begin as a link");
  constexpr size_t kHead = kLinkMagic.size() + kLengthBytes;
  if (bytes.size() < kHead) return std::optional<LinkPreface>();
  const size_t length = LengthAt(bytes, kLinkMagic.size());
  if (length > kMaxAuthorization) return Status::DataLoss("a link that begins with too much");
  if (bytes.size() < kHead + length) return std::optional<LinkPreface>();
  return std::optional<LinkPreface>({std::string(bytes.substr(kHead, length)), kHead + length});
}

std::string EncodeWelcome(const Status& status) {
  if (status.ok()) return std::string(1, kOpen);
  std::string out(1, kRefused);
  const std::string reason = status.message().substr(0, kMaxReason);
  AppendLength(reason.size(), &out);
  return out + reason;
}

Result<size_t> DecodeWelcome(std::string_view bytes) {
  if (bytes.empty()) return size_t{0};
  if (bytes[0] == kOpen) return size_t{1};
  if (bytes[0] != kRefused) return Status::DataLoss("the peer does not answer as a node does");
  if (bytes.size() < 1 + kLengthBytes) return size_t{0};
  const size_t length = LengthAt(bytes, 1);
  if (length > kMaxReason) return Status::DataLoss("the peer does not answer as a node does");
  if (bytes.size() < 1 + kLengthBytes + length) return size_t{0};
  return Status(StatusCode::kUnauthenticated, std::string(bytes.substr(1 + kLengthBytes, length)));
}

}  // namespace ray::rpc
