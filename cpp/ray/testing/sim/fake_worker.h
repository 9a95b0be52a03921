// FakeWorker: a worker process that runs no code: it registers, takes the creation of an actor and answers it after a while, leaves when it is asked to,
// and goes with its raylet. For simulations of the nodes alone.
#pragma once

#include <string>

#include "ray/raylet/workers/worker_launcher.h"
#include "ray/testing/sim/network.h"

namespace ray::sim {

struct FakeWorkerConfig {
  Duration max_creation = std::chrono::milliseconds(300);
  double creation_fails = 0.05, dies_in_creation = 0.03, ignores_exit = 0;
};

// A WorkerProgram, with the rest bound. On the process's loop.
void RunFakeWorker(SimNetwork* network, const FakeWorkerConfig& config, Process* process, const raylet::LaunchRequest& request,
                   const std::string& raylet_address);

}  // namespace ray::sim
