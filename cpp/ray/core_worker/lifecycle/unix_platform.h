// UnixPlatform: the Platform of a process: an EpollLoop, Unix sockets in one folder, the store behind one of them.
#pragma once

#include <memory>
#include <string>

#include "ray/core_worker/lifecycle/platform.h"
#include "ray/rpc/local/local_carrier.h"

namespace ray::object_manager {
class StoreClient;
}

namespace ray::core {

class UnixPlatform final : public Platform {
 public:
  // The loop runs when this returns.
  static Result<std::unique_ptr<UnixPlatform>> Make(std::string sockets_dir);
  ~UnixPlatform() override;

  async::EpollLoop* loop() override { return loop_.get(); }
  Status Open(std::shared_ptr<const rpc::Dispatcher> dispatcher, std::shared_ptr<rpc::FaultInjector> faults) override;
  Status Listen(const std::string& socket) override;
  Result<rpc::ConnectionPtr> Connect(const std::string& socket) override;
  void CloseConnections() override;
  std::unique_ptr<ValueStore> MakeStore(const WorkerId& self) override;
  int64_t pid() const override;
  void Exit(int code) override;
  void StopLoop() override { loop_->Stop(); }

 private:
  UnixPlatform(std::string sockets_dir, std::unique_ptr<async::EpollLoop> loop);

  const std::string sockets_dir_;
  // Destroyed in reverse, after the loop has stopped.
  const std::unique_ptr<async::EpollLoop> loop_;
  std::unique_ptr<rpc::LocalCarrier> carrier_;                 // constant after Open
  std::unique_ptr<object_manager::StoreClient> store_client_;  // made once, by the store
};

}  // namespace ray::core
