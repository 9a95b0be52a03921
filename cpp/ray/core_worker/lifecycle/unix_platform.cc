#include "ray/core_worker/lifecycle/unix_platform.h"

#include <unistd.h>

#include <utility>

#include "ray/core_worker/lifecycle/lazy_store.h"

namespace ray::core {
namespace {

constexpr Duration kTunnelSpin = std::chrono::microseconds(100);

}  // namespace

Result<std::unique_ptr<UnixPlatform>> UnixPlatform::Make(std::string sockets_dir) {
  RAY_ASSIGN_OR_RETURN(auto loop, async::EpollLoop::Make({.name = "ray_io", .expect_spin = kTunnelSpin}));
  RAY_RETURN_NOT_OK(loop->Start());
  return std::unique_ptr<UnixPlatform>(new UnixPlatform(std::move(sockets_dir), std::move(loop)));
}

UnixPlatform::UnixPlatform(std::string sockets_dir, std::unique_ptr<async::EpollLoop> loop)
    : sockets_dir_(std::move(sockets_dir)), loop_(std::move(loop)) {}

UnixPlatform::~UnixPlatform() { StopLoop(); }

Status UnixPlatform::Open(std::shared_ptr<const rpc::Dispatcher> dispatcher, std::shared_ptr<rpc::FaultInjector> faults) {
  rpc::LocalCarrierOptions options;
  options.sockets_dir = sockets_dir_;
  options.faults = std::move(faults);
  RAY_ASSIGN_OR_RETURN(carrier_, rpc::LocalCarrier::Make(loop_.get(), std::move(dispatcher), std::move(options)));
  return Status::Ok();
}

Status UnixPlatform::Listen(const std::string& socket) {
  return carrier_->Listen(socket, [](const rpc::ConnectionPtr&) {});
}

Result<rpc::ConnectionPtr> UnixPlatform::Connect(const std::string& socket) { return carrier_->Connect(socket); }

void UnixPlatform::CloseConnections() {
  if (carrier_ != nullptr) carrier_->Shutdown();
}

std::unique_ptr<ValueStore> UnixPlatform::MakeStore(const WorkerId& self) {
  return MakeClientStore(
      loop_.get(), [this] { return carrier_->Connect("store.sock"); }, self, &store_client_);
}

int64_t UnixPlatform::pid() const { return getpid(); }

void UnixPlatform::Exit(int code) { _exit(code); }

}  // namespace ray::core
