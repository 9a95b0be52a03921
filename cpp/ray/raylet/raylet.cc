#include "ray/raylet/raylet.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "ray/object_manager/store/store_thread.h"
#include "ray/raylet/logs/log_tailer.h"
#include "ray/raylet/node_services.h"
#include "ray/raylet/nodes/node_directory.h"
#include "ray/raylet/objects/store_objects.h"
#include "ray/raylet/objects/transfer_service.h"
#include "ray/raylet/workers/zygote_launcher.h"
#include "ray/rpc/grpc/grpc_client.h"
#include "ray/rpc/grpc/grpc_server.h"
#include "ray/rpc/local/local_carrier.h"
#include "ray/rpc/tcp/tcp_carrier.h"
#include "ray/util/fs.h"
#include "ray/util/logging.h"

namespace ray::raylet {

namespace {

// With TLS, links to older raylets are gRPC streams: there chunks are copied out of messages, of which several stages hold one each. Smaller ones, so that a
// transfer stays below 64 MiB there, too.
constexpr uint64_t kEncryptedChunk = uint64_t{2} << 20;

}  // namespace

// What the services of a node stand on.
struct Raylet::Impl final : NodeCarriers {
  Impl(RayletConfig c, async::EpollLoop* l)
      : config(std::move(c)), loop(l), sockets_dir(config.node_dir + "/sockets"), log_dir(config.session_dir + "/logs") {}

  Status Init();
  Status Start(std::function<void()> on_ready, std::function<void(const Status&)> on_end);

  rpc::ConnectionPtr ConnectGcs() override { return grpc->Connect(config.gcs_address, dispatcher.get()); }
  rpc::ConnectionPtr Dial(const std::string& address, Lane lane, bool plain, rpc::DialFailed on_failed) override {
    if (plain && rpc::TcpCarrier::CanConnect(address)) return tcp->Connect(address, lane == Lane::kBulk, std::move(on_failed));
    return grpc->Connect(address, dispatcher.get());
  }
  rpc::LocalCarrier* Bulk();
  Status ListenForProcesses() override {
    return carrier->Listen(kRayletSocket, [](const rpc::ConnectionPtr&) {});
  }
  std::string ProcessesShutOut() const override { return carrier->AcceptTrouble(); }
  void StopLinks() override { tcp->Stop(); }
  void Shutdown() override {
    if (bulk != nullptr) bulk->Shutdown();
    carrier->Shutdown();
  }

  const RayletConfig config;
  async::EpollLoop* const loop;
  const std::string sockets_dir;
  const std::string log_dir;
  const NodeId node_id = NodeId::FromRandom();

  // In the order of construction; destroyed in reverse.
  std::shared_ptr<rpc::Dispatcher> dispatcher;  // of the services
  SystemClock clock;
  std::unique_ptr<object_manager::StoreThread> store;
  StoreObjects objects;  // of the store and the transfers
  std::unique_ptr<ZygoteLauncher> launcher;
  std::unique_ptr<LogTailer> logs;
  std::unique_ptr<NodeServices> services;
  std::unique_ptr<TransferService> transfers;
  std::shared_ptr<rpc::Security> security;
  std::unique_ptr<rpc::LocalCarrier> carrier;
  std::unique_ptr<rpc::GrpcClient> grpc;
  std::unique_ptr<rpc::GrpcServer> server;  // null: not listening
  std::unique_ptr<rpc::TcpCarrier> tcp;
  std::unique_ptr<async::EpollLoop> bulk_loop;  // reads and writes the chunks of objects, so that they delay nothing else
  std::unique_ptr<rpc::LocalCarrier> bulk;      // null: there has been no bulk link
  std::string listen_address;                   // port filled in; empty: not listening
};

Status Raylet::Impl::Init() {
  RAY_RETURN_NOT_OK(MakeDirs(sockets_dir));
  RAY_RETURN_NOT_OK(MakeDirs(log_dir));

  object_manager::StoreThreadConfig store_config;
  store_config.store.capacity = config.object_store_memory;
  store_config.sockets_dir = sockets_dir;
  store_config.socket_name = kStoreSocket;
  store_config.spill_directories = config.object_spilling_directories;
  if (store_config.spill_directories.empty()) store_config.spill_directories.push_back(config.session_dir);
  store_config.spill_uris = config.object_spilling_uris;
  store_config.spill_helper = {config.python, "-m", "ray._runtime.spill_helper", config.object_spilling_options_file};
  store_config.store.node = node_id.Hex();
  store_config.max_disk_use = config.max_disk_use;
  store_config.store.max_spill_file_bytes = config.max_spill_file_bytes;
  store_config.store.max_spill_file_objects = config.max_spill_file_objects;
  store_config.store.spill_threshold = config.spill_threshold;
  store_config.store.overflow_grace = config.overflow_grace;
  RAY_ASSIGN_OR_RETURN(store, object_manager::StoreThread::Make(store_config, &clock));
  store->store()->SetOwnerWatch(
      [this](const Address& owner) { loop->Post("raylet.owner_elsewhere", [this, owner] { services->OnOwnerElsewhere(owner); }); });
  store->store()->SetUseWatch([this] { loop->Post("raylet.store_use", [this] { services->OnStoreUse(); }); });

  ZygoteConfig zygote;
  zygote.python = config.python;
  zygote.session_dir = config.node_dir;
  zygote.log_dir = log_dir;
  launcher = std::make_unique<ZygoteLauncher>(zygote, loop);

  std::array<char, 256> host{};
  if (gethostname(host.data(), host.size() - 1) != 0) host[0] = '\0';
  NodeServices::Deps deps;
  deps.loop = loop;
  deps.node_id = node_id;
  deps.carriers = this;
  deps.objects = &objects;
  deps.launcher = launcher.get();
  deps.hostname = host.data();
  deps.pid = getpid();
  deps.kill_node = [] { kill(getpid(), SIGKILL); };
  services = std::make_unique<NodeServices>(config, std::move(deps));
  dispatcher = services->dispatcher();
  RAY_ASSIGN_OR_RETURN(
      logs, LogTailer::Make(log_dir, loop, config.log_coalesce, [this](WorkerLines lines) { services->ForwardLines(std::move(lines)); }));
  services->SetLogTailer(logs.get());

  object_manager::PullConfig pull;
  pull.self = node_id;
  object_manager::PushConfig push;
  if (!config.security.tls_cert.empty()) pull.chunk_bytes = push.chunk_bytes = kEncryptedChunk;
  pull.budget_bytes = std::max<uint64_t>(config.object_store_memory / 2, pull.chunk_bytes);  // the rest is for what is used and made here
  transfers = std::make_unique<TransferService>(
      TransferService::Deps{loop, store->store(), node_id, [this](const NodeId& node) { return services->nodes()->BulkLink(node); },
                            [this](const NodeId& node) { return services->nodes()->Link(node); },
                            [this](const Address& owner, const CopyRun& copy) { services->TellOwner(owner, copy); },
                            [this](const JobId& job, const std::string& message) { services->NotifyDrivers(job, "fetch", message); }},
      pull, push);
  objects.Set(store->store(), transfers.get());
  transfers->RegisterHandlers(dispatcher.get());

  rpc::LocalCarrierOptions carrier_options;
  carrier_options.sockets_dir = sockets_dir;
  carrier_options.faults = config.faults;
  RAY_ASSIGN_OR_RETURN(carrier, rpc::LocalCarrier::Make(loop, dispatcher, carrier_options));
  RAY_ASSIGN_OR_RETURN(security, rpc::Security::Make(config.security, &clock));
  if (!config.listen.empty()) RAY_RETURN_NOT_OK(security->CheckListener(config.listen));
  grpc = std::make_unique<rpc::GrpcClient>(loop, security, config.faults);
  tcp = std::make_unique<rpc::TcpCarrier>(
      rpc::TcpCarrier::Deps{loop, carrier.get(), [this] { return Bulk(); }, security, [this](int fd) { server->Adopt(fd); }});
  return Status::Ok();
}

Status Raylet::Impl::Start(std::function<void()> on_ready, std::function<void(const Status&)> on_end) {
  // Python warms up while the rest gets ready.
  if (!config.driver_only) launcher->Start([this](const Status& status) { services->OnLauncherReady(status); });
  RAY_RETURN_NOT_OK(store->Start());
  if (!config.listen.empty()) {  // before it is told of, so that nobody dials in vain
    RAY_ASSIGN_OR_RETURN(server, rpc::GrpcServer::Make({{}, security, /*adopts=*/true, config.faults}, dispatcher.get(), loop));
    RAY_ASSIGN_OR_RETURN(listen_address, tcp->Listen(config.listen));
    RAY_LOG(INFO) << "listening on " << listen_address;
  }
  services->Start(listen_address, /*plain_links=*/true, std::move(on_ready), std::move(on_end));
  return Status::Ok();
}

// Made with the first bulk link: most raylets of one node have none.
rpc::LocalCarrier* Raylet::Impl::Bulk() {
  if (bulk != nullptr) return bulk.get();
  auto made = async::EpollLoop::Make({.name = "bulk", .max_spin = Duration::zero()});
  RAY_CHECK(made.ok()) << made.status().ToString();
  bulk_loop = std::move(made).value();
  rpc::LocalCarrierOptions options;
  options.sockets_dir = sockets_dir;
  options.handlers = loop;
  auto serves = rpc::LocalCarrier::Make(bulk_loop.get(), dispatcher, options);
  RAY_CHECK(serves.ok()) << serves.status().ToString();
  bulk = std::move(serves).value();
  RAY_CHECK(bulk_loop->Start().ok());
  return bulk.get();
}

// ---- the facade ----

Raylet::Raylet(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Raylet::~Raylet() {
  impl_->services->Abandon();
  if (impl_->tcp != nullptr) impl_->tcp->Stop();
  // The gRPC threads and the store's stop first: nothing arrives while the rest is taken down.
  if (impl_->server != nullptr) impl_->server->Stop();
  if (impl_->grpc != nullptr) impl_->grpc->Stop();
  if (impl_->bulk != nullptr) impl_->bulk->Shutdown();
  if (impl_->transfers != nullptr) impl_->transfers->Stop();
  if (impl_->bulk_loop != nullptr) impl_->bulk_loop->Stop();
  if (impl_->store != nullptr) impl_->store->Stop();
  if (impl_->carrier != nullptr) impl_->carrier->Shutdown();
}

Result<std::unique_ptr<Raylet>> Raylet::Make(RayletConfig config, async::EpollLoop* loop) {
  auto impl = std::make_unique<Impl>(std::move(config), loop);
  RAY_RETURN_NOT_OK(impl->Init());
  return std::unique_ptr<Raylet>(new Raylet(std::move(impl)));
}

Status Raylet::Start(std::function<void()> on_ready, std::function<void(const Status&)> on_end) {
  return impl_->Start(std::move(on_ready), std::move(on_end));
}

void Raylet::Stop(const std::string& reason, std::function<void()> done) { impl_->services->Stop(reason, std::move(done)); }

void Raylet::ReapChildren() {
  while (true) {
    siginfo_t ended{};
    if (waitid(P_ALL, 0, &ended, WEXITED | WNOHANG | WNOWAIT) != 0) {
      if (errno == EINTR) continue;
      return;
    }
    if (ended.si_pid == 0) return;
    impl_->launcher->OnChildEnded(ended.si_pid);
    if (int status = 0; waitpid(ended.si_pid, &status, 0) == ended.si_pid) impl_->launcher->OnChildReaped(ended.si_pid, status);
  }
}

void Raylet::Drain(const std::string& reason, Duration deadline) { impl_->services->Drain(reason, deadline); }

void Raylet::SetShutdownHandler(std::function<void(const std::string&)> fn) { impl_->services->SetShutdownHandler(std::move(fn)); }

const NodeId& Raylet::node_id() const { return impl_->node_id; }

std::string Raylet::listen_address() const { return impl_->listen_address; }

}  // namespace ray::raylet
