#include "ray/raylet/memory/memory_monitor.h"

#include <unistd.h>

#include <utility>

#include "ray/util/logging.h"

namespace ray::raylet {

MemoryMonitor::MemoryMonitor(MemoryMonitorOptions options, Deps deps)
    : options_(std::move(options)), deps_(std::move(deps)), reader_(options_.root, options_.count_swap), core_(options_.core) {}

MemoryMonitor::~MemoryMonitor() { Stop(); }

void MemoryMonitor::Start() {
  if (options_.interval <= Duration::zero() || on_) return;
  if (reader_.Read().total == 0) {
    RAY_LOG(WARNING) << "the memory in use cannot be read under " << options_.root << ": workers are not ended when it runs out";
    return;
  }
  on_ = true;
  Arm();
}

void MemoryMonitor::Arm() {
  if (!on_ || timer_ != 0 || !deps_.works()) return;
  timer_ = deps_.loop->AddTimer(options_.interval, [this] { Look(); });
}

void MemoryMonitor::Stop() {
  on_ = false;
  if (timer_ != 0) deps_.loop->CancelTimer(std::exchange(timer_, 0));
}

void MemoryMonitor::Look() {
  timer_ = 0;
  Arm();
  const Time now = deps_.loop->clock().Now();
  const MemoryUse use = reader_.Read();
  if (!core_.WantsVictim(use, now)) return;
  std::vector<MemoryCandidate> candidates = deps_.candidates();
  const auto chosen = core_.Choose(candidates, now);
  if (!chosen) return;  // what fills the memory is not ours
  MemoryCandidate& victim = candidates[*chosen];
  victim.rss = MemoryReader::RssOf(victim.pid);
  std::vector<MemoryProcess> processes;
  for (const int64_t pid : deps_.pids()) processes.push_back({pid, MemoryReader::RssOf(pid), MemoryReader::CommandOf(pid)});
  deps_.end(victim, DescribeOutOfMemory(use, core_.ThresholdOf(use.total), victim, deps_.node, std::move(processes)));
}

}  // namespace ray::raylet
