// GrpcClient: opens frame streams to GrpcServers. One per process, however many links; it has one thread that moves completions.
// Owned by the composition root; must be stopped before the loop is destroyed.
#pragma once

#include <memory>
#include <string>

#include "ray/async/loop.h"
#include "ray/rpc/core/dispatcher.h"
#include "ray/rpc/grpc/security.h"

namespace ray::rpc {

class FaultInjector;  // faulty_connection.h

class GrpcClient {
 public:
  // `security` gives the token that TCP peers are shown; null: none. `faults`: for tests.
  explicit GrpcClient(async::Loop* loop, std::shared_ptr<Security> security = nullptr, std::shared_ptr<FaultInjector> faults = nullptr);
  ~GrpcClient();  // stops
  // A link to `target` ("unix:/path" or "host:port"), usable at once: calls wait until the stream is up. If it cannot be had, the
  // connection closes with UNAVAILABLE and the reason, or with UNAUTHENTICATED. There is no reconnecting: connect again. `dispatcher` serves what the peer calls and
  // must outlive the client. Thread-safe.
  ConnectionPtr Connect(const std::string& target, const Dispatcher* dispatcher);
  // Ends every link; nothing is posted to the loop once it has returned. Idempotent. Not from the loop's handlers.
  void Stop();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace ray::rpc
