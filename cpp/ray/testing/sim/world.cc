#include "ray/testing/sim/world.h"

#include <algorithm>
#include <utility>

#include "ray/testing/sim/process.h"
#include "ray/util/check.h"

namespace ray::sim {

World::World(uint64_t seed, size_t trace_tail)
    : seed_(seed),
      random_(seed),
      ids_(random_.Fork()),
      id_source_([this](void* out, size_t size) { ids_.Fill(out, size); }),
      trace_(trace_tail) {}

World::~World() {
  EndProcesses();
  heap_.clear();
  slots_.clear();
}

void World::EndProcesses() {
  for (const auto& process : processes_) process->Kill(Death::kEndOfWorld);
}

void World::Record(const char* what, std::string_view subject, uint64_t a, uint64_t b, bool routine) {
  const Process* who = running_ != nullptr ? running_ : user_;
  trace_.Add({now_, who == nullptr ? 0 : who->id(), what, subject, a, b, routine});
}

EventId World::At(Time at, std::function<void()> fn) {
  uint32_t index;
  if (free_slots_.empty()) {
    index = static_cast<uint32_t>(slots_.size());
    slots_.emplace_back();
  } else {
    index = free_slots_.back();
    free_slots_.pop_back();
  }
  Slot& slot = slots_[index];
  slot.fn = std::move(fn);
  heap_.push_back({std::max(at, now_).ns, random_.Next(), index, slot.generation});
  std::push_heap(heap_.begin(), heap_.end());
  return uint64_t{slot.generation} << 32 | index;
}

void World::Cancel(EventId id) {
  const auto index = static_cast<uint32_t>(id);
  if (id == 0 || index >= slots_.size() || slots_[index].generation != id >> 32) return;
  ++slots_[index].generation;
  free_slots_.push_back(index);
  const std::function<void()> dropped = std::exchange(slots_[index].fn, nullptr);  // its end may come back here
}

bool World::Step(Time until) {
  while (!heap_.empty()) {
    const Due due = heap_.front();
    if (due.at > until.ns) return false;
    std::pop_heap(heap_.begin(), heap_.end());
    heap_.pop_back();
    if (slots_[due.slot].generation != due.generation) continue;
    now_ = Time{due.at};
    ++slots_[due.slot].generation;
    free_slots_.push_back(due.slot);
    const std::function<void()> fn = std::exchange(slots_[due.slot].fn, nullptr);
    ++events_run_;
    fn();
    return true;
  }
  return false;
}

void World::RunUntil(Time until) {
  while (Step(until)) {
  }
  now_ = std::max(now_, until);
}

bool World::RunUntil(const std::function<bool()>& done, Time deadline) {
  while (!done()) {
    if (!Step(deadline)) {
      now_ = std::max(now_, deadline);
      return done();
    }
  }
  return true;
}

Process* World::NewProcess(std::string name, HostId host) {
  const auto id = static_cast<uint32_t>(processes_.size() + 1);
  processes_.push_back(std::make_unique<Process>(this, id, std::move(name), host));
  return processes_.back().get();
}

ClockSkew World::SkewOf(HostId host) const {
  const auto it = skews_.find(host);
  return it == skews_.end() ? ClockSkew{} : it->second;
}

}  // namespace ray::sim
