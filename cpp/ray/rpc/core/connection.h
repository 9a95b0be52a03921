// Connection: one peer, however carried. Requests go both ways; handlers do not know the carrier.
//
// Frame (docs/protocol/frame.md): 24-byte header {u32 frame_len, u32 control_len, u64 call_id, u16 method, u16 n_parts, u8 kind, u8 flags,
// u16 zero}, then n_parts x u64 lengths, the control part (protobuf bytes), the payload parts. frame_len counts all that follows the header.
#pragma once

#include <google/protobuf/message_lite.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "ray/common/buffer.h"
#include "ray/util/clock.h"
#include "ray/util/status.h"
#include "ray/wire/methods.h"

namespace ray::rpc {

using google::protobuf::MessageLite;

enum class FrameKind : uint8_t { kRequest = 1, kReply = 2, kError = 3, kNotify = 4 };

class Connection;
using ConnectionPtr = std::shared_ptr<Connection>;

// What a reply brought. `control` is valid during the callback only; parts may be kept (a kept part pins about its own size).
struct Reply {
  Reply() = default;
  explicit Reply(std::string_view control, PartList parts = {}, int fd = -1) : control(control), parts(std::move(parts)), fd(fd) {}
  Reply(Reply&& other) noexcept : control(other.control), parts(std::move(other.parts)), fd(std::exchange(other.fd, -1)) {}
  Reply& operator=(Reply&&) = delete;
  ~Reply();

  std::string_view control;
  PartList parts;
  int fd = -1;  // a descriptor sent along; the receiver owns it and must take it (set to -1) or it is closed
};
using ReplyCallback = std::function<void(Status status, Reply reply)>;

struct CallOptions {
  Duration timeout = Duration::zero();  // 0: none. Then the callback gets DEADLINE_EXCEEDED, and a late reply is dropped.
  bool corked = false;                  // may wait in the send buffer until Flush, a full buffer, or the loop's flusher
  // Where the reply's only part is received, if it is large, has just this size, and the carrier LandsReplies; else that part has memory of its own.
  std::shared_ptr<Landing> landing = nullptr;
};

// Is told of the answer to a request before it leaves (AnswerLog).
class AnswerWatch {
 public:
  virtual ~AnswerWatch() = default;
  virtual void Answered(std::string control, const PartList& parts) = 0;
  virtual void Failed(const Status& status) = 0;
};

// Answers one request, exactly once; destroyed unanswered it fails the call with INTERNAL. Movable, any thread.
class Responder {
 public:
  Responder() = default;
  Responder(ConnectionPtr connection, MethodId method, uint64_t call_id);
  Responder(Responder&&) noexcept;
  Responder& operator=(Responder&&) noexcept;
  ~Responder();
  void Send(const MessageLite& reply, const PartList& parts = {}, bool corked = false);
  // Control part already serialised (routers).
  void SendRaw(std::string_view control, const PartList& parts);
  void SendWithFd(const MessageLite& reply, int fd);  // `fd` is duplicated
  void Fail(const Status& status);
  bool valid() const { return connection_ != nullptr; }
  // At most one. Not of answers that carry a descriptor.
  void SetWatch(std::unique_ptr<AnswerWatch> watch) { watch_ = std::move(watch); }
  const ConnectionPtr& connection() const { return connection_; }

 private:
  ConnectionPtr connection_;
  MethodId method_{};
  uint64_t call_id_ = 0;
  std::unique_ptr<AnswerWatch> watch_;
};

// A request or one-way message as received. `control` is valid during the handler only.
struct Request {
  MethodId method;
  std::string_view control;
  PartList parts;
  ConnectionPtr connection;
  bool one_way = false;  // then the Responder is invalid
};
using Handler = std::function<void(Request request, Responder responder)>;

// Thread-safe: any thread may call and notify; frames leave in the order of the calls. Never blocks: what the socket does not take is buffered.
// Callbacks run on the loop, exactly once per call: with the reply, the peer's error, DEADLINE_EXCEEDED, or UNAVAILABLE when the connection ends.
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  virtual ~Connection() = default;
  virtual void Call(MethodId method, const MessageLite& request, const PartList& parts, ReplyCallback callback,
                    CallOptions options = {}) = 0;
  virtual void CallRaw(MethodId method, std::string_view control, const PartList& parts, ReplyCallback callback,
                       CallOptions options = {}) = 0;
  virtual void Notify(MethodId method, const MessageLite& message, const PartList& parts = {}, bool corked = false) = 0;
  virtual void NotifyRaw(MethodId method, std::string_view control, const PartList& parts) = 0;
  virtual void Flush() = 0;
  // Pending calls fail with UNAVAILABLE; the close callbacks run, on the loop. Idempotent. Unsent bytes are dropped.
  virtual void Close(Status reason) = 0;
  virtual bool closed() const = 0;
  // Runs on the loop once the connection has ended for whatever reason; at once (posted) if it has.
  virtual void OnClose(std::function<void(const Status&)> callback) = 0;
  virtual uint64_t id() const = 0;       // unique in this process
  virtual int64_t peer_pid() const = 0;  // -1: not on this machine
  // Bytes accepted but not yet taken by the socket; for back-pressure.
  virtual size_t unsent_bytes() const = 0;
  // Whether it heeds CallOptions::landing.
  virtual bool LandsReplies() const { return false; }

 protected:
  friend class Responder;
  virtual void SendReply(MethodId method, uint64_t call_id, FrameKind kind, std::string_view control, const MessageLite* message,
                         const PartList& parts, int fd, bool corked) = 0;
};

// Serialised form of a Status in an error frame, and back.
std::string EncodeError(const Status& status);
Status DecodeError(std::string_view control);

// Typed call: `callback(Status, ReplyMessage&, PartList)`. The reply is parsed on the loop; unparsable bytes give DATA_LOSS.
template <typename ReplyMessage, typename Callback>
void CallTyped(Connection& connection, MethodId method, const MessageLite& request, const PartList& parts, Callback callback,
               CallOptions options = {}) {
  connection.Call(
      method, request, parts,
      [callback = std::move(callback)](Status status, Reply reply) mutable {
        ReplyMessage message;
        if (status.ok() && !message.ParseFromArray(reply.control.data(), static_cast<int>(reply.control.size()))) {
          status = Status::DataLoss("a reply that cannot be parsed");
        }
        callback(std::move(status), message, std::move(reply.parts));
      },
      options);
}

}  // namespace ray::rpc
