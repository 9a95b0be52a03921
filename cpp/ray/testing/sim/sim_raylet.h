// SimRaylet: the product's NodeServices as a process of the simulation. It has carriers of the SimNetwork, a SimLauncher, and a SimStore, or no objects at all.
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
#include "ray/testing/sim/sim_store.h"

namespace ray::sim {

// Of a node that has no store: nothing is ever in it.
class NoObjects final : public raylet::NodeObjects {
  void OnWorkerDied(const WorkerId&) override {}
  void OnNodeDead(const NodeId&) override {}
  void Reown(std::vector<ObjectId>, const Address&) override {}
  void Free(const NodeId&, std::vector<CopyRun>) override {}
  void Keep(const NodeId&, std::vector<CopyRun>) override {}
  void Unkeep(std::vector<ObjectId>) override {}
  void ListPrimary(std::function<void(std::vector<object_manager::StoreService::PrimaryCopy>)> callback) override { callback({}); }
  object_manager::StoreStats Stats() const override { return {}; }
  uint64_t used() const override { return 0; }
  void ArmUse() override {}
  void Describe(const ObjectId&, std::function<void(std::string, bool)> callback) override { callback({}, false); }
  std::shared_ptr<void> Prefetch(std::vector<raylet::CopyToSave>) override { return nullptr; }
  uint64_t given_bytes() const override { return 0; }
  uint64_t received_bytes() const override { return 0; }
  std::string ExplainPull(const ObjectId&) const override { return {}; }
  void Save(const raylet::CopyToSave&, std::function<void(const Status&)> done) override { done(Status::NotFound("there are no objects")); }
};

class SimRaylet final : raylet::NodeCarriers {
 public:
  struct Options {
    raylet::RayletConfig config;  // node_ip names the host, node_dir this incarnation
    LauncherConfig launcher;
    WorkerProgram worker;
    StoreSimConfig store;
    std::function<void()> on_ready;
    std::function<void(const Status& why)> on_end;  // it cannot go on
  };
  // Begins to run in a new process, which owns it; that ends when the raylet cannot go on or was asked to stop.
  static SimRaylet* Start(SimNetwork* network, HostId host, Options options);

  SimRaylet(SimNetwork* network, Process* process, Options options);
  ~SimRaylet();
  Process* process() const { return process_; }
  const NodeId& node_id() const { return node_id_; }
  // For its own processes.
  const std::string& address() const { return local_address_; }
  const raylet::NodeServices& services() const { return *services_; }
  const SimLauncher& launcher() const { return *launcher_; }
  // Null: it has none.
  SimStore* store() const { return store_.get(); }
  bool ready() const { return ready_; }
  void Drain(Duration deadline) {
    process_->Run([this, deadline] { services_->Drain("simulated", deadline); });
  }

 private:
  void Begin();
  rpc::ConnectionPtr ConnectGcs() override;
  rpc::ConnectionPtr Dial(const std::string& address, raylet::Lane lane, bool plain, rpc::DialFailed on_failed) override;
  Status ListenForProcesses() override;
  void StopLinks() override;
  void Shutdown() override;

  SimNetwork* const network_;
  Process* const process_;
  Options options_;
  const NodeId node_id_ = NodeId::FromRandom();
  const std::string local_address_;
  std::unique_ptr<SimLauncher> launcher_;
  NoObjects no_objects_;
  std::unique_ptr<SimStore> store_;
  std::unique_ptr<raylet::NodeServices> services_;
  bool ready_ = false;
  bool stopping_ = false;
};

}  // namespace ray::sim
