#include "ray/rpc/grpc/grpc_stream.h"

#include <unistd.h>

#include <atomic>
#include <utility>

#include "ray/rpc/grpc/grpc_server.h"

namespace ray::rpc {
namespace {

// Hands the bytes over without copying them.
grpc::ByteBuffer ToBuffer(std::string bytes) {
  auto* owned = new std::string(std::move(bytes));
  grpc::Slice slice(
      owned->data(), owned->size(), [](void* p) { delete static_cast<std::string*>(p); }, owned);
  return grpc::ByteBuffer(&slice, 1);
}

}  // namespace

uint64_t NextGrpcConnectionId() {
  // Apart from the ids of other carriers.
  static std::atomic<uint64_t> next{uint64_t{1} << 48};
  return next.fetch_add(1, std::memory_order_relaxed);
}

GrpcStream::GrpcStream(std::shared_ptr<StreamCall> call, CompletionThread* thread, const Dispatcher* dispatcher, async::Loop* loop)
    : id_(NextGrpcConnectionId()), thread_(thread), dispatcher_(dispatcher), loop_(loop), pending_(loop), call_(std::move(call)) {}

void GrpcStream::Open(const std::function<void(void* tag)>& start) {
  if (!thread_->Join(Self())) return End(Status::Cancelled("this process stops"), true);
  MutexLock lock(&mu_);
  if (!call_) return;
  if (start) {
    start(CompletionThread::Tag([self = Self(), call = call_](bool ok) { self->OnOpen(ok); }));
  } else {
    open_ = true;
    ReadLocked();
  }
}

void GrpcStream::OnOpen(bool ok) {
  if (!ok) return OnEnd();
  MutexLock lock(&mu_);
  if (!call_) return;
  open_ = true;
  ReadLocked();
  WriteLocked();
}

Status GrpcStream::Append(FrameKind kind, MethodId method, uint64_t call_id, std::string_view control, const PartList& parts) {
  RAY_ASSIGN_OR_RETURN(FrameHeader header, MakeFrameHeader(kind, method, call_id, 0, control.size(), parts, kGrpcMaxFrameBytes));
  MutexLock lock(&mu_);
  if (!call_) return {};  // pending calls are told by the end
  AppendFrame(header, control, parts, &outbox_);
  WriteLocked();
  return {};
}

void GrpcStream::Call(MethodId method, const MessageLite& request, const PartList& parts, ReplyCallback callback, CallOptions options) {
  CallRaw(method, request.SerializeAsString(), parts, std::move(callback), options);
}

void GrpcStream::CallRaw(MethodId method, std::string_view control, const PartList& parts, ReplyCallback callback, CallOptions options) {
  uint64_t call_id = pending_.Add(std::move(callback), options.timeout);
  if (call_id == 0) return;
  if (Status status = Append(FrameKind::kRequest, method, call_id, control, parts); !status.ok())
    pending_.FailLater(call_id, std::move(status));
}

void GrpcStream::Notify(MethodId method, const MessageLite& message, const PartList& parts, bool) {
  NotifyRaw(method, message.SerializeAsString(), parts);
}

void GrpcStream::NotifyRaw(MethodId method, std::string_view control, const PartList& parts) {
  // A message that is too large cannot be sent, and nobody could be told but by ending the link.
  if (Status status = Append(FrameKind::kNotify, method, 0, control, parts); !status.ok()) Close(std::move(status));
}

void GrpcStream::SendReply(MethodId method, uint64_t call_id, FrameKind kind, std::string_view control, const MessageLite* message,
                           const PartList& parts, int fd, bool) {
  Status status = fd >= 0 ? Status::Unimplemented("descriptors do not travel between nodes")
                          : Append(kind, method, call_id, message ? std::string_view(message->SerializeAsString()) : control, parts);
  if (!status.ok()) (void)Append(FrameKind::kError, method, call_id, EncodeError(status), {});
}

void GrpcStream::WriteLocked() {
  if (!call_ || !open_ || writing_ || outbox_.empty()) return;
  writing_ = true;
  writing_bytes_ = outbox_.size();
  // gRPC keeps a reference to the slices, not to the ByteBuffer.
  call_->writer->Write(ToBuffer(std::exchange(outbox_, {})),
                       CompletionThread::Tag([self = Self(), call = call_](bool ok) { self->OnWritten(ok); }));
}

void GrpcStream::OnWritten(bool ok) {
  MutexLock lock(&mu_);
  // After a failed write the read under way fails too, and that ends the stream.
  if (!ok) return;
  writing_ = false;
  writing_bytes_ = 0;
  WriteLocked();
}

void GrpcStream::ReadLocked() {
  auto buffer = std::make_shared<grpc::ByteBuffer>();
  call_->reader->Read(buffer.get(),
                      CompletionThread::Tag([self = Self(), call = call_, buffer](bool ok) { self->OnRead(ok, buffer.get()); }));
}

void GrpcStream::OnRead(bool ok, grpc::ByteBuffer* buffer) {
  if (!ok) return OnEnd();
  grpc::Slice message;
  if (!buffer->DumpToSingleSlice(&message).ok()) return End(Status::DataLoss("a gRPC message that cannot be read"), true);
  const std::string_view bytes(reinterpret_cast<const char*>(message.begin()), message.size());
  Ranges ranges{{0, bytes.size()}};
  if (dispatcher_->has_direct()) ranges = HandleDirect(bytes);
  const bool for_loop = !ranges.empty();
  if (for_loop) {
    loop_->Post("frames", [self = Self(), message, ranges = std::move(ranges)] {
      self->Handle({reinterpret_cast<const char*>(message.begin()), message.size()}, ranges);
    });
  }
  MutexLock lock(&mu_);
  if (for_loop) unhandled_bytes_ += message.size();
  if (!call_) return;
  if (unhandled_bytes_ < kMaxUnhandledBytes) {
    ReadLocked();
  } else {
    read_paused_ = true;
  }
}

GrpcStream::Ranges GrpcStream::HandleDirect(std::string_view message) {
  Ranges left;
  const ConnectionPtr self = shared_from_this();
  for (size_t at = 0; at < message.size();) {
    FrameHeader header;
    const bool whole = message.size() - at >= kFrameHeaderBytes &&
                       DecodeFrameHeader(reinterpret_cast<const uint8_t*>(message.data() + at), kGrpcMaxFrameBytes, &header).ok() &&
                       message.size() - at >= kFrameHeaderBytes + header.frame_len;
    const size_t length = whole ? kFrameHeaderBytes + header.frame_len : message.size() - at;
    DecodedFrame frame;
    if (whole && header.kind == FrameKind::kNotify && dispatcher_->IsDirect(header.method) &&
        DecodeFrame(message.substr(at, length), kGrpcMaxFrameBytes, &frame).ok()) {
      dispatcher_->Dispatch(Request{static_cast<MethodId>(header.method), frame.control, std::move(frame.parts), self, true}, Responder());
    } else if (!left.empty() && left.back().first + left.back().second == at) {
      left.back().second += length;
    } else {
      left.emplace_back(at, length);
    }
    at += length;
  }
  return left;
}

void GrpcStream::Handle(std::string_view message, const Ranges& ranges) {
  for (const auto& [offset, length] : ranges) {
    std::string_view rest = message.substr(offset, length);
    while (!rest.empty()) {
      {
        MutexLock lock(&mu_);
        if (local_end_) return;
      }
      DecodedFrame frame;
      Result<size_t> used = DecodeFrame(rest, kGrpcMaxFrameBytes, &frame);
      if (!used.ok()) return Close(used.status());
      if (*used == 0) return Close(Status::DataLoss("a gRPC message with an incomplete frame"));
      DeliverFrame(frame.header, frame.control, std::move(frame.parts), -1, shared_from_this(), *dispatcher_, &pending_);
      rest.remove_prefix(*used);
    }
  }
  MutexLock lock(&mu_);
  unhandled_bytes_ -= message.size();
  if (read_paused_ && call_ && unhandled_bytes_ < kMaxUnhandledBytes) {
    read_paused_ = false;
    ReadLocked();
  }
}

void GrpcStream::OnEnd() {
  {
    MutexLock lock(&mu_);
    if (!call_) return;
    auto status = std::make_shared<grpc::Status>();
    auto done = [self = Self(), call = call_, status](bool) {
      std::string text = status->error_message();
      // Trying again will not help who has no token; whatever else ended the stream, it may.
      const bool refused = status->error_code() == grpc::StatusCode::UNAUTHENTICATED;
      self->End(refused ? Status(StatusCode::kUnauthenticated, std::move(text))
                        : Status::Unavailable("the link has ended" + (text.empty() ? "" : ": " + text)),
                false);
    };
    void* tag = CompletionThread::Tag(done);
    if (call_->Finish(status.get(), tag)) return;
    delete static_cast<std::function<void(bool)>*>(tag);
  }
  End(Status::Unavailable("the peer has gone"), false);
}

void GrpcStream::End(Status reason, bool local) {
  std::shared_ptr<StreamCall> call;  // released without the lock
  {
    MutexLock lock(&mu_);
    local_end_ = local_end_ || local;
    if (!call_) return;
    call = std::exchange(call_, nullptr);
    reason_ = reason;
    outbox_.clear();
    writing_bytes_ = 0;
  }
  call->Cancel();
  // Posted behind the messages that were received before.
  loop_->Post("connection closed", [self = Self(), reason = std::move(reason)] {
    self->pending_.FailAll(reason);
    std::vector<std::function<void(const Status&)>> callbacks;
    {
      MutexLock lock(&self->mu_);
      self->end_told_ = true;
      callbacks.swap(self->on_close_);
    }
    for (const auto& callback : callbacks) callback(reason);
  });
  thread_->Leave(Self());
}

bool GrpcStream::closed() const {
  MutexLock lock(&mu_);
  return !call_;
}

void GrpcStream::OnClose(std::function<void(const Status&)> callback) {
  Status reason;
  {
    MutexLock lock(&mu_);
    if (!end_told_) {
      on_close_.push_back(std::move(callback));
      return;
    }
    reason = reason_;
  }
  loop_->Post("connection closed", [callback = std::move(callback), reason = std::move(reason)] { callback(reason); });
}

size_t GrpcStream::unsent_bytes() const {
  MutexLock lock(&mu_);
  return outbox_.size() + writing_bytes_;
}

}  // namespace ray::rpc
