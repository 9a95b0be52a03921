#include "ray/raylet/memory/memory_monitor_core.h"

#include <algorithm>
#include <cstdio>
#include <map>
#include <tuple>

namespace ray::raylet {
namespace {

constexpr size_t kShownProcesses = 10;
constexpr size_t kShownCommand = 100;  // characters

std::string Gigabytes(uint64_t bytes) {
  char text[32];
  snprintf(text, sizeof text, "%.2f GB", static_cast<double>(bytes) / 1e9);
  return text;
}

std::string Share(uint64_t part, uint64_t whole) {
  char text[32];
  snprintf(text, sizeof text, "%.3f", whole == 0 ? 0.0 : static_cast<double>(part) / static_cast<double>(whole));
  return text;
}

// The one leased last, among the owners that would still have a worker; with an equal owner count the later one.
size_t ChooseByTime(const std::vector<MemoryCandidate>& candidates) {
  std::map<WorkerId, int> of_owner;
  for (const auto& c : candidates) ++of_owner[c.owner];
  auto rank = [&](const MemoryCandidate& c) { return std::tuple(c.retriable, of_owner[c.owner] > 1, c.leased, c.worker); };
  const auto best = std::max_element(candidates.begin(), candidates.end(), [&](const auto& a, const auto& b) { return rank(a) < rank(b); });
  return static_cast<size_t>(best - candidates.begin());
}

// A group is an owner's work that can be run again; what cannot is a group each. The largest group, then the youngest, loses its youngest.
size_t ChooseByGroup(const std::vector<MemoryCandidate>& candidates) {
  struct Group {
    size_t members = 0;
    size_t youngest = 0;
  };
  std::map<std::tuple<bool, WorkerId, WorkerId>, Group> groups;
  for (size_t i = 0; i < candidates.size(); ++i) {
    const auto& c = candidates[i];
    Group& group = groups[{c.retriable, c.owner, c.retriable ? WorkerId::Nil() : c.worker}];
    if (group.members++ == 0 || candidates[group.youngest].leased < c.leased) group.youngest = i;
  }
  auto rank = [&](const auto& entry) {
    return std::tuple(std::get<0>(entry.first), entry.second.members, candidates[entry.second.youngest].leased);
  };
  const auto best = std::max_element(groups.begin(), groups.end(), [&](const auto& a, const auto& b) { return rank(a) < rank(b); });
  return best->second.youngest;
}

}  // namespace

uint64_t MemoryMonitorCore::ThresholdOf(uint64_t total) const {
  auto threshold = static_cast<uint64_t>(static_cast<double>(total) * config_.threshold);
  if (config_.min_free_bytes >= 0) {
    const auto free = static_cast<uint64_t>(config_.min_free_bytes);
    threshold = std::max(threshold, total > free ? total - free : 0);
  }
  return threshold;
}

bool MemoryMonitorCore::WantsVictim(const MemoryUse& use, Time now) {
  if (use.total == 0 || use.used <= ThresholdOf(use.total)) return false;
  return going_.IsNil() || now >= since_ + config_.patience;
}

std::optional<size_t> MemoryMonitorCore::Choose(const std::vector<MemoryCandidate>& candidates, Time now) {
  if (candidates.empty()) return std::nullopt;
  const size_t chosen = config_.by_group ? ChooseByGroup(candidates) : ChooseByTime(candidates);
  going_ = candidates[chosen].worker;
  since_ = now;
  return chosen;
}

void MemoryMonitorCore::OnEnded(const WorkerId& worker) {
  if (worker == going_) going_ = WorkerId::Nil();
}

std::string DescribeOutOfMemory(const MemoryUse& use, uint64_t threshold, const MemoryCandidate& victim, const std::string& node,
                                std::vector<MemoryProcess> processes) {
  std::sort(processes.begin(), processes.end(), [](const auto& a, const auto& b) { return a.rss > b.rss; });
  std::string text = "Task was killed due to the node running low on memory.\nMemory on the node (" + node + ") was " +
                     Gigabytes(use.used) + " / " + Gigabytes(use.total) + " (" + Share(use.used, use.total) +
                     "), which exceeds the memory usage threshold of " + Share(threshold, use.total) +
                     ". Ray ended the worker (ID: " + victim.worker.Hex() + ", pid " + std::to_string(victim.pid) + ", " +
                     Gigabytes(victim.rss) + ") that ran '" + victim.name + "', because it was the one leased last" +
                     (victim.retriable ? " of those whose work can be run again" : ", and there was none whose work can be run again") +
                     ".\nTop memory users on the node:\nPID\tMEM\tCOMMAND";
  for (size_t i = 0; i < std::min(processes.size(), kShownProcesses); ++i) {
    const auto& p = processes[i];
    text += "\n" + std::to_string(p.pid) + "\t" + Gigabytes(p.rss) + "\t" + p.command.substr(0, kShownCommand);
  }
  return text +
         "\nGive tasks that need much memory more CPUs or a `memory` resource, so that fewer run at once; or start Ray with another "
         "RAY_memory_usage_threshold. RAY_memory_monitor_refresh_ms=0 turns this off.";
}

}  // namespace ray::raylet
