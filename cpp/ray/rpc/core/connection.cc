#include "ray/rpc/core/connection.h"

#include <unistd.h>

#include <utility>

#include "ray/util/check.h"

namespace ray::rpc {
namespace {

void PutVarint(uint32_t value, std::string* out) {
  for (; value >= 0x80; value >>= 7) out->push_back(static_cast<char>(value | 0x80));
  out->push_back(static_cast<char>(value));
}

bool GetVarint(std::string_view* in, uint32_t* value) {
  *value = 0;
  for (int shift = 0; shift < 35 && !in->empty(); shift += 7) {
    auto byte = static_cast<uint8_t>(in->front());
    in->remove_prefix(1);
    *value |= static_cast<uint32_t>(byte & 0x7f) << shift;
    if (byte < 0x80) return true;
  }
  return false;
}

}  // namespace

Reply::~Reply() {
  if (fd >= 0) ::close(fd);
}

Responder::Responder(ConnectionPtr connection, MethodId method, uint64_t call_id)
    : connection_(std::move(connection)), method_(method), call_id_(call_id) {}

Responder::Responder(Responder&& other) noexcept
    : connection_(std::move(other.connection_)), method_(other.method_), call_id_(other.call_id_), watch_(std::move(other.watch_)) {
  other.connection_ = nullptr;
}

Responder& Responder::operator=(Responder&& other) noexcept {
  std::swap(connection_, other.connection_);
  std::swap(method_, other.method_);
  std::swap(call_id_, other.call_id_);
  std::swap(watch_, other.watch_);
  return *this;
}

Responder::~Responder() {
  if (connection_) Fail(Status::Internal(std::string(MethodName(method_)) + ": the handler gave no answer"));
}

void Responder::Send(const MessageLite& reply, const PartList& parts, bool corked) {
  RAY_CHECK(valid()) << "a second answer to one request";
  if (watch_ != nullptr) std::exchange(watch_, nullptr)->Answered(reply.SerializeAsString(), parts);
  ConnectionPtr connection = std::exchange(connection_, nullptr);
  connection->SendReply(method_, call_id_, FrameKind::kReply, {}, &reply, parts, -1, corked);
}

void Responder::SendRaw(std::string_view control, const PartList& parts) {
  RAY_CHECK(valid()) << "a second answer to one request";
  if (watch_ != nullptr) std::exchange(watch_, nullptr)->Answered(std::string(control), parts);
  ConnectionPtr connection = std::exchange(connection_, nullptr);
  connection->SendReply(method_, call_id_, FrameKind::kReply, control, nullptr, parts, -1, false);
}

void Responder::SendWithFd(const MessageLite& reply, int fd) {
  RAY_CHECK(valid()) << "a second answer to one request";
  ConnectionPtr connection = std::exchange(connection_, nullptr);
  connection->SendReply(method_, call_id_, FrameKind::kReply, {}, &reply, {}, fd, false);
}

void Responder::Fail(const Status& status) {
  RAY_CHECK(valid()) << "a second answer to one request";
  RAY_CHECK(!status.ok()) << "a failure needs an error";
  if (watch_ != nullptr) std::exchange(watch_, nullptr)->Failed(status);
  ConnectionPtr connection = std::exchange(connection_, nullptr);
  connection->SendReply(method_, call_id_, FrameKind::kError, EncodeError(status), nullptr, {}, -1, false);
}

// varint code, varint cause + 1, then the message.
std::string EncodeError(const Status& status) {
  std::string out;
  PutVarint(static_cast<uint32_t>(status.code()), &out);
  PutVarint(static_cast<uint32_t>(status.cause() + 1), &out);
  out += status.message();
  return out;
}

Status DecodeError(std::string_view control) {
  uint32_t code, cause;
  if (!GetVarint(&control, &code) || !GetVarint(&control, &cause)) return Status::DataLoss("an error that cannot be parsed");
  // A code that we do not know comes from a newer peer: still a failure.
  if (code == 0 || code > static_cast<uint32_t>(StatusCode::kUnauthenticated)) code = static_cast<uint32_t>(StatusCode::kUnknown);
  return {static_cast<StatusCode>(code), std::string(control), static_cast<int32_t>(cause) - 1};
}

}  // namespace ray::rpc
