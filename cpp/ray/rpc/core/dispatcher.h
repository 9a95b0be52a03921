// Dispatcher: which handler serves which method, registered once, before the first connection.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <utility>

#include "ray/rpc/core/connection.h"

namespace ray::rpc {

// Immutable after construction phase, but for a count; then shared by all connections of a process.
class Dispatcher {
 public:
  // REQUIRES: not registered before.
  void Register(MethodId method, Handler handler);
  // Serves every method without a handler of its own (a router). Without one they fail with UNIMPLEMENTED, naming the method.
  void RegisterFallback(Handler handler);
  // Typed: `handler(const RequestMessage&, Request&, Responder)`. Unparsable requests fail with INVALID_ARGUMENT.
  template <typename RequestMessage, typename F>
  void RegisterTyped(MethodId method, F handler) {
    Register(method, [handler = std::move(handler)](Request request, Responder responder) {
      RequestMessage message;
      if (!message.ParseFromArray(request.control.data(), static_cast<int>(request.control.size()))) {
        if (responder.valid())
          responder.Fail(Status::InvalidArgument(std::string(MethodName(request.method)) + ": a request that cannot be parsed"));
        return;
      }
      handler(message, request, std::move(responder));
    });
  }
  // Like Register, for one-way messages whose handler is thread-safe and never blocks: a carrier may run it on the thread that received the message,
  // ahead of other methods' messages from the same peer, but in the order of its own. Carriers that read on the loop make no difference.
  void RegisterDirect(MethodId method, Handler handler);
  bool IsDirect(uint16_t method) const { return method < direct_.size() && direct_[method]; }
  bool has_direct() const { return has_direct_; }
  // On the loop, or anywhere if IsDirect. A one-way message of a method that is answered, by its rule, is dropped: so a handler of such a method, and only that
  // one, has a valid Responder always.
  void Dispatch(Request request, Responder responder) const;

 private:
  std::array<Handler, kMaxMethodId> handlers_;
  std::array<bool, kMaxMethodId> direct_{};
  bool has_direct_ = false;
  Handler fallback_;
  mutable std::array<std::atomic<uint64_t>, kMaxMethodId> dropped_{};  // one-way messages of methods that are answered, by method
};

}  // namespace ray::rpc
