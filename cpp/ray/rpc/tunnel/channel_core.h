// ChannelCore: the bookkeeping of one end of a tunnel channel: order, loss, and how much may be under way.
//
// A receiver tells how many bytes it has handled; a sender keeps at most a window beyond that under way, and the rest with itself. So whatever a process floods a slow peer with
// lies in its own memory, and the raylets in between hold at most a window for each channel.
// Pure. Not thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ray::rpc {

class ChannelCore {
 public:
  explicit ChannelCore(uint64_t window) : window_(window) {}

  // --- sending
  // An envelope may leave; one may overshoot the window, however large it is.
  bool MaySend() const { return sent_ - acknowledged_ < window_; }
  // Its sequence number.
  uint64_t OnSent(uint64_t bytes) {
    sent_ += bytes;
    return next_out_++;
  }
  // The peer has handled that much. False: more than was sent, so it cannot be right.
  bool OnAcknowledged(uint64_t consumed) {
    if (consumed > sent_) return false;
    if (consumed > acknowledged_) acknowledged_ = consumed;
    return true;
  }
  uint64_t under_way() const { return sent_ - acknowledged_; }

  // --- receiving
  // False: something before it was lost.
  bool OnReceived(uint64_t sequence) { return sequence == next_in_++; }
  // True: the peer should be told now, even if there is nothing to send.
  bool OnHandled(uint64_t bytes) {
    consumed_ += bytes;
    return consumed_ - told_ >= window_ / 4;
  }
  // What to put into the envelope that leaves now.
  uint64_t TellConsumed() { return told_ = consumed_; }

 private:
  const uint64_t window_;
  uint64_t sent_ = 0, acknowledged_ = 0, next_out_ = 0;
  uint64_t consumed_ = 0, told_ = 0, next_in_ = 0;
};

}  // namespace ray::rpc
