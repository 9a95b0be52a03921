// LocalConnection: one Unix stream socket as a rpc::Connection. Internal to the carrier.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "ray/async/loop.h"
#include "ray/rpc/core/frame.h"
#include "ray/rpc/core/pending_calls.h"
#include "ray/rpc/local/local_carrier.h"
#include "ray/rpc/local/out_queue.h"

namespace ray::rpc {

class LocalConnection;

// Of the carrier's receive buffer; larger frames are read straight into buffers of their own.
inline constexpr size_t kReceiveBytes = 256 << 10;

// What all connections of a carrier share; outlives the carrier as long as one of them lives.
struct LocalCarrier::Shared {
  ~Shared();

  async::EpollLoop* loop = nullptr;
  std::shared_ptr<const Dispatcher> dispatcher;
  LocalCarrierOptions options;
  int dir_fd = -1;
  std::unique_ptr<uint8_t[]> receive_buffer;  // on the loop

  struct Listener;
  std::mutex mu;
  bool shut_down = false;                                                      // guarded by mu
  std::unordered_map<uint64_t, std::shared_ptr<LocalConnection>> connections;  // guarded by mu; until their teardown
  std::vector<std::shared_ptr<Listener>> listeners;                            // guarded by mu
  std::string accept_trouble;                                                  // guarded by mu

  std::mutex dirty_mu;
  std::vector<std::shared_ptr<LocalConnection>> dirty;     // guarded by dirty_mu; have corked bytes
  std::vector<std::shared_ptr<LocalConnection>> flushing;  // on the loop

  void AddDirty(std::shared_ptr<LocalConnection> connection);
  void FlushDirty();  // on the loop
};

class LocalConnection : public Connection {
 public:
  // Takes `fd`, of a Unix socket whose peer is that process. Nothing is read before Start. -1: it is a stream's, which Begin brings; until then what is sent waits.
  LocalConnection(std::shared_ptr<LocalCarrier::Shared> shared, int fd, int64_t peer_pid);
  ~LocalConnection() override;
  Status Start();
  Status Begin(int fd, StreamOptions stream);

  void Call(MethodId method, const MessageLite& request, const PartList& parts, ReplyCallback callback, CallOptions options) override;
  void CallRaw(MethodId method, std::string_view control, const PartList& parts, ReplyCallback callback, CallOptions options) override;
  void Notify(MethodId method, const MessageLite& message, const PartList& parts, bool corked) override;
  void NotifyRaw(MethodId method, std::string_view control, const PartList& parts) override;
  void Flush() override;
  void Close(Status reason) override;
  bool closed() const override { return closed_.load(std::memory_order_acquire); }
  void OnClose(std::function<void(const Status&)> callback) override;
  uint64_t id() const override { return id_; }
  int64_t peer_pid() const override { return peer_pid_; }
  size_t unsent_bytes() const override { return unsent_.load(std::memory_order_relaxed); }
  bool LandsReplies() const override { return true; }

 protected:
  void SendReply(MethodId method, uint64_t call_id, FrameKind kind, std::string_view control, const MessageLite* message,
                 const PartList& parts, int fd, bool corked) override;

 private:
  friend struct LocalCarrier::Shared;
  // A frame larger than the receive buffer, read straight into buffers of its own.
  struct BigFrame {
    FrameHeader header;
    std::unique_ptr<uint8_t[]> head;  // part lengths and control part
    std::vector<uint64_t> lengths;
    PartList parts;
    std::shared_ptr<Landing> landing;  // the part that is coming, if it goes there
    uint8_t* at = nullptr;             // where the next byte goes
    size_t left = 0;                   // until the end of the head or of the current part
    int fd = -1;
    bool have_head = false;
  };

  std::shared_ptr<LocalConnection> Self() { return std::static_pointer_cast<LocalConnection>(shared_from_this()); }
  Status SendFrame(FrameKind kind, MethodId method, uint64_t call_id, std::string_view control, const MessageLite* message,
                   const PartList& parts, int fd, bool corked);
  void StartCall(MethodId method, std::string_view control, const MessageLite* message, const PartList& parts, ReplyCallback callback,
                 CallOptions options);
  void SendPending(std::unique_lock<std::mutex>* lock);
  bool HasToSendLocked() const { return !(pending_.empty() && sending_.empty()) || (filter_ != nullptr && filter_->has_unsent()); }
  void CloseFdLocked();
  void Teardown();

  // On the loop.
  void OnEvents(uint32_t events);
  void Read();
  ssize_t Receive(uint8_t* to, size_t n);
  void CloseAtEnd(bool inside);
  ssize_t ReceiveFiltered(uint8_t* to, size_t n);
  // The socket may have nothing more, and its filter something.
  void ReadOnSoon();
  Result<size_t> ParseFrames(const uint8_t* bytes, size_t n);
  Result<size_t> ParsePreamble(const uint8_t* bytes, size_t n);
  void SendBytes(std::string_view bytes);
  Status TakeFd(const FrameHeader& header, int* fd);
  Result<size_t> FeedBigFrame(const uint8_t* bytes, size_t n);
  Status AdvanceBigFrame();
  // The part that is coming is not wanted where it goes: the rest of it goes elsewhere.
  void LeaveLanding();
  void Deliver(const FrameHeader& header, std::string_view control, PartList parts, int fd);
  // Handlers elsewhere have taken that much: reading goes on.
  void OnTaken(size_t bytes);
  Status WatchLocked();
  async::Loop* handlers() const { return shared_->options.handlers; }

  // Constant.
  const std::shared_ptr<LocalCarrier::Shared> shared_;
  const uint64_t id_;
  const int64_t peer_pid_;
  const bool takes_descriptors_;

  PendingCalls calls_;
  std::atomic<bool> closed_{false};
  std::atomic<size_t> unsent_{0};
  std::atomic<size_t> untaken_{0};  // bytes of frames that were posted to `handlers`

  std::mutex mu_;
  int fd_;                                // -1 once closed, and before a stream begins; open while sending_now_
  std::unique_ptr<StreamFilter> filter_;  // null: none. Constant once the stream has begun
  OutQueue pending_;                      // appended to by senders
  bool sending_now_ = false;              // a thread is in sendmsg, with `sending_`; it goes on until pending_ is empty
  bool blocked_ = false;                  // the socket is full: EPOLLOUT is awaited
  bool paused_ = false;                   // nothing is read: the handlers have not taken what has come
  bool dirty_ = false;                    // in the carrier's dirty list
  bool broken_ = false;                   // the peer reads no more; its end is coming
  int broken_by_ = 0;                     // errno of the send that showed it
  bool torn_down_ = false;
  Status reason_;
  std::vector<std::function<void(const Status&)>> on_close_;
  OutQueue sending_;  // owned by the thread that set sending_now_

  // On the loop, once the stream has begun.
  bool filter_open_ = false;
  decltype(StreamOptions::preamble) preamble_;  // until it has come
  std::string leftover_;                        // start of a frame whose rest has not come
  std::optional<BigFrame> big_;
  std::vector<int> received_fds_;
};

}  // namespace ray::rpc
