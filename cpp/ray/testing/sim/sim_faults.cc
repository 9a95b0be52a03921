// What goes wrong in a SimCluster while it runs.
#include <array>
#include <cstdio>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "ray/testing/sim/sim_cluster.h"

namespace ray::sim {

using std::chrono::milliseconds;
using std::chrono::seconds;

void SimCluster::CrashHost(HostId host, Duration down) {
  if (hosts_[host].down) return;
  hosts_[host].down = true;
  network_.SetDown(host, true);
  for (size_t i = 0; i < world_.processes().size(); ++i) {  // an end may bring new ones
    Process* process = world_.processes()[i].get();
    if (process->host() == host) process->Kill(Death::kHostCrashed);
  }
  world_.After(down, [this, host] {
    hosts_[host].down = false;
    network_.SetDown(host, false);
    if (host == 0 && !gcs_.alive()) StartGcs();
    StartRaylet(host);
  });
}

Process* SimCluster::AnyWorker(HostId host, Random* chance) {
  if (!RayletLives(host) || hosts_[host].raylet->launcher().children().empty()) return nullptr;
  const auto& children = hosts_[host].raylet->launcher().children();
  return std::next(children.begin(), static_cast<std::ptrdiff_t>(chance->Below(children.size())))->second;
}

Process* SimCluster::AnyUser(HostId host, Random* chance) {
  if (!drivers_.empty() && chance->Chance(0.3)) return drivers_[chance->Below(drivers_.size())]->process();
  return AnyWorker(host, chance);
}

void SimCluster::Happened(const std::string& what) {
  std::array<char, 48> at{};
  std::snprintf(at.data(), at.size(), "%10.6f  #%zu ", std::chrono::duration<double>(world_.now() - Time{}).count(), faults_);
  fault_texts_.push_back(at.data() + what);
}

void SimCluster::Fault() {
  ++faults_;
  if (!Happens(faults_)) return;
  // Of its own, far from those of others, so that a fault that is left out changes nothing about what the others are.
  Random chance(fault_seed_ + (uint64_t{faults_} << 32));
  const HostId host = static_cast<HostId>(chance.Below(hosts_.size())), other = static_cast<HostId>(chance.Below(hosts_.size()));
  const std::string here = "host " + std::to_string(host), there = "host " + std::to_string(other);
  const auto between = [&chance](Duration low, Duration high) { return chance.Between(low, high); };
  const auto text = [](Duration duration) { return std::to_string(duration / milliseconds(1)) + " ms"; };
  const auto kill = [this](Process* process, const std::string& what) {
    if (process == nullptr || !process->alive()) return;
    Happened("kills " + what + ", p" + std::to_string(process->id()));
    process->Kill(Death::kKilled);
  };
  switch (chance.Below(16)) {
    case 0:
    case 1: return kill(gcs_.alive() ? gcs_.process() : nullptr, "the GCS");
    case 2: return kill(RayletLives(host) ? hosts_[host].raylet->process() : nullptr, "the raylet of " + here);
    case 3: {
      const Duration down = between(seconds(1), seconds(50));
      if (!hosts_[host].down) Happened(here + " crashes, and is back after " + text(down));
      return CrashHost(host, down);
    }
    case 4:
    case 5: return kill(AnyWorker(host, &chance), "a worker of " + here);
    case 6: return kill(drivers_.empty() ? nullptr : drivers_[chance.Below(drivers_.size())]->process(), "a driver");
    case 7:
    case 8:
    case 14: {
      const bool one_way = chance.Chance(1.0 / 3);
      const Duration cut = between(milliseconds(1), chance.Chance(0.5) ? seconds(3) : seconds(40));
      Happened(here + (one_way ? " is not heard by " : " and ") + there + (one_way ? "" : " are cut off from each other") + " for " +
               text(cut));
      if (one_way) {
        network_.CutOneWay(host, other);
      } else {
        network_.Cut(host, other);
      }
      world_.After(cut, [this, host, other] { network_.Mend(host, other); });
      return;
    }
    case 15: return Part(&chance);
    case 9: Happened("connections of " + here + " with " + there + " end"); return network_.BreakConnections(host, other);
    case 10: {
      if (chance.Chance(0.2)) {
        Happened("the next write of the GCS fails");
        return disk_.FailNext();
      }
      const Duration slow = between(Duration::zero(), seconds(5));
      Happened("writes of the GCS take up to " + text(slow));
      disk_.SetSlow(slow);
      world_.After(between(milliseconds(1), seconds(10)), [this] { disk_.SetSlow(Duration::zero()); });
      return;
    }
    case 11: {
      Process* process = chance.Chance(0.3) ? gcs_.process() : RayletLives(host) ? hosts_[host].raylet->process() : nullptr;
      if (config_.run_worker && chance.Chance(0.5)) process = AnyUser(host, &chance);
      if (config_.store.capacity > 0 && RayletLives(host) && chance.Chance(0.2)) process = hosts_[host].raylet->store()->process();
      if (process == nullptr || !process->alive()) return;
      const Duration still = between(Duration::zero(), seconds(15));
      Happened(process->name() + " p" + std::to_string(process->id()) + " stands still for " + text(still));
      world_.Record("stands still", {}, process->id());
      return process->loop()->StandStill(world_.now() + still);
    }
    case 12: {
      const Duration late = between(Duration::zero(), milliseconds(1500));
      Happened("between " + here + " and " + there + " all is late by " + text(late));
      network_.SetExtraLatency(host, other, late);
      world_.After(between(milliseconds(1), seconds(10)), [this] { network_.ClearExtraLatency(); });
      return;
    }
    case 13: {
      if (!RayletLives(host)) return;
      if (chance.Chance(0.5)) {
        const Duration jump = between(-seconds(1000), seconds(1000));
        Happened("the clock of " + here + " jumps by " + text(jump));
        return hosts_[host].raylet->process()->clock()->JumpWall(jump);
      }
      if (!hosts_[host].raylet->ready() || host == 0) return;
      const Duration deadline = between(Duration::zero(), seconds(10));
      Happened(here + " drains within " + text(deadline));
      world_.Record("drains", {}, hosts_[host].raylet->process()->id());
      return hosts_[host].raylet->Drain(deadline);
    }
  }
}

void SimCluster::Part(Random* chance) {
  std::vector<std::pair<HostId, HostId>> cut;
  std::vector<bool> here(hosts_.size());
  std::string names;
  for (size_t host = 0; host < hosts_.size(); ++host) {
    here[host] = chance->Chance(0.5);
    if (here[host]) names += " " + std::to_string(host);
  }
  for (HostId a = 0; a < hosts_.size(); ++a) {
    for (HostId b = a + 1; b < hosts_.size(); ++b) {
      if (here[a] != here[b]) cut.emplace_back(a, b);
    }
  }
  const Duration parted = chance->Between(Duration(milliseconds(1)), chance->Chance(0.5) ? Duration(seconds(3)) : Duration(seconds(40)));
  if (!cut.empty()) Happened("hosts" + names + " are cut off from the others for " + std::to_string(parted / milliseconds(1)) + " ms");
  for (const auto& [a, b] : cut) network_.Cut(a, b);
  world_.After(parted, [this, cut] {
    for (const auto& [a, b] : cut) network_.Mend(a, b);
  });
}

void SimCluster::EndFaults() {
  failing_ = false;
  if (!config_.messages_to_the_end) network_.StopMessageFaults();
  network_.MendAll();
  network_.ClearExtraLatency();
  disk_.SetSlow(Duration::zero());
  world_.Record("no more faults");
}

}  // namespace ray::sim
