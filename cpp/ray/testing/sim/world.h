// World: virtual time, and the one scheduler of a simulation. Everything that happens is an event with a time; what is due at the same time runs in an
// order that the seed decides. Between two events nothing runs, so a process can be ended, a cable cut or an invariant checked between any two.
//
//   World world(seed);
//   Process* gcs = world.NewProcess("gcs", /*host=*/0);       // process.h: a clock, a loop, a life
//   SimNetwork network(&world);                               // network.h: connections between processes
//   world.RunFor(std::chrono::seconds(60));
//
// All random ids of the product (common/ids.h) come from the seed while a World lives. One World per thread; the thread must stay the same. User code has threads
// of its own, which take turns with it (user_thread.h).
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "ray/common/ids.h"
#include "ray/testing/sim/random.h"
#include "ray/testing/sim/trace.h"
#include "ray/util/clock.h"

namespace ray::sim {

class Process;
using HostId = uint32_t;
using EventId = uint64_t;  // 0: none; never reused

struct ClockSkew {
  Duration offset = Duration::zero();  // of the wall clock
  int64_t ppm = 0;                     // how many millionths the monotonic clock runs fast
};

class World {
 public:
  explicit World(uint64_t seed, size_t trace_tail = 300);
  ~World();
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  uint64_t seed() const { return seed_; }
  Time now() const { return now_; }
  Random& random() { return random_; }
  Trace& trace() { return trace_; }
  const Trace& trace() const { return trace_; }
  void Record(const char* what, std::string_view subject = {}, uint64_t a = 0, uint64_t b = 0, bool routine = false);

  EventId At(Time at, std::function<void()> fn);
  EventId After(Duration delay, std::function<void()> fn) { return At(now_ + delay, std::move(fn)); }
  // Unknown ids, and those of what has run, are fine.
  void Cancel(EventId id);

  // Runs one event, if there is one until `until`.
  bool Step(Time until = Time::Infinite());
  // Time ends at `until` also where nothing happens.
  void RunUntil(Time until);
  void RunFor(Duration duration) { RunUntil(now_ + duration); }
  // Runs until `done` says so, at most until the deadline. Returns whether it did. Looked at after each event.
  bool RunUntil(const std::function<bool()>& done, Time deadline);
  uint64_t events_run() const { return events_run_; }

  // Lives until the World ends, dead or alive. Of one host: they fail together, and no cable is between them.
  Process* NewProcess(std::string name, HostId host);
  const std::vector<std::unique_ptr<Process>>& processes() const { return processes_; }
  // All of them end, without a word to anybody. For the end of what they run on.
  void EndProcesses();
  // Of the processes that start on that host from now on.
  void SetSkew(HostId host, ClockSkew skew) { skews_[host] = skew; }
  ClockSkew SkewOf(HostId host) const;

  // For the threads of users (user_thread.h): the same stream of ids, and whose code runs from now on; null: the World's.
  ScopedRandomSource ShareIds() {
    return ScopedRandomSource([this](void* out, size_t size) { ids_.Fill(out, size); });
  }
  void BeginUserCode(Process* process) { user_ = process; }

 private:
  friend class SimLoop;
  struct Due {
    int64_t at;
    uint64_t tie;
    uint32_t slot, generation;
    bool operator<(const Due& other) const { return at != other.at ? at > other.at : tie > other.tie; }  // the heap's top is the earliest
  };
  struct Slot {
    uint32_t generation = 1;
    std::function<void()> fn;
  };

  const uint64_t seed_;
  Random random_;
  Random ids_;
  const ScopedRandomSource id_source_;
  Trace trace_;
  Time now_{0};
  std::vector<Due> heap_;
  std::vector<Slot> slots_;
  std::vector<uint32_t> free_slots_;
  uint64_t events_run_ = 0;
  Process* running_ = nullptr;  // whose loop runs something now
  Process* user_ = nullptr;     // whose user code runs now
  std::map<HostId, ClockSkew> skews_;
  std::vector<std::unique_ptr<Process>> processes_;
};

}  // namespace ray::sim
