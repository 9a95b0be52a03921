#include "ray/testing/workload/sim_platform.h"

#include <utility>

#include "ray/core_worker/lifecycle/lazy_store.h"
#include "ray/raylet/raylet_config.h"

namespace ray::sim {

Status SimPlatform::Open(std::shared_ptr<const rpc::Dispatcher> dispatcher, std::shared_ptr<rpc::FaultInjector> faults) {
  network_->Use(process_, std::move(faults));
  dispatcher_ = std::move(dispatcher);
  process_->Own(std::const_pointer_cast<rpc::Dispatcher>(dispatcher_));  // connections hold it until the process has ended
  return Status::Ok();
}

Status SimPlatform::Listen(const std::string& socket) {
  RAY_RETURN_NOT_OK(network_->Listen(process_, AddressOf(socket), dispatcher_.get()));
  listening_.insert(socket);
  return Status::Ok();
}

Result<rpc::ConnectionPtr> SimPlatform::Connect(const std::string& socket) {
  if (dispatcher_ == nullptr) return Status::Unavailable("the carrier was shut down");
  if (!network_->Listens(AddressOf(socket))) return Status::NotFound("nobody listens on " + socket);
  return network_->Connect(process_, AddressOf(socket), dispatcher_.get());
}

void SimPlatform::CloseConnections() {
  dispatcher_ = nullptr;
  for (const std::string& socket : std::exchange(listening_, {})) network_->StopListening(AddressOf(socket));
  const auto connections = process_->connections;
  for (const auto& [id, connection] : connections) connection->Close(Status::Unavailable("this process leaves"));
}

std::unique_ptr<core::ValueStore> SimPlatform::MakeStore(const WorkerId& self) {
  return core::MakeClientStore(
      loop(), [this] { return Connect(raylet::kStoreSocket); }, self, &store_client_);
}

}  // namespace ray::sim
