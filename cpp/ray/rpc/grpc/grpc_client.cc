#include "ray/rpc/grpc/grpc_client.h"

#include <grpcpp/channel.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/security/credentials.h>

#include <optional>

#include "ray/rpc/core/faulty_connection.h"
#include "ray/rpc/grpc/channel_arguments.h"
#include "ray/rpc/grpc/grpc_stream.h"
#include "ray/rpc/grpc/host_port.h"
#include "ray/rpc/grpc/task_engine.h"
#include "ray/rpc/grpc/tls.h"
#include "ray/rpc/grpc/unix_target.h"

namespace ray::rpc {
namespace {

struct ClientCall final : StreamCall {
  ClientCall(UnixTarget where, const std::string& token, const std::shared_ptr<grpc::ChannelCredentials>& credentials,
             grpc::CompletionQueue* queue)
      : target(std::move(where)) {
    grpc::ChannelArguments args;
    args.SetMaxReceiveMessageSize(-1);
    args.SetMaxSendMessageSize(-1);
    // The link is one stream: retrying below it would buffer and repeat frames.
    args.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
    args.SetInt(GRPC_ARG_SERVICE_CONFIG_DISABLE_RESOLUTION, 1);
    args.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    args.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
    if (!IsUnixAddress(target.address())) SetKeepAlive(&args);
    // Blanks and the like cannot be in a token, so it is a valid value.
    if (!token.empty()) context.AddMetadata("authorization", "Bearer " + token);
    grpc::GenericStub stub(grpc::CreateCustomChannel(target.address(), credentials, args));
    io = stub.PrepareCall(&context, kStreamPath, queue);  // the call keeps the channel
    reader = io.get();
    writer = io.get();
  }
  void Cancel() override { context.TryCancel(); }
  bool Finish(grpc::Status* status, void* tag) override {
    io->Finish(status, tag);
    return true;
  }
  UnixTarget target;
  grpc::ClientContext context;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> io;
};

struct NoCall final : StreamCall {
  void Cancel() override {}
};

}  // namespace

struct GrpcClient::Impl {
  Impl(async::Loop* l, std::shared_ptr<Security> s, std::shared_ptr<FaultInjector> f)
      : loop(l), security(std::move(s)), faults(std::move(f)), thread(std::make_unique<grpc::CompletionQueue>(), "grpc-client") {}
  async::Loop* const loop;
  const std::shared_ptr<Security> security;
  const std::shared_ptr<FaultInjector> faults;
  const std::shared_ptr<grpc::ChannelCredentials> unix_credentials = ChannelCredentialsFor(nullptr);
  const std::shared_ptr<grpc::ChannelCredentials> tcp_credentials = ChannelCredentialsFor(security.get());
  CompletionThread thread;
};

GrpcClient::GrpcClient(async::Loop* loop, std::shared_ptr<Security> security, std::shared_ptr<FaultInjector> faults) {
  UseTaskEngine();
  impl_ = std::make_unique<Impl>(loop, std::move(security), std::move(faults));
}

GrpcClient::~GrpcClient() { Stop(); }

void GrpcClient::Stop() { impl_->thread.Stop(); }

ConnectionPtr GrpcClient::Connect(const std::string& target, const Dispatcher* dispatcher) {
  Result<UnixTarget> where = UnixTarget::Make(target);
  if (!where.ok()) {
    auto stream = std::make_shared<GrpcStream>(std::make_shared<NoCall>(), &impl_->thread, dispatcher, impl_->loop);
    stream->Close(where.status());
    return stream;
  }
  const std::string token = impl_->security == nullptr || IsUnixAddress(target) ? "" : impl_->security->Token();
  const auto& credentials = IsUnixAddress(target) ? impl_->unix_credentials : impl_->tcp_credentials;
  auto call = std::make_shared<ClientCall>(std::move(where).value(), token, credentials, impl_->thread.queue());
  auto stream = MakeConnection<GrpcStream>(impl_->faults, call, &impl_->thread, dispatcher, impl_->loop);
  stream->Open([&call](void* tag) { call->io->StartCall(tag); });
  return stream;
}

}  // namespace ray::rpc
