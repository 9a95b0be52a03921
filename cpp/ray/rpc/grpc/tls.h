// gRPC credentials of one process, with or without TLS. Inside rpc/grpc only.
//
// With TLS both ends show a certificate and ask for one of the cluster's own authority: whoever has one is a member, whatever its name, since nodes are dialled by
// addresses that change. The files are looked at again every few seconds, so certificates are replaced without a restart.
#pragma once

#include <grpcpp/security/credentials.h>
#include <grpcpp/security/server_credentials.h>

#include <memory>

#include "ray/rpc/grpc/security.h"

namespace ray::rpc {

// `security` may be null: without TLS.
std::shared_ptr<grpc::ServerCredentials> ServerCredentialsFor(const Security* security);
std::shared_ptr<grpc::ChannelCredentials> ChannelCredentialsFor(const Security* security);

}  // namespace ray::rpc
