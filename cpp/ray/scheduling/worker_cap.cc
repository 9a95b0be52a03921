#include "ray/scheduling/worker_cap.h"

#include <algorithm>
#include <limits>

namespace ray::scheduling {

int64_t WorkerCap::CapOf(const Kind& kind) const {
  const int64_t cpu = kind.resources.Get("CPU");
  if (!config_.enabled || cpu <= 0) return std::numeric_limits<int64_t>::max();  // it has nothing to give back while it blocks
  return std::max<int64_t>(1, cpus_ / cpu);
}

bool WorkerCap::Allows(const Kind& kind, Time now) {
  const auto it = kinds_.find(kind);
  if (it == kinds_.end() || it->second.running < CapOf(kind)) return true;
  State& state = it->second;
  if (state.not_before.is_infinite()) {
    if (state.delay == Duration::zero()) state.delay = config_.delay;
    state.not_before = state.alarm = now + state.delay;
  }
  return now >= state.not_before;
}

void WorkerCap::Granted(const Kind& kind, Time now) {
  State& state = kinds_[kind];
  if (++state.running <= CapOf(kind)) return;
  state.delay = std::min(state.delay * 2, config_.max_delay);
  state.not_before = state.alarm = Time::Infinite();  // the clock of the next one starts when it asks
}

void WorkerCap::Returned(const Kind& kind) {
  const auto it = kinds_.find(kind);
  if (it == kinds_.end()) return;
  State& state = it->second;
  if (--state.running >= CapOf(kind)) return;
  state.delay = Duration::zero();
  state.not_before = state.alarm = Time::Infinite();
  if (state.running <= 0) kinds_.erase(it);
}

Time WorkerCap::NextDeadline() const {
  Time next = Time::Infinite();
  for (const auto& [kind, state] : kinds_) next = std::min(next, state.alarm);
  return next;
}

void WorkerCap::Tick(Time now) {
  for (auto& [kind, state] : kinds_) {
    if (state.alarm <= now) state.alarm = Time::Infinite();
  }
}

}  // namespace ray::scheduling
