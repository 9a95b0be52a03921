#include "ray/rpc/grpc/grpc_stream.h"

#include <unistd.h>

#include <atomic>
#include <utility>

#include "ray/rpc/grpc/grpc_server.h"

namespace ray::rpc {
namespace {

// Hands the bytes over without copying them.
grpc::Slice ToSlice(std::string bytes) {
  auto* owned = new std::string(std::move(bytes));
  return {owned->data(), owned->size(), [](void* p) { delete static_cast<std::string*>(p); }, owned};
}

grpc::Slice ToSlice(const BufferPtr& part) {
  auto* owned = new BufferPtr(part);
  return {const_cast<uint8_t*>(part->data()), part->size(), [](void* p) { delete static_cast<BufferPtr*>(p); }, owned};
}

// A received message, kept by the parts that are windows into it.
class Message final : public Buffer {
 public:
  explicit Message(grpc::Slice slice) : Buffer(nullptr, slice.size()), slice_(std::move(slice)) { data_ = slice_.begin(); }

 private:
  const grpc::Slice slice_;  // small ones hold their bytes
};

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
  const size_t bytes = kFrameHeaderBytes + header.frame_len;
  if (outbox_.empty() || outbox_.back().bytes + bytes > kMaxBatchBytes) outbox_.emplace_back();
  AppendTo(&outbox_.back(), header, control, parts);
  outbox_bytes_ += bytes;
  WriteLocked();
  return {};
}

void GrpcStream::AppendTo(Batch* batch, const FrameHeader& header, std::string_view control, const PartList& parts) {
  batch->bytes += kFrameHeaderBytes + header.frame_len;
  std::string& tail = batch->tail;
  const size_t start = tail.size();
  tail.resize(start + kFrameHeaderBytes + parts.size() * 8);
  EncodeFrameHead(header, parts, reinterpret_cast<uint8_t*>(tail.data() + start));
  tail.append(control);
  for (const BufferPtr& part : parts) {
    if (part->size() < kLargePartBytes) {
      tail.append(part->view());
      continue;
    }
    batch->slices.push_back(ToSlice(std::exchange(tail, {})));
    batch->slices.push_back(ToSlice(part));
  }
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
  Batch batch = std::move(outbox_.front());
  outbox_.pop_front();
  if (!batch.tail.empty()) batch.slices.push_back(ToSlice(std::move(batch.tail)));
  writing_ = true;
  writing_bytes_ = batch.bytes;
  outbox_bytes_ -= batch.bytes;
  // gRPC keeps a reference to the slices, not to the ByteBuffer.
  call_->writer->Write(grpc::ByteBuffer(batch.slices.data(), batch.slices.size()),
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
  grpc::Slice slice;
  if (!buffer->DumpToSingleSlice(&slice).ok()) return End(Status::DataLoss("a gRPC message that cannot be read"), true);
  buffer->Clear();  // what it was gathered from
  auto message = std::make_shared<const Message>(std::move(slice));
  const size_t size = message->size();
  Ranges ranges{{0, size}};
  if (dispatcher_->has_direct()) ranges = HandleDirect(message->view());
  const bool for_loop = !ranges.empty();
  if (for_loop) {
    loop_->Post("frames", [self = Self(), message = std::move(message), ranges = std::move(ranges)] { self->Handle(message, ranges); });
  }
  MutexLock lock(&mu_);
  if (for_loop) unhandled_bytes_ += size;
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

void GrpcStream::Handle(const BufferPtr& message, const Ranges& ranges) {
  for (const auto& [offset, length] : ranges) {
    std::string_view rest = message->view().substr(offset, length);
    while (!rest.empty()) {
      {
        MutexLock lock(&mu_);
        if (local_end_) return;
      }
      DecodedFrame frame;
      Result<size_t> used = DecodeFrame(rest, kGrpcMaxFrameBytes, &frame, message);
      if (!used.ok()) return Close(used.status());
      if (*used == 0) return Close(Status::DataLoss("a gRPC message with an incomplete frame"));
      DeliverFrame(frame.header, frame.control, std::move(frame.parts), -1, shared_from_this(), *dispatcher_, &pending_);
      rest.remove_prefix(*used);
    }
  }
  MutexLock lock(&mu_);
  unhandled_bytes_ -= message->size();
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
  std::deque<Batch> unsent;          // as these are
  {
    MutexLock lock(&mu_);
    local_end_ = local_end_ || local;
    if (!call_) return;
    call = std::exchange(call_, nullptr);
    reason_ = reason;
    unsent.swap(outbox_);
    outbox_bytes_ = writing_bytes_ = 0;
  }
  call->Cancel();
  // Posted behind the messages that were received before.
  loop_->Post("connection closed", [self = Self(), reason = std::move(reason)] {
    // A caller that may try again is told so, whatever the reason, but for one that would be refused again.
    const bool refused = reason.code() == StatusCode::kUnauthenticated;
    self->pending_.FailAll(refused ? reason : Status(StatusCode::kUnavailable, reason.message(), reason.cause()));
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
  return outbox_bytes_ + writing_bytes_;
}

}  // namespace ray::rpc
