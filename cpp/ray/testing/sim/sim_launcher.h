// SimLauncher: makes worker processes of the simulation for one raylet, as the zygote does: after a while, sometimes slowly, sometimes not at all. What runs in them is
// up to the WorkerProgram. They die when told, and soon after their raylet (as PDEATHSIG has it).
#pragma once

#include <functional>
#include <map>
#include <memory>

#include "ray/raylet/workers/worker_launcher.h"
#include "ray/testing/sim/network.h"
#include "ray/testing/sim/process.h"

namespace ray::sim {

// Begins to run in `process`; the raylet listens on `raylet_address`.
using WorkerProgram = std::function<void(Process* process, const raylet::LaunchRequest& request, const std::string& raylet_address)>;

struct LauncherConfig {
  Duration min_start = std::chrono::milliseconds(1), max_start = std::chrono::milliseconds(40);
  double start_fails = 0;  // share of launches that fail
  double start_hangs = 0;  // share of processes that never do anything
  // After one of these there is none for so long: two in a row, and all who wait for a worker are told, by the rule. One that hangs is known after 30 s.
  Duration start_spared = std::chrono::seconds(60);
};

class SimLauncher final : public raylet::WorkerLauncher {
 public:
  SimLauncher(Process* raylet, LauncherConfig config, std::string raylet_address, WorkerProgram program);
  ~SimLauncher() override { *alive_ = false; }
  void SetEvents(raylet::LauncherEvents events) override { events_ = std::move(events); }
  void Launch(const raylet::LaunchRequest& request) override;
  void Signal(int64_t pid, int signal) override;
  void OnChildEnded(int64_t) override {}
  void OnChildReaped(int64_t, int) override {}
  void Stop() override;

  // The processes that live.
  const std::map<int64_t, Process*>& children() const { return *children_; }

 private:
  Process* const raylet_;
  const LauncherConfig config_;
  const std::string raylet_address_;
  const WorkerProgram program_;
  raylet::LauncherEvents events_;
  bool stopped_ = false;
  Time spared_until_{};
  std::shared_ptr<std::map<int64_t, Process*>> children_ = std::make_shared<std::map<int64_t, Process*>>();
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace ray::sim
