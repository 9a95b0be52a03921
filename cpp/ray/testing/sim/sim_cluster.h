// SimCluster: a whole cluster in one process on virtual time, from one seed: a GCS over a disk, raylets, drivers and workers, and what goes wrong with them. A run
// starts it, lets drivers work while things fail, ends the failures, and checks what must hold then (docs/architecture/simulation.md):
//   while drivers hold actors and groups: the GCS and the nodes agree on who is alive, what is used, which actors live and which bundles are reserved, and every view
//     says so; what was acknowledged is known; nobody waits;
//   when they have left: no lease, worker, actor, bundle or job is left anywhere, all resources are free, every view says so;
//   and the history of the key-value table fits a single table (KvHistory).
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <ostream>
#include <set>
#include <string>
#include <vector>

#include "ray/testing/sim/cluster_driver.h"
#include "ray/testing/sim/disk.h"
#include "ray/testing/sim/fake_worker.h"
#include "ray/testing/sim/kv_history.h"
#include "ray/testing/sim/network.h"
#include "ray/testing/sim/sim_driver.h"
#include "ray/testing/sim/sim_gcs.h"
#include "ray/testing/sim/sim_raylet.h"
#include "ray/testing/sim/world.h"

namespace ray::sim {

constexpr size_t kMessageFaults = 0;  // in place of the number of a fault

struct ClusterConfig {
  int nodes = 4;
  int drivers = 3;
  Duration faults = std::chrono::seconds(30);              // how long things go wrong; zero: nothing does
  Duration max_between = std::chrono::milliseconds(2500);  // two faults
  std::string messages;                                    // how single ones fare, as RAY_testing_rpc_failure has it; empty: well
  bool messages_to_the_end = false;                        // else as long as the faults
  // Of the faults, which are numbered from 1 on, those that do not happen; and kMessageFaults: messages fare well.
  std::set<size_t> without;
  DriverConfig driver;
  LauncherConfig launcher{.start_fails = 0.01, .start_hangs = 0.01};
  FakeWorkerConfig worker;
  int idle_workers = 2;  // that a node keeps; others leave after a second
  StoreSimConfig store;
  // Who works in it, if not SimDrivers and FakeWorkers: starts a driver in a process of its own on that host, which owns it; and what a worker process runs.
  std::function<ClusterDriver*(SimNetwork* network, HostId host, const SimRaylet& raylet)> start_driver;
  std::function<void(SimNetwork* network, Process* process, const raylet::LaunchRequest& request, const std::string& raylet_address)>
      run_worker;
  // Starts one more when all have left, which ends what outlives its driver; then nothing may be left. Empty: there is nothing of the kind.
  std::function<ClusterDriver*(SimNetwork* network, HostId host, const SimRaylet& raylet)> start_last_driver;
  int64_t slots = 0;  // that each node has of the resource "slot", for bundles
  // While drivers only hold what they have: what those that run code find wrong, with what the head has adopted. Empty: nothing.
  std::function<std::string(const SimRaylet& head)> check_held;

  // What processes wait for that run code, for people.
  std::function<std::vector<std::string>()> waiting;

  // Sizes and rates drawn from the seed.
  static ClusterConfig FromSeed(uint64_t seed);
};

struct Outcome {
  std::string problem;  // empty: all held
  uint64_t trace_hash = 0, events = 0;
  Duration simulated = Duration::zero();
  std::vector<std::string> fault_texts;  // for people: those that met somebody
  size_t faults = 0, kv_operations = 0, gcs_starts = 0, processes = 0;
  uint64_t message_faults = 0;
};

class SimCluster {
 public:
  // `trace`: gets every event as it happens; null: none.
  SimCluster(uint64_t seed, ClusterConfig config, std::ostream* trace = nullptr);
  ~SimCluster();
  Outcome Run();
  // A large cluster at work, without faults: first every node starts, then all drivers, far from one another, have their tasks scheduled (DriverConfig::tasks).
  // Each returns what went wrong; empty: nothing.
  std::string StartNodes();
  std::string RunTasks();
  // So far, of the drivers that live.
  int64_t tasks_done() const;
  int64_t leases_asked_for() const;
  // The newest events, and who is who in them.
  void PrintTail(std::ostream* out) const;

  World* world() { return &world_; }
  SimNetwork* network() { return &network_; }

 private:
  struct Host {
    SimRaylet* raylet = nullptr;  // while its process lives
    int incarnations = 0;
    int64_t cpus = 4;
    bool down = false;
  };
  struct Listing;

  void StartGcs();
  void StartRaylet(HostId host);
  void StartDriver() { StartDriver(AnyHost()); }
  void StartDriver(HostId host);
  void StartLastDriver();
  // For people.
  std::string WhatWaits() const;
  // For people: the primary copies in its store.
  std::string PrimariesIn(SimRaylet* raylet);
  bool RayletLives(HostId host) const { return hosts_[host].raylet != nullptr; }
  bool AllReady() const;
  HostId AnyHost() { return static_cast<HostId>(random_.Below(hosts_.size())); }
  bool Happens(size_t fault) const { return !config_.without.contains(fault); }
  // The next one: what it is follows from the seed and its number.
  void Fault();
  void Happened(const std::string& what);
  // Some hosts from the others.
  void Part(Random* chance);
  // Null: there is none.
  Process* AnyWorker(HostId host, Random* chance);
  // A driver, or a worker of that host.
  Process* AnyUser(HostId host, Random* chance);
  void CrashHost(HostId host, Duration down);
  void EndFaults();
  // `check` gets what the GCS says, asked as any client does.
  void Look(const std::function<void(const Listing&)>& check);
  void CheckAgreement(const Listing& listing);
  void CheckViews(const Listing& listing);
  void CheckHeld(const Listing& listing);
  void CheckEmpty(const Listing& listing);
  void Fail(const std::string& problem) {
    if (problem_.empty()) problem_ = problem;
  }

  const ClusterConfig config_;
  World world_;
  Random random_, fault_times_;
  const uint64_t fault_seed_;
  KvHistory history_;
  SimDisk disk_{&world_};
  SimNetwork network_{&world_};
  SimGcs gcs_{&world_, &network_, &disk_, 0};
  std::vector<Host> hosts_;
  std::vector<ClusterDriver*> drivers_;  // that live
  bool failing_ = false;
  size_t faults_ = 0;
  std::vector<std::string> fault_texts_;
  std::string problem_;
};

}  // namespace ray::sim
