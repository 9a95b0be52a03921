// SimPlatform: the Platform of a core worker in a simulated process: its SimLoop, connections of the SimNetwork, and the product's StoreClient for the SimStore of its
// node.
#pragma once

#include <memory>
#include <set>
#include <string>

#include "ray/core_worker/lifecycle/platform.h"
#include "ray/object_manager/client/store_client.h"
#include "ray/testing/sim/network.h"

namespace ray::sim {

class SimPlatform final : public core::Platform {
 public:
  // `sockets_dir`: where the raylet of the process's node listens, and its processes do.
  SimPlatform(SimNetwork* network, Process* process, std::string sockets_dir)
      : network_(network), process_(process), sockets_dir_(std::move(sockets_dir)) {}

  async::UserLoop* loop() override { return process_->loop(); }
  Status Open(std::shared_ptr<const rpc::Dispatcher> dispatcher, std::shared_ptr<rpc::FaultInjector> faults) override;
  Status Listen(const std::string& socket) override;
  Result<rpc::ConnectionPtr> Connect(const std::string& socket) override;
  void CloseConnections() override;
  std::unique_ptr<core::ValueStore> MakeStore(const WorkerId& self) override;
  int64_t pid() const override { return process_->pid(); }
  void Exit(int code) override { process_->EndAtOnce(code); }
  void StopLoop() override { process_->loop()->End(); }
  bool ended() const override { return !process_->alive(); }

 private:
  std::string AddressOf(const std::string& socket) const { return sockets_dir_ + "/" + socket; }

  SimNetwork* const network_;
  Process* const process_;
  const std::string sockets_dir_;
  std::shared_ptr<const rpc::Dispatcher> dispatcher_;  // null: not open (any more)
  std::set<std::string> listening_;
  std::unique_ptr<object_manager::StoreClient> store_client_;  // made once, by the store
};

}  // namespace ray::sim
