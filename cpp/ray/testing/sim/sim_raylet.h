// SimRaylet: the product's NodeServices as a process of the simulation. It has carriers of the SimNetwork, a SimLauncher and no object store: nothing is ever
// in it (objects are not simulated here).
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "ray/raylet/leases/lease_service.h"
#include "ray/raylet/node_services.h"
#include "ray/raylet/workers/worker_service.h"
#include "ray/testing/sim/network.h"
#include "ray/testing/sim/sim_launcher.h"

namespace ray::sim {

class SimRaylet final : raylet::NodeCarriers, raylet::NodeObjects {
 public:
  struct Options {
    raylet::RayletConfig config;  // node_ip names the host, node_dir this incarnation
    LauncherConfig launcher;
    WorkerProgram worker;
    std::function<void()> on_ready;
  };
  // Begins to run in a new process, which owns it; that ends when the raylet cannot go on or was asked to stop.
  static SimRaylet* Start(SimNetwork* network, HostId host, Options options);

  SimRaylet(SimNetwork* network, Process* process, Options options);
  Process* process() const { return process_; }
  const NodeId& node_id() const { return node_id_; }
  // For its own processes.
  const std::string& address() const { return local_address_; }
  const raylet::NodeServices& services() const { return *services_; }
  const SimLauncher& launcher() const { return *launcher_; }
  bool ready() const { return ready_; }
  void Drain(Duration deadline) {
    process_->Run([this, deadline] { services_->Drain("simulated", deadline); });
  }

 private:
  void Begin();
  rpc::ConnectionPtr ConnectGcs() override;
  rpc::ConnectionPtr Dial(const std::string& address, raylet::Lane lane, bool plain) override;
  Status ListenForProcesses() override;
  void StopLinks() override;
  void Shutdown() override;
  void OnWorkerDied(const WorkerId&) override {}
  void OnNodeDead(const NodeId&) override {}
  void Reown(std::vector<ObjectId>, const Address&) override {}
  void Free(std::vector<ObjectId>) override {}
  void Keep(std::vector<ObjectId>) override {}
  void Unkeep(std::vector<ObjectId>) override {}
  void ListPrimary(std::function<void(std::vector<object_manager::StoreService::PrimaryCopy>)> callback) override { callback({}); }
  object_manager::StoreStats Stats() const override { return {}; }
  uint64_t used() const override { return 0; }
  void ArmUse() override {}
  void Describe(const ObjectId&, std::function<void(std::string, bool)> callback) override { callback({}, false); }
  std::shared_ptr<void> Prefetch(std::vector<raylet::CopyToSave>, const std::function<void(const raylet::CopyToSave&)>&) override {
    return nullptr;
  }
  uint64_t given_bytes() const override { return 0; }
  uint64_t received_bytes() const override { return 0; }
  std::string ExplainPull(const ObjectId&) const override { return {}; }
  void Save(const raylet::CopyToSave&, std::function<void(const Status&)> done) override { done(Status::NotFound("there are no objects")); }

  SimNetwork* const network_;
  Process* const process_;
  const Options options_;
  const NodeId node_id_ = NodeId::FromRandom();
  const std::string local_address_;
  std::unique_ptr<SimLauncher> launcher_;
  std::unique_ptr<raylet::NodeServices> services_;
  bool ready_ = false;
  bool stopping_ = false;
};

}  // namespace ray::sim
