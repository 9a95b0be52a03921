// GrpcServer: serves a Dispatcher to gRPC peers, without generated stubs.
//
// "/ray.v1.NodeLink/Stream" is a bidirectional stream: each gRPC message is a batch of frames (rpc/core/frame.h), and the stream is a Connection
// on which both sides call. Every other "/ray.v1.<Service>/<Method>" is a unary call: the request message is the control part, the reply's
// control part the response, so that any gRPC client with our .proto files can call. A unary call cannot be called back. Over TCP both need the
// cluster's token (security.h), whatever the method.
// Connections are accepted and handlers run on the loop. One thread of our own moves completions; gRPC adds its timers. Owned by the composition root.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "ray/async/loop.h"
#include "ray/rpc/core/dispatcher.h"
#include "ray/rpc/grpc/security.h"

namespace ray::rpc {

class FaultInjector;  // faulty_connection.h

inline constexpr size_t kGrpcMaxFrameBytes = size_t{512} << 20;

struct GrpcServerOptions {
  std::vector<std::string> addresses;  // "unix:/path" (of any length) or "host:port", port 0: any that is free
  std::shared_ptr<Security> security;  // asked about every call over TCP; needed for TCP addresses and adopted connections
  bool adopts = false;                 // takes connections that somebody else has accepted; else at least one address is needed
  std::shared_ptr<FaultInjector> faults = nullptr;  // of streams, for tests; null: none
};

class GrpcServer {
 public:
  // Listens when it returns. A stale socket file is replaced. INVALID_ARGUMENT for an address that Security::CheckListener refuses. `dispatcher` and `loop` must outlive the server.
  static Result<std::unique_ptr<GrpcServer>> Make(GrpcServerOptions options, const Dispatcher* dispatcher, async::EpollLoop* loop);
  ~GrpcServer();  // stops
  // Those of the options, with the ports that were chosen.
  const std::vector<std::string>& addresses() const;
  // Serves a TCP connection that somebody else has accepted, and owns it from now on. Thread-safe. REQUIRES: options.adopts.
  void Adopt(int fd);
  // Ends every connection and removes the sockets; nothing is posted to the loop once it has returned. Idempotent. Not from the loop's handlers.
  void Stop();

 private:
  struct Impl;
  explicit GrpcServer(std::shared_ptr<Impl> impl);
  std::shared_ptr<Impl> impl_;
};

}  // namespace ray::rpc
