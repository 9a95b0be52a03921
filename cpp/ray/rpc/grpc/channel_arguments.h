// What both ends of a TCP connection between nodes ask of gRPC. Inside rpc/grpc only.
#pragma once

#include <grpc/impl/codegen/grpc_types.h>

#include "ray/rpc/grpc/keep_alive.h"

namespace ray::rpc {

inline constexpr int kConnectTimeoutMs = 5000;  // to a host that does not even refuse

// A cut cable shows: without traffic nothing else would tell.
template <typename Arguments>
void SetKeepAlive(Arguments* arguments) {
  arguments->SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepAliveMs);
  arguments->SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepAliveTimeoutMs);
  arguments->SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);  // no limit
  arguments->SetInt(GRPC_ARG_HTTP2_MAX_PING_STRIKES, 0);        // nor on the peer's
  arguments->SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, kConnectTimeoutMs);
}

}  // namespace ray::rpc
