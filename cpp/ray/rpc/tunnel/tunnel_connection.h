// TunnelConnection: one channel of a TunnelHub as a Connection. Internal to the hub.
#pragma once

#include <atomic>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "ray/rpc/core/frame.h"
#include "ray/rpc/core/pending_calls.h"
#include "ray/rpc/tunnel/channel_core.h"
#include "ray/rpc/tunnel/tunnel_hub.h"

namespace ray::rpc {

class TunnelConnection : public Connection {
 public:
  TunnelConnection(std::shared_ptr<TunnelHub> hub, const Address& peer, uint64_t channel, bool opener);

  void Call(MethodId method, const MessageLite& request, const PartList& parts, ReplyCallback callback, CallOptions options) override;
  void CallRaw(MethodId method, std::string_view control, const PartList& parts, ReplyCallback callback, CallOptions options) override;
  void Notify(MethodId method, const MessageLite& message, const PartList& parts, bool corked) override;
  void NotifyRaw(MethodId method, std::string_view control, const PartList& parts) override;
  void Flush() override;
  void Close(Status reason) override { End(std::move(reason), /*tell_peer=*/true); }
  bool closed() const override { return closed_.load(std::memory_order_acquire); }
  void OnClose(std::function<void(const Status&)> callback) override;
  uint64_t id() const override { return id_; }
  int64_t peer_pid() const override { return -1; }
  size_t unsent_bytes() const override;

  const Address& peer() const { return peer_; }
  uint64_t channel() const { return channel_; }
  bool opener() const { return opener_; }
  // On the loop.
  void Receive(const v1::TunnelFrames& envelope, const PartList& parts);
  void End(Status reason, bool tell_peer);
  void Drop();

 protected:
  void SendReply(MethodId method, uint64_t call_id, FrameKind kind, std::string_view control, const MessageLite* message,
                 const PartList& parts, int fd, bool corked) override;

 private:
  std::shared_ptr<TunnelConnection> Self() { return std::static_pointer_cast<TunnelConnection>(shared_from_this()); }
  // Fails only if the frame cannot exist; an ended connection swallows it.
  Status SendFrame(FrameKind kind, MethodId method, uint64_t call_id, std::string_view control, const MessageLite* message,
                   const PartList& parts, bool corked);
  void StartCall(MethodId method, std::string_view control, const MessageLite* message, const PartList& parts, ReplyCallback callback,
                 CallOptions options);
  void AppendLocked(const FrameHeader& header, std::string_view control, const MessageLite* message, const PartList& parts) REQUIRES(mu_);
  // Sends what the window allows; `even_so`: all.
  void EmitLocked(bool even_so) REQUIRES(mu_);
  void SendEnvelopeLocked(std::string* chunk) REQUIRES(mu_);

  const std::shared_ptr<TunnelHub> hub_;
  const Address peer_;
  const uint64_t channel_;
  const bool opener_;
  const uint64_t id_;
  PendingCalls calls_;
  std::atomic<bool> closed_{false};

  mutable Mutex mu_;  // held while an envelope is handed on: envelopes leave in the order of their numbers
  ChannelCore core_ GUARDED_BY(mu_);
  std::deque<std::string> outbox_ GUARDED_BY(mu_);  // whole frames; the last piece grows
  size_t outbox_bytes_ GUARDED_BY(mu_) = 0;
  bool dirty_ GUARDED_BY(mu_) = false;  // in the hub's list
  bool torn_down_ GUARDED_BY(mu_) = false;
  Status reason_ GUARDED_BY(mu_);
  std::vector<std::function<void(const Status&)>> on_close_ GUARDED_BY(mu_);
  v1::TunnelFrames envelope_ GUARDED_BY(mu_);  // reused: addresses never change
};

}  // namespace ray::rpc
