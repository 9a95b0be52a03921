// TlsStream: TLS 1.3 on the socket of a link. Both ends show a certificate of the cluster's authority, as on gRPC's connections (rpc/grpc/tls.h), or nothing passes.
//
// What comes is decrypted where it stays: between the kernel and the object store there is one buffer that fits the processor's cache, and no message is put
// together anywhere. The files are read for each link, so certificates are replaced without a restart.
#pragma once

#include <memory>
#include <string_view>

#include "ray/rpc/grpc/security.h"
#include "ray/rpc/local/stream_filter.h"

namespace ray::rpc {

struct TlsStreamOptions {
  bool is_server = false;
  std::string_view prologue;               // goes ahead of the handshake, in clear
  size_t buffer_bytes = size_t{32} << 10;  // each way. Larger: fewer system calls; but it should fit the cache, and each link has its own
};

// REQUIRES: security.has_tls(). INVALID_ARGUMENT: what is wrong with the files.
Result<std::unique_ptr<StreamFilter>> MakeTlsStream(const Security& security, const TlsStreamOptions& options);

}  // namespace ray::rpc
