// GrpcStream: a bidirectional gRPC stream as a Connection. Inside rpc/grpc only; made by GrpcServer and GrpcClient.
//
// Frames are appended to an outbox; one write is under way at a time, and the next one takes what has queued up meanwhile, so that batches
// form by themselves under load, of up to kMaxBatchBytes. Large parts are not copied: not into a batch, nor out of one. Reading stops while the loop has more than kMaxUnhandledBytes of received messages to handle. One-way messages whose
// handler is direct (Dispatcher::RegisterDirect) are handled on the completion thread: a router then costs one thread's wake-up less.
#pragma once

#include <grpcpp/support/async_stream.h>
#include <grpcpp/support/byte_buffer.h>

#include <deque>
#include <functional>
#include <string>
#include <vector>

#include "ray/rpc/core/frame.h"
#include "ray/rpc/core/pending_calls.h"
#include "ray/rpc/grpc/completion_thread.h"
#include "ray/util/mutex.h"

namespace ray::rpc {

inline constexpr char kStreamPath[] = "/ray.v1.NodeLink/Stream";

uint64_t NextGrpcConnectionId();

// The gRPC side of a stream, alive until the last operation is done.
struct StreamCall {
  virtual ~StreamCall() = default;
  grpc::internal::AsyncReaderInterface<grpc::ByteBuffer>* reader = nullptr;
  grpc::internal::AsyncWriterInterface<grpc::ByteBuffer>* writer = nullptr;
  virtual void Cancel() = 0;
  // Asks for the status with which the server ended the stream; false where there is none to ask for.
  virtual bool Finish(grpc::Status* status, void* tag) { return false; }
};

class GrpcStream : public Connection, public CompletionThread::Member {
 public:
  GrpcStream(std::shared_ptr<StreamCall> call, CompletionThread* thread, const Dispatcher* dispatcher, async::Loop* loop);

  // Joins the completion thread and runs `start(tag)`, which starts the operation that opens the stream; without it the stream is open already.
  void Open(const std::function<void(void* tag)>& start);

  void Call(MethodId method, const MessageLite& request, const PartList& parts, ReplyCallback callback, CallOptions options) override;
  void CallRaw(MethodId method, std::string_view control, const PartList& parts, ReplyCallback callback, CallOptions options) override;
  void Notify(MethodId method, const MessageLite& message, const PartList& parts, bool corked) override;
  void NotifyRaw(MethodId method, std::string_view control, const PartList& parts) override;
  void Flush() override {}  // nothing is ever held back
  void Close(Status reason) override { End(std::move(reason), true); }
  bool closed() const override;
  void OnClose(std::function<void(const Status&)> callback) override;
  uint64_t id() const override { return id_; }
  int64_t peer_pid() const override { return -1; }
  size_t unsent_bytes() const override;
  void Abort() override { End(Status::Cancelled("this process stops"), true); }

 protected:
  void SendReply(MethodId method, uint64_t call_id, FrameKind kind, std::string_view control, const MessageLite* message,
                 const PartList& parts, int fd, bool corked) override;

 private:
  static constexpr size_t kMaxUnhandledBytes = size_t{64} << 20;
  // The receiver handles a batch when it has all of it.
  static constexpr size_t kMaxBatchBytes = size_t{4} << 20;

  // One message: whole frames.
  struct Batch {
    std::vector<grpc::Slice> slices;  // before `tail`
    std::string tail;
    size_t bytes = 0;
  };
  static void AppendTo(Batch* batch, const FrameHeader& header, std::string_view control, const PartList& parts);

  std::shared_ptr<GrpcStream> Self() { return std::static_pointer_cast<GrpcStream>(shared_from_this()); }
  // The frame cannot be made: only calls and replies are told.
  Status Append(FrameKind kind, MethodId method, uint64_t call_id, std::string_view control, const PartList& parts);
  void WriteLocked() REQUIRES(mu_);
  void ReadLocked() REQUIRES(mu_);
  // On the completion thread.
  void OnOpen(bool ok);
  void OnWritten(bool ok);
  void OnRead(bool ok, grpc::ByteBuffer* buffer);
  void OnEnd();
  // `local`: messages that were received but not handled yet are dropped.
  void End(Status reason, bool local);
  // Ranges of a message: offset, length.
  using Ranges = std::vector<std::pair<size_t, size_t>>;
  // On the completion thread: handles what is direct; the rest is for the loop. An undecodable message is left to the loop, whole.
  Ranges HandleDirect(std::string_view message);
  // On the loop.
  void Handle(const BufferPtr& message, const Ranges& ranges);

  const uint64_t id_;
  CompletionThread* const thread_;
  const Dispatcher* const dispatcher_;
  async::Loop* const loop_;
  PendingCalls pending_;
  mutable Mutex mu_;
  std::shared_ptr<StreamCall> call_ GUARDED_BY(mu_);  // null: ended
  bool open_ GUARDED_BY(mu_) = false;
  bool writing_ GUARDED_BY(mu_) = false;
  bool read_paused_ GUARDED_BY(mu_) = false;
  bool local_end_ GUARDED_BY(mu_) = false;
  bool end_told_ GUARDED_BY(mu_) = false;  // close callbacks have run
  std::deque<Batch> outbox_ GUARDED_BY(mu_);
  size_t outbox_bytes_ GUARDED_BY(mu_) = 0;
  size_t writing_bytes_ GUARDED_BY(mu_) = 0;
  size_t unhandled_bytes_ GUARDED_BY(mu_) = 0;
  Status reason_ GUARDED_BY(mu_);
  std::vector<std::function<void(const Status&)>> on_close_ GUARDED_BY(mu_);
};

}  // namespace ray::rpc
