// WorkerCap: brakes the growth of workers where tasks wait for other tasks.
//
// Problem: a task that blocks gives its CPU back, and whoever waits in the queue gets it: with a thousand tasks that each wait for a child there
// would soon be a thousand processes. So of one kind of task (job, resources, depth of nesting) as many run as the node's CPUs allow; each further
// one is let in after a delay that doubles, since what the others wait for may be among those that wait: a cap without an end could lock up.
// Children count at a depth of their own and are not held up by their parents.
// Pure; owned by LeaseQueueCore.
#pragma once

#include <cstdint>
#include <map>
#include <tuple>

#include "ray/common/ids.h"
#include "ray/common/resources.h"
#include "ray/util/clock.h"

namespace ray::scheduling {

struct WorkerCapConfig {
  bool enabled = true;
  Duration delay = std::chrono::milliseconds(100);  // before the first lease beyond the CPUs
  Duration max_delay = std::chrono::seconds(10);    // after doubling for each further one
};

class WorkerCap {
 public:
  struct Kind {
    JobId job;
    ResourceSet resources;
    int64_t depth = 0;
    friend auto operator<=>(const Kind& a, const Kind& b) {
      return std::tie(a.job, a.depth, a.resources) <=> std::tie(b.job, b.depth, b.resources);
    }
  };

  // `cpus`: of the node, in ResourceSet's units.
  WorkerCap(WorkerCapConfig config, int64_t cpus) : config_(config), cpus_(cpus) {}

  // Whether a lease of that kind, whose resources are free, may be granted now. If not: ask again at NextDeadline, or after Returned.
  bool Allows(const Kind& kind, Time now);
  void Granted(const Kind& kind, Time now);
  void Returned(const Kind& kind);
  // When one that was held back may go; infinite if none is. Each time is told until Tick has passed it.
  Time NextDeadline() const;
  void Tick(Time now);

 private:
  struct State {
    int64_t running = 0;
    Duration delay = Duration::zero();   // the next one's; zero: within the cap
    Time not_before = Time::Infinite();  // of the next one beyond the cap; infinite: nobody has asked
    Time alarm = Time::Infinite();       // the same, until it has passed
  };
  int64_t CapOf(const Kind& kind) const;

  const WorkerCapConfig config_;
  const int64_t cpus_;
  std::map<Kind, State> kinds_;  // with something running or held back
};

}  // namespace ray::scheduling
