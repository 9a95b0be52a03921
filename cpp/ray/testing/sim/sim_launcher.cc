#include "ray/testing/sim/sim_launcher.h"

#include <utility>

namespace ray::sim {
namespace {

constexpr Duration kMaxSignalDelay = std::chrono::microseconds(500);
constexpr Duration kMaxReapDelay = std::chrono::milliseconds(5);

}  // namespace

SimLauncher::SimLauncher(Process* raylet, LauncherConfig config, std::string raylet_address, WorkerProgram program)
    : raylet_(raylet), config_(config), raylet_address_(std::move(raylet_address)), program_(std::move(program)) {
  raylet_->OnDeath([children = children_, world = raylet_->world()](int) {
    for (const auto& [pid, child] : *children) {
      world->After(world->random().Between(Duration::zero(), kMaxReapDelay), [child] { child->Kill(Death::kKilled); });
    }
  });
}

void SimLauncher::Launch(const raylet::LaunchRequest& request) {
  World* world = raylet_->world();
  const Duration took = world->random().Between(config_.min_start, config_.max_start);
  const bool spared = world->now() < spared_until_;
  const bool fails = world->random().Chance(config_.start_fails) && !spared;
  const bool hangs = world->random().Chance(config_.start_hangs) && !spared;
  if (fails || hangs) spared_until_ = world->now() + config_.start_spared;
  if (fails) {
    raylet_->loop()->AddTimer(took, [this, alive = alive_, token = request.token] {
      if (*alive) events_.on_failed(token, "no more processes");
    });
    return;
  }
  world->After(took, [this, world, request, hangs, alive = alive_] {
    if (!*alive || stopped_ || !raylet_->alive()) return;
    Process* process = world->NewProcess("worker", raylet_->host());
    world->Record("worker starts", {}, process->id());
    (*children_)[process->pid()] = process;
    process->OnDeath([this, world, process, alive, children = children_](int wait_status) {
      const Duration later = world->random().Between(Duration::zero(), kMaxReapDelay);
      world->After(later, [this, process, alive, wait_status, children] {
        children->erase(process->pid());
        if (!*alive) return;
        raylet_->loop()->Post("worker exited", [this, process, wait_status, alive] {
          if (*alive && !stopped_) events_.on_exited(process->pid(), wait_status);
        });
      });
    });
    raylet_->loop()->Post("worker started", [this, alive, token = request.token, pid = process->pid()] {
      if (*alive && !stopped_) events_.on_started(token, pid);
    });
    if (!hangs) process->Run([&] { program_(process, request, raylet_address_); });
  });
}

void SimLauncher::Signal(int64_t pid, int signal) {
  const auto child = children_->find(pid);
  if (child == children_->end()) return;
  World* world = raylet_->world();
  world->After(world->random().Between(Duration::zero(), kMaxSignalDelay),
               [process = child->second, signal] { process->Kill(Death::kKilled, signal); });
}

void SimLauncher::Stop() {
  stopped_ = true;
  for (const auto& [pid, child] : *children_) Signal(pid, 9);
}

}  // namespace ray::sim
