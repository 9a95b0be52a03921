// SyncCall: a request from a user thread, which drives the loop until the reply. For control calls (names, key-values, kills), not for the hot path.
#pragma once

#include <memory>
#include <string>

#include "ray/async/loop.h"
#include "ray/common/ids.h"
#include "ray/rpc/core/connection.h"

namespace ray::core {

// Names a request that changes something and does so once, however often it reaches the GCS.
inline std::string NewRequestId() { return LeaseId::FromRandom().Binary().substr(0, 16); }

// DEADLINE_EXCEEDED after `timeout` (0: none): what was asked may be done all the same, or later. UNAVAILABLE without a connection. REQUIRES: not on the loop, GIL not held.
template <typename ReplyMessage>
Status SyncCall(async::UserLoop* loop, const rpc::ConnectionPtr& connection, MethodId method, const rpc::MessageLite& request,
                const PartList& parts, ReplyMessage* reply, Duration timeout) {
  if (connection == nullptr) return Status::Unavailable("not connected to the raylet");
  struct State {
    async::Waiter waiter;
    Status status;
    ReplyMessage reply;
  };
  auto state = std::make_shared<State>();
  rpc::CallOptions options;
  options.timeout = timeout;
  rpc::CallTyped<ReplyMessage>(
      *connection, method, request, parts,
      [state](Status status, ReplyMessage& message, PartList) {
        state->status = std::move(status);
        state->reply.Swap(&message);
        state->waiter.Notify();
      },
      options);
  // The carrier answers every call, so this ends; the extra time covers a loop that was stopped meanwhile.
  Time deadline = timeout == Duration::zero() ? Time::Infinite() : loop->clock().Now() + timeout + std::chrono::seconds(1);
  async::WaitResult result;
  do {
    result = loop->Wait(&state->waiter, deadline);
  } while (result == async::WaitResult::kInterrupted && loop->clock().Now() < deadline && !connection->closed());
  if (!state->waiter.IsSet() && connection->closed()) return Status::Unavailable("the connection to the raylet broke");
  if (!state->waiter.IsSet() || state->status.code() == StatusCode::kDeadlineExceeded) {
    return Status::DeadlineExceeded(std::string(IsGcsMethod(method) ? "the GCS" : "the raylet") + " did not answer " +
                                    std::string(MethodName(method)) + " within " +
                                    std::to_string(std::chrono::duration_cast<std::chrono::milliseconds>(timeout).count()) + " ms");
  }
  if (state->status.ok()) reply->Swap(&state->reply);
  return state->status;
}

}  // namespace ray::core
