// PendingCalls: the calls of one connection that wait for their reply. Every callback runs on the loop, once: with the reply, with
// DEADLINE_EXCEEDED, or with the reason for which the connection ended. Owned by the connection; Add from any thread, the rest on the loop.
#pragma once

#include <memory>

#include "ray/async/loop.h"
#include "ray/rpc/core/connection.h"
#include "ray/rpc/core/dispatcher.h"
#include "ray/rpc/core/frame.h"

namespace ray::rpc {

class PendingCalls {
 public:
  explicit PendingCalls(async::Loop* loop);
  ~PendingCalls();
  PendingCalls(const PendingCalls&) = delete;
  PendingCalls& operator=(const PendingCalls&) = delete;

  // Returns the call id, never 0 and never used before. 0 after FailAll: then the callback is posted with that reason.
  uint64_t Add(ReplyCallback callback, Duration timeout, std::shared_ptr<Landing> landing = nullptr);
  // Where the reply's part is to be received; null: nowhere in particular. Any thread.
  std::shared_ptr<Landing> LandingOf(uint64_t call_id) const;
  // Posts the callback with `status`, if the call is still pending (a request that could not be sent). Any thread.
  void FailLater(uint64_t call_id, Status status);
  // False if nobody waits (any more); a descriptor in `reply` is closed then, and also if the callback does not take it.
  bool Complete(uint64_t call_id, Status status, Reply reply);
  // All pending and all future calls fail with `reason`.
  void FailAll(const Status& reason);
  // Nobody is told of anything any more: the process has ended, with its loop. What the callbacks hold goes.
  void Drop();
  size_t size() const;

 private:
  struct State;
  std::shared_ptr<State> state_;  // timers and posts hold it weakly
};

// Takes what a frame brought where it belongs: handler or callback. On the loop. `fd` is owned by the call.
void DeliverFrame(const FrameHeader& header, std::string_view control, PartList parts, int fd, const ConnectionPtr& connection,
                  const Dispatcher& dispatcher, PendingCalls* calls);

}  // namespace ray::rpc
