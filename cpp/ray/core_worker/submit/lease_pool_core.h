// LeasePoolCore: how an owner uses leased workers for its normal tasks.
//
// Problem: a lease costs a round trip to the raylet and perhaps a new process, a short task costs microseconds. So leases are kept and
// reused per scheduling class, short tasks are pipelined onto a busy worker (as many as it runs in 2 ms by what was measured for their
// template), and since a guess may be wrong, unstarted tasks are stolen back for workers that have nothing to do, and further leases are
// asked for while anything waits. A worker that hands a task back by itself is blocked: it gets nothing until it finishes one.
//
// Pure: events and time in, effects out, in order. Not thread-safe: its shell holds a lock. Numbers of tasks and leases are the shell's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "ray/util/clock.h"

namespace ray::core {

using TaskNo = uint64_t;   // names a pending task; opaque here
using LeaseNo = uint64_t;  // a lease, from its request on; never reused
using ClassNo = uint32_t;  // a scheduling class: resources, job, runtime environment, strategy

struct LeasePoolConfig {
  Duration pipeline_budget = std::chrono::milliseconds(2);  // work pushed ahead to one worker, by estimate
  Duration unknown_cost = std::chrono::milliseconds(1);     // assumed of a template that never ran: two at a time
  size_t max_costs = 4096;                                  // templates whose cost is remembered
  uint32_t max_depth = 256;                                 // tasks pushed to one worker at most
  uint32_t max_requests = 16;                               // unanswered lease requests per class
  Duration idle_timeout = std::chrono::milliseconds(100);   // then an unused lease goes back
  Duration overdue = std::chrono::milliseconds(5);          // a head that runs longer has its followers stolen
  Duration backoff_min = std::chrono::milliseconds(10), backoff_max = std::chrono::seconds(1);  // after a refused request
};

struct LeaseEffect {
  enum Kind {
    kRequest,        // ask the raylet for `lease` of class `cls`
    kCancelRequest,  // `lease` is not wanted any more; its answer still comes
    kPush,           // send `task` to the worker of `lease`
    kSteal,          // ask the worker of `lease` for `count` unstarted tasks
    kReturn,         // give `lease` back
    kLost,           // `task` was on a worker that is gone and may have begun: the retry rules decide
    kFail,           // `task` can never run (a refusal for good of its class)
  };
  Kind kind;
  ClassNo cls = 0;
  LeaseNo lease = 0;
  TaskNo task = 0;
  uint32_t count = 0;
  bool worker_failed = false, worker_exiting = false;
};
using LeaseEffects = std::vector<LeaseEffect>;

class LeasePoolCore {
 public:
  explicit LeasePoolCore(const LeasePoolConfig& config) : config_(config) {}

  // For all that follows. `single_use`: each task gets a lease of its own, so that whoever grants them decides where each runs.
  void SetSingleUse(ClassNo cls) { classes_[cls].single_use = true; }
  // While anything waits, at least so many requests are under way: one for each place that could have room first.
  void SetFanOut(ClassNo cls, uint32_t requests, Time now, LeaseEffects* out);
  // Forgets a class of which nothing is left: no task, lease or request. False: something is. A later event of it begins anew.
  bool Forget(ClassNo cls);
  void Submit(TaskNo task, ClassNo cls, uint64_t template_key, Time now, LeaseEffects* out);
  // Still queued: forgets it. False: it was pushed (or is unknown).
  bool RemoveQueued(TaskNo task, ClassNo cls, Time now, LeaseEffects* out);
  void Granted(LeaseNo lease, Time now, LeaseEffects* out);
  // The request ended without a lease. `for_good`: nothing of that class can ever run.
  void Refused(LeaseNo lease, bool cancelled, bool for_good, Time now, LeaseEffects* out);
  // The worker answered `task`: it ran for `run` (zero: unknown).
  void Done(LeaseNo lease, TaskNo task, Duration run, bool worker_exiting, Time now, LeaseEffects* out);
  // The worker handed `task` back unstarted; it is queued again, ahead.
  void Returned(LeaseNo lease, TaskNo task, Time now, LeaseEffects* out);
  // The worker is gone. What may have begun is reported lost: with `heard_all` (every answer that it gave has come) the first of what it had, and the rest is
  // queued again; else all of that.
  void WorkerLost(LeaseNo lease, bool heard_all, Time now, LeaseEffects* out) { WorkersLost({&lease, 1}, heard_all, now, out); }
  // All of them before anything is pushed: what one had goes to none of the others.
  void WorkersLost(std::span<const LeaseNo> leases, bool heard_all, Time now, LeaseEffects* out);
  // The raylet wants leases back: unused ones go at once.
  void Reclaim(Time now, LeaseEffects* out);
  // The same for the leases of one class.
  void ReturnUnused(ClassNo cls, LeaseEffects* out);
  // Others have a better claim to the lease: it goes back after the task that runs.
  void Yield(LeaseNo lease, Time now, LeaseEffects* out);
  // To be called by the time that NextTick names (infinite: no need).
  void Tick(Time now, LeaseEffects* out);
  Time NextTick() const;

  size_t queued(ClassNo cls) const;
  // The task that the latest request of the class was made for, as far as one can tell before it is granted; 0: none.
  TaskNo WaitsForLatest(ClassNo cls) const;
  size_t requests(ClassNo cls) const;
  size_t num_leases() const { return leases_.size(); }

  // For people; these look through whole queues. How many tasks of its class are pushed before a queued one; nullopt: it is not queued.
  std::optional<size_t> QueuedBehind(TaskNo task, ClassNo cls) const;
  // Of a pushed task: how many the worker has to do first, and since when it has been on the first of all. Nullopt: it is not pushed there.
  struct PushedPlace {
    size_t behind = 0;
    Time head_since;
  };
  std::optional<PushedPlace> PlaceOf(LeaseNo lease, TaskNo task) const;
  // What is pushed there, in the order of sending.
  std::vector<TaskNo> PushedTo(LeaseNo lease) const;

 private:
  struct Queued {
    TaskNo task;
    uint64_t template_key;
  };
  struct Pushed {
    TaskNo task;
    uint64_t template_key;
    int64_t cost_ns;  // estimate when it was pushed
  };
  struct Lease {
    LeaseNo no = 0;
    ClassNo cls = 0;
    std::deque<Pushed> pushed;  // in the order of sending; the first may be running
    int64_t cost_ns = 0;        // sum over pushed
    Time head_since, idle_since;
    bool parked = false;    // handed something back: gets nothing until it finishes a task. Invariant: pushed is not empty
    bool exiting = false;   // leaves after what it has
    bool yielding = false;  // goes back after what it has
    bool IsOpen() const { return !exiting && !yielding; }
    bool stealing = false;  // asked for tasks, none of its answers since
  };
  struct Class {
    std::deque<Queued> queued;
    std::vector<Lease*> leases;
    std::map<LeaseNo, Time> requests;  // unanswered, by age
    Duration backoff = Duration::zero();
    Time retry_at;  // no request before
    bool single_use = false;
    uint32_t fan_out = 1;
  };

  int64_t CostOf(uint64_t template_key) const;
  void Pump(ClassNo no, Class& c, Time now, LeaseEffects* out);
  void PushTo(Lease& lease, const Queued& q, Time now, LeaseEffects* out);
  bool Overdue(const Lease& lease, Time now) const;
  void StealFor(Class& c, Time now, LeaseEffects* out);
  void AdjustRequests(ClassNo no, Class& c, Time now, LeaseEffects* out);
  // Its class.
  ClassNo LoseWorker(Lease& lease, bool heard_all, LeaseEffects* out);
  void Drop(Lease* lease, bool failed, LeaseEffects* out);
  void AfterAnswer(Lease& lease, Time now);
  bool Take(Lease& lease, TaskNo task, Pushed* out);

  const LeasePoolConfig config_;
  LeaseNo next_lease_ = 1;
  Time last_tick_;  // an overdue head is looked at again only after a while
  std::map<ClassNo, Class> classes_;
  std::unordered_map<LeaseNo, std::unique_ptr<Lease>> leases_;
  std::unordered_map<LeaseNo, ClassNo> requests_;  // request -> class
  std::unordered_map<uint64_t, int64_t> cost_ns_;  // template -> moving average of its run time
};

}  // namespace ray::core
