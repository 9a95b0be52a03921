// SimGcs: the product's GcsServer as a process of the simulation, over a SimDisk, listening on "gcs". Dies when told or when its disk fails, and is started
// again by whoever runs the cluster (as systemd does).
#pragma once

#include <functional>
#include <string>

#include "ray/gcs_server/gcs_server.h"
#include "ray/testing/sim/disk.h"
#include "ray/testing/sim/network.h"

namespace ray::sim {

inline constexpr char kGcsAddress[] = "gcs";

class SimGcs {
 public:
  SimGcs(World* world, SimNetwork* network, SimDisk* disk, HostId host) : world_(world), network_(network), disk_(disk), host_(host) {}

  // Starts a process. Fails if what is stored cannot be read, which must not happen.
  Status Start(gcs::GcsServerOptions options);
  void Kill(Death death) {
    if (alive()) process_->Kill(death);
  }
  bool alive() const { return process_ != nullptr && process_->alive(); }
  Process* process() { return process_; }
  gcs::GcsServer* server() { return server_; }  // while it is alive
  HostId host() const { return host_; }
  int starts() const { return starts_; }

 private:
  World* const world_;
  SimNetwork* const network_;
  SimDisk* const disk_;
  const HostId host_;
  Process* process_ = nullptr;
  gcs::GcsServer* server_ = nullptr;
  int starts_ = 0;
};

}  // namespace ray::sim
