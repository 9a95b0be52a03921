#include "ray/rpc/grpc/grpc_server.h"

#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <chrono>
#include <optional>
#include <utility>

#include "ray/rpc/core/faulty_connection.h"
#include "ray/rpc/grpc/channel_arguments.h"
#include "ray/rpc/grpc/grpc_stream.h"
#include "ray/rpc/grpc/host_port.h"
#include "ray/rpc/grpc/listener.h"
#include "ray/rpc/grpc/task_engine.h"
#include "ray/rpc/grpc/tls.h"

namespace ray::rpc {
namespace {

struct ServerCall final : StreamCall {
  ServerCall() {
    reader = &io;
    writer = &io;
  }
  void Cancel() override { context.TryCancel(); }
  grpc::GenericServerContext context;
  grpc::GenericServerAsyncReaderWriter io{&context};
};

// A builder as SetKeepAlive wants it.
struct ServerArguments {
  void SetInt(const char* name, int value) { builder->AddChannelArgument(name, value); }
  grpc::ServerBuilder* builder;
};

grpc::Status ToGrpc(const Status& status) { return {static_cast<grpc::StatusCode>(status.code()), status.message()}; }

// One unary call, seen by its handler as a connection that takes one reply and nothing else.
class UnaryCall final : public Connection, public CompletionThread::Member {
 public:
  UnaryCall(std::shared_ptr<ServerCall> call, CompletionThread* thread, const Dispatcher* dispatcher, async::Loop* loop)
      : id_(NextGrpcConnectionId()), thread_(thread), dispatcher_(dispatcher), loop_(loop), call_(std::move(call)) {}

  void Open() {
    if (!thread_->Join(Self())) return End();
    MutexLock lock(&mu_);
    if (!call_) return;
    auto request = std::make_shared<grpc::ByteBuffer>();
    call_->io.Read(request.get(),
                   CompletionThread::Tag([self = Self(), call = call_, request](bool ok) { self->OnRequest(ok, request.get()); }));
  }

  void Call(MethodId, const MessageLite&, const PartList&, ReplyCallback callback, CallOptions) override { Refuse(std::move(callback)); }
  void CallRaw(MethodId, std::string_view, const PartList&, ReplyCallback callback, CallOptions) override { Refuse(std::move(callback)); }
  void Notify(MethodId, const MessageLite&, const PartList&, bool) override {}
  void NotifyRaw(MethodId, std::string_view, const PartList&) override {}
  void Flush() override {}
  void Close(Status) override { End(); }
  bool closed() const override {
    MutexLock lock(&mu_);
    return !call_;
  }
  void OnClose(std::function<void(const Status&)> callback) override {
    {
      MutexLock lock(&mu_);
      if (call_) {
        on_close_.push_back(std::move(callback));
        return;
      }
    }
    loop_->Post("unary call over", [callback = std::move(callback)] { callback(Over()); });
  }
  uint64_t id() const override { return id_; }
  int64_t peer_pid() const override { return -1; }
  size_t unsent_bytes() const override { return 0; }
  void Abort() override { End(); }

 protected:
  void SendReply(MethodId, uint64_t, FrameKind kind, std::string_view control, const MessageLite* message, const PartList&, int,
                 bool) override {
    if (kind == FrameKind::kError) return Finish(ToGrpc(DecodeError(control)), nullptr);
    std::string bytes = message ? message->SerializeAsString() : std::string(control);
    grpc::Slice slice(bytes);
    grpc::ByteBuffer buffer(&slice, 1);
    Finish(grpc::Status::OK, &buffer);
  }

 private:
  static Status Over() { return Status::Cancelled("the unary call is over"); }
  std::shared_ptr<UnaryCall> Self() { return std::static_pointer_cast<UnaryCall>(shared_from_this()); }

  void Refuse(ReplyCallback callback) {
    loop_->Post("call on a unary call",
                [callback = std::move(callback)] { callback(Status::Unavailable("a unary caller cannot be called back"), {}); });
  }

  void OnRequest(bool ok, grpc::ByteBuffer* buffer) {
    std::optional<MethodId> method;
    grpc::Slice message;
    {
      MutexLock lock(&mu_);
      if (!call_) return;
      method = MethodFromPath(call_->context.method());
    }
    if (!method) return Finish({grpc::StatusCode::UNIMPLEMENTED, "no such method"}, nullptr);
    // Of a stream this bounds each frame, but a unary message may be as large as its sender likes, and parsers count in int.
    if (ok && buffer->Length() > kGrpcMaxFrameBytes)
      return Finish({grpc::StatusCode::RESOURCE_EXHAUSTED, "a request of more than " + std::to_string(kGrpcMaxFrameBytes) + " bytes"},
                    nullptr);
    if (!ok || !buffer->DumpToSingleSlice(&message).ok())
      return Finish({grpc::StatusCode::INVALID_ARGUMENT, "no request message"}, nullptr);
    loop_->Post("unary request", [self = Self(), message, method = *method] {
      std::string_view control(reinterpret_cast<const char*>(message.begin()), message.size());
      self->dispatcher_->Dispatch(Request{method, control, {}, self, false}, Responder(self, method, 1));
    });
  }

  void Finish(const grpc::Status& status, const grpc::ByteBuffer* reply) {
    MutexLock lock(&mu_);
    if (!call_ || finishing_) return;
    finishing_ = true;
    void* tag = CompletionThread::Tag([self = Self(), call = call_](bool) { self->End(); });
    if (reply) {
      call_->io.WriteAndFinish(*reply, grpc::WriteOptions(), status, tag);
    } else {
      call_->io.Finish(status, tag);
    }
  }

  void End() {
    std::shared_ptr<ServerCall> call;
    std::vector<std::function<void(const Status&)>> callbacks;
    bool finished;
    {
      MutexLock lock(&mu_);
      if (!call_) return;
      call = std::exchange(call_, nullptr);
      callbacks.swap(on_close_);
      finished = finishing_;
    }
    if (!finished) call->Cancel();
    if (!callbacks.empty()) {
      loop_->Post("unary call over", [callbacks = std::move(callbacks)] {
        for (const auto& callback : callbacks) callback(Over());
      });
    }
    thread_->Leave(Self());
  }

  const uint64_t id_;
  CompletionThread* const thread_;
  const Dispatcher* const dispatcher_;
  async::Loop* const loop_;
  mutable Mutex mu_;
  std::shared_ptr<ServerCall> call_ GUARDED_BY(mu_);  // null: over
  bool finishing_ GUARDED_BY(mu_) = false;
  std::vector<std::function<void(const Status&)>> on_close_ GUARDED_BY(mu_);
};

}  // namespace

// Takes one call after the other from gRPC.
struct GrpcServer::Impl final : CompletionThread::Member, std::enable_shared_from_this<Impl> {
  Impl(const Dispatcher* d, async::Loop* l, std::shared_ptr<Security> s, std::shared_ptr<FaultInjector> f)
      : dispatcher(d), loop(l), security(std::move(s)), faults(std::move(f)) {}

  void Accept() {
    MutexLock lock(&mu);
    if (aborted) return;
    auto call = std::make_shared<ServerCall>();
    service.RequestCall(&call->context, &call->io, thread->queue(), server_queue,
                        CompletionThread::Tag([self = shared_from_this(), call](bool ok) {
                          if (!ok) return;  // the server stops
                          if (Status status = self->Admit(call->context); !status.ok()) {
                            self->Refuse(call, status);
                          } else if (call->context.method() == kStreamPath) {
                            MakeConnection<GrpcStream>(self->faults, call, self->thread.get(), self->dispatcher, self->loop)->Open(nullptr);
                          } else {
                            std::make_shared<UnaryCall>(call, self->thread.get(), self->dispatcher, self->loop)->Open();
                          }
                          self->Accept();
                        }));
  }

  // Whether the caller may call anything at all.
  Status Admit(const grpc::GenericServerContext& context) const {
    if (IsUnixAddress(context.peer())) return {};  // the socket's folder lets nobody else in
    const auto [first, last] = context.client_metadata().equal_range("authorization");
    std::optional<std::string_view> authorization;
    if (first != last) authorization.emplace(first->second.data(), first->second.size());
    return security->Check(authorization);
  }

  void Refuse(const std::shared_ptr<ServerCall>& call, const Status& status) {
    MutexLock lock(&mu);
    if (!aborted) call->io.Finish(ToGrpc(status), CompletionThread::Tag([call](bool) {}));
  }

  void Abort() override {
    MutexLock lock(&mu);
    aborted = true;
  }

  const Dispatcher* const dispatcher;
  async::Loop* const loop;
  const std::shared_ptr<Security> security;
  const std::shared_ptr<FaultInjector> faults;
  std::vector<std::string> addresses;
  std::vector<std::shared_ptr<Listener>> listeners;
  grpc::AsyncGenericService service;
  grpc::ServerCompletionQueue* server_queue = nullptr;  // the thread's
  std::unique_ptr<CompletionThread> thread;
  std::unique_ptr<grpc::Server> server;
  using Acceptor = std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor>;
  Acceptor plain, secured;  // of what comes over Unix sockets, and over TCP; null: nothing does
  Mutex mu;
  bool aborted GUARDED_BY(mu) = false;
};

namespace {

void HandOver(grpc::experimental::ExternalConnectionAcceptor* to, int fd) {
  grpc::experimental::ExternalConnectionAcceptor::NewConnectionParameters connection;
  connection.fd = fd;
  to->HandleNewConnection(&connection);
}

}  // namespace

Result<std::unique_ptr<GrpcServer>> GrpcServer::Make(GrpcServerOptions options, const Dispatcher* dispatcher, async::EpollLoop* loop) {
  if (options.addresses.empty() && !options.adopts) return Status::InvalidArgument("no address to listen on");
  if (options.adopts && options.security == nullptr) return Status::InvalidArgument("connections over TCP are not served without a token");
  bool tcp = options.adopts, local = false;
  for (const std::string& address : options.addresses) {
    if (IsUnixAddress(address)) {
      local = true;
      continue;
    }
    tcp = true;
    if (options.security == nullptr) return Status::InvalidArgument(address + ": a TCP address is not served without a token");
    RAY_RETURN_NOT_OK(options.security->CheckListener(address));
  }
  UseTaskEngine();
  auto impl = std::make_shared<Impl>(dispatcher, loop, options.security, options.faults);
  grpc::ServerBuilder builder;
  builder.SetMaxReceiveMessageSize(-1);
  builder.SetMaxSendMessageSize(-1);
  if (tcp) {
    ServerArguments arguments{&builder};
    SetKeepAlive(&arguments);
  }
  builder.RegisterAsyncGenericService(&impl->service);
  for (const std::string& address : options.addresses) {
    RAY_ASSIGN_OR_RETURN(std::shared_ptr<Listener> listener, Listener::Make(address, loop));
    impl->addresses.push_back(listener->address());
    impl->listeners.push_back(std::move(listener));
  }
  const auto acceptor_for = [&](const Security* security) {
    return builder.experimental().AddExternalConnectionAcceptor(grpc::ServerBuilder::experimental_type::ExternalConnectionType::FROM_FD,
                                                                ServerCredentialsFor(security));
  };
  if (local) impl->plain = acceptor_for(nullptr);
  if (tcp) impl->secured = acceptor_for(options.security.get());
  std::unique_ptr<grpc::ServerCompletionQueue> queue = builder.AddCompletionQueue();
  impl->server_queue = queue.get();
  impl->server = builder.BuildAndStart();
  if (!impl->server) {
    queue->Shutdown();
    return Status::Internal("gRPC does not start");
  }
  impl->thread = std::make_unique<CompletionThread>(std::move(queue), "grpc-server");
  impl->thread->Join(impl);
  impl->Accept();
  std::unique_ptr<GrpcServer> server(new GrpcServer(impl));
  for (const auto& listener : impl->listeners) {
    auto* to = IsUnixAddress(listener->address()) ? impl->plain.get() : impl->secured.get();
    RAY_RETURN_NOT_OK(listener->Start([to](int fd) { HandOver(to, fd); }));
  }
  return server;
}

GrpcServer::GrpcServer(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}

GrpcServer::~GrpcServer() { Stop(); }

const std::vector<std::string>& GrpcServer::addresses() const { return impl_->addresses; }

void GrpcServer::Adopt(int fd) { HandOver(impl_->secured.get(), fd); }

void GrpcServer::Stop() {
  for (const auto& listener : impl_->listeners) listener->Stop();
  impl_->thread->Stop([this] { impl_->server->Shutdown(std::chrono::system_clock::now()); });
}

}  // namespace ray::rpc
