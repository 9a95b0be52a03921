#include "ray/rpc/tunnel/tunnel_connection.h"

#include <cstring>
#include <utility>

#include "ray/util/logging.h"
#include "ray/wire/convert.h"

namespace ray::rpc {
namespace {

constexpr size_t kChunk = 64 << 10;  // frames gather in one envelope up to this size

uint64_t NextId() {
  // Apart from the ids of other carriers.
  static std::atomic<uint64_t> next{uint64_t{1} << 52};
  return next.fetch_add(1, std::memory_order_relaxed);
}

class StringBuffer final : public Buffer {
 public:
  explicit StringBuffer(std::string bytes) : Buffer(nullptr, bytes.size()), bytes_(std::move(bytes)) {
    data_ = reinterpret_cast<const uint8_t*>(bytes_.data());
  }

 private:
  const std::string bytes_;
};

}  // namespace

TunnelConnection::TunnelConnection(std::shared_ptr<TunnelHub> hub, const Address& peer, uint64_t channel, bool opener)
    : hub_(std::move(hub)),
      peer_(peer),
      channel_(channel),
      opener_(opener),
      id_(NextId()),
      calls_(hub_->deps_.loop),
      core_(hub_->deps_.config.window_bytes) {
  MutexLock lock(&mu_);
  ToProto(peer_, envelope_.mutable_to());
  ToProto(hub_->deps_.self, envelope_.mutable_from());
  envelope_.set_channel(channel_);
  envelope_.set_from_opener(opener_);
}

// --- sending ---

void TunnelConnection::StartCall(MethodId method, std::string_view control, const MessageLite* message, const PartList& parts,
                                 ReplyCallback callback, CallOptions options) {
  const uint64_t call_id = calls_.Add(std::move(callback), options.timeout);
  if (call_id == 0) return;
  // A connection that ends in between fails the call in its teardown.
  Status status = SendFrame(FrameKind::kRequest, method, call_id, control, message, parts, options.corked);
  if (!status.ok()) calls_.FailLater(call_id, std::move(status));
}

void TunnelConnection::Call(MethodId method, const MessageLite& request, const PartList& parts, ReplyCallback callback,
                            CallOptions options) {
  StartCall(method, {}, &request, parts, std::move(callback), options);
}

void TunnelConnection::CallRaw(MethodId method, std::string_view control, const PartList& parts, ReplyCallback callback,
                               CallOptions options) {
  StartCall(method, control, nullptr, parts, std::move(callback), options);
}

void TunnelConnection::Notify(MethodId method, const MessageLite& message, const PartList& parts, bool corked) {
  if (Status status = SendFrame(FrameKind::kNotify, method, 0, {}, &message, parts, corked); !status.ok()) {
    RAY_LOG(ERROR) << MethodName(method) << " not sent: " << status.ToString();
  }
}

void TunnelConnection::NotifyRaw(MethodId method, std::string_view control, const PartList& parts) {
  if (Status status = SendFrame(FrameKind::kNotify, method, 0, control, nullptr, parts, false); !status.ok()) {
    RAY_LOG(ERROR) << MethodName(method) << " not sent: " << status.ToString();
  }
}

void TunnelConnection::SendReply(MethodId method, uint64_t call_id, FrameKind kind, std::string_view control, const MessageLite* message,
                                 const PartList& parts, int fd, bool corked) {
  Status status = fd >= 0 ? Status::Unimplemented("descriptors do not travel between nodes")
                          : SendFrame(kind, method, call_id, control, message, parts, corked);
  if (status.ok()) return;
  // The caller must hear of it; an error frame is small.
  status = SendFrame(FrameKind::kError, method, call_id, EncodeError(status).substr(0, 4096), nullptr, {}, corked);
  if (!status.ok()) {
    RAY_LOG(ERROR) << MethodName(method) << ": reply not sent: " << status.ToString();
  }
}

Status TunnelConnection::SendFrame(FrameKind kind, MethodId method, uint64_t call_id, std::string_view control, const MessageLite* message,
                                   const PartList& parts, bool corked) {
  const size_t control_len = message != nullptr ? message->ByteSizeLong() : control.size();
  RAY_ASSIGN_OR_RETURN(FrameHeader header,
                       MakeFrameHeader(kind, method, call_id, 0, control_len, parts, hub_->deps_.config.max_frame_bytes));
  const bool in_loop = hub_->deps_.loop->InLoop();
  bool became_dirty = false;
  {
    MutexLock lock(&mu_);
    if (closed()) return {};
    AppendLocked(header, control, message, parts);
    // What is sent on the loop leaves together when the round ends.
    if ((corked || in_loop) && outbox_bytes_ < kChunk) {
      became_dirty = !std::exchange(dirty_, true);
    } else {
      EmitLocked(/*even_so=*/false);
    }
  }
  if (became_dirty) {
    hub_->AddDirty(Self());
    if (!in_loop) hub_->deps_.loop->RequestFlush();
  }
  return {};
}

void TunnelConnection::AppendLocked(const FrameHeader& header, std::string_view control, const MessageLite* message,
                                    const PartList& parts) {
  const size_t size = kFrameHeaderBytes + header.frame_len;
  if (outbox_.empty() || outbox_.back().size() + size > kChunk) outbox_.emplace_back();
  std::string& chunk = outbox_.back();
  const size_t start = chunk.size();
  chunk.resize(start + size);
  uint8_t* out = EncodeFrameHead(header, parts, reinterpret_cast<uint8_t*>(chunk.data() + start));
  if (message != nullptr) {
    out = message->SerializeWithCachedSizesToArray(out);
  } else if (!control.empty()) {
    std::memcpy(out, control.data(), control.size());
    out += control.size();
  }
  for (const BufferPtr& part : parts) {
    if (part->size() == 0) continue;
    std::memcpy(out, part->data(), part->size());
    out += part->size();
  }
  outbox_bytes_ += size;
}

void TunnelConnection::EmitLocked(bool even_so) {
  while (!outbox_.empty() && (even_so || core_.MaySend())) {
    std::string chunk = std::move(outbox_.front());
    outbox_.pop_front();
    outbox_bytes_ -= chunk.size();
    SendEnvelopeLocked(&chunk);
  }
}

void TunnelConnection::SendEnvelopeLocked(std::string* chunk) {
  PartList parts;
  if (chunk != nullptr) {
    envelope_.set_sequence(core_.OnSent(chunk->size()));
    parts.push_back(std::make_shared<StringBuffer>(std::move(*chunk)));
    hub_->deps_.loop
        ->ExpectSoon();  // an answer, or the next call; it takes four processes, so that polling must not keep them from running
  }
  envelope_.set_consumed(core_.TellConsumed());
  hub_->deps_.send(MethodId::kTunnel, envelope_.SerializeAsString(), parts);
}

void TunnelConnection::Flush() {
  MutexLock lock(&mu_);
  dirty_ = false;
  if (!closed()) EmitLocked(/*even_so=*/false);
}

size_t TunnelConnection::unsent_bytes() const {
  MutexLock lock(&mu_);
  return outbox_bytes_ + core_.under_way();
}

// --- receiving ---

void TunnelConnection::Receive(const v1::TunnelFrames& envelope, const PartList& parts) {
  const bool payload = !parts.empty();
  bool lost;
  {
    MutexLock lock(&mu_);
    lost = !core_.OnAcknowledged(envelope.consumed()) || (payload && !core_.OnReceived(envelope.sequence()));
    if (!lost && !closed() && !dirty_) EmitLocked(/*even_so=*/false);
  }
  if (lost) return Close(Status::Unavailable("a part of what the peer said was lost on the way"));
  if (!payload) return;
  std::string_view rest = parts[0]->view();
  const ConnectionPtr self = shared_from_this();
  while (!rest.empty() && !closed()) {
    DecodedFrame frame;
    Result<size_t> used = DecodeFrame(rest, hub_->deps_.config.max_frame_bytes, &frame);
    if (!used.ok() || *used == 0) return Close(Status::DataLoss("an envelope with an incomplete frame"));
    DeliverFrame(frame.header, frame.control, std::move(frame.parts), -1, self, *hub_->deps_.dispatcher, &calls_);
    rest.remove_prefix(*used);
  }
  MutexLock lock(&mu_);
  if (core_.OnHandled(parts[0]->size()) && !closed()) SendEnvelopeLocked(nullptr);
}

// --- the end ---

void TunnelConnection::End(Status reason, bool tell_peer) {
  {
    MutexLock lock(&mu_);
    if (closed()) return;
    reason_ = reason.ok() ? Status::Unavailable("connection closed") : std::move(reason);
    if (tell_peer) {
      EmitLocked(/*even_so=*/true);  // what was said before should arrive
      v1::TunnelClosed message;
      *message.mutable_to() = envelope_.to();
      *message.mutable_from() = envelope_.from();
      message.set_channel(channel_);
      message.set_from_opener(opener_);
      message.set_cause(v1::TUNNEL_CAUSE_CLOSED);
      message.set_reason(reason_.message());
      hub_->deps_.send(MethodId::kTunnelClosed, message.SerializeAsString(), {});
    }
    outbox_.clear();
    outbox_bytes_ = 0;
    closed_.store(true, std::memory_order_release);
  }
  if (tell_peer && !hub_->deps_.loop->InLoop()) hub_->deps_.flush();
  hub_->Forget(*this);
  hub_->deps_.loop->Post("tunnel closed", [self = Self()] {
    std::vector<std::function<void(const Status&)>> callbacks;
    Status why;
    {
      MutexLock lock(&self->mu_);
      self->torn_down_ = true;
      why = self->reason_;
      callbacks.swap(self->on_close_);
    }
    // Whatever the local reason, callers see a connection that is gone.
    self->calls_.FailAll(Status(StatusCode::kUnavailable, why.message(), why.cause()));
    for (auto& callback : callbacks) callback(why);
  });
}

void TunnelConnection::Drop() {
  std::vector<std::function<void(const Status&)>> callbacks;  // destroyed without the lock
  {
    MutexLock lock(&mu_);
    closed_.store(true, std::memory_order_release);
    callbacks.swap(on_close_);
  }
  calls_.Drop();
}

void TunnelConnection::OnClose(std::function<void(const Status&)> callback) {
  Status reason;
  {
    MutexLock lock(&mu_);
    if (!torn_down_) {
      on_close_.push_back(std::move(callback));
      return;
    }
    reason = reason_;
  }
  hub_->deps_.loop->Post("tunnel closed", [callback = std::move(callback), reason = std::move(reason)] { callback(reason); });
}

}  // namespace ray::rpc
