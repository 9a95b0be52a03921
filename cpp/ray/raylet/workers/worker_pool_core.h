// WorkerPoolCore: which worker process runs what, when new ones are started, and when idle ones leave.
//
// Workers belong to one job and one runtime environment for life. A lease takes the idle one that was used last (its caches are warm),
// or waits for one that starts; a worker that becomes free goes to whoever waits first. Starts run in parallel up to a cap; waiting
// requests are not capped otherwise, since blocked workers let their children in. A worker that runs an actor, or has left its good
// state, is never used again.
// Where the machine has no process to give (a limit of processes or descriptors, no memory), starts are tried again after pauses that double; who waits is
// told only if that goes on, and no worker of his is there that could become free.
// Pure core: events and time in, effects out. Owned by WorkerService; not thread-safe.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <variant>
#include <vector>

#include "ray/common/ids.h"
#include "ray/util/clock.h"
#include "ray/util/recent_set.h"

namespace ray::raylet {

struct WorkerPoolConfig {
  int max_parallel_starts = 4;  // forks under way at once; more contend for the cores and none gets ready
  int max_idle = 4;             // idle workers kept, over all jobs; those beyond leave after idle_timeout
  int prestart = 4;             // workers started for a job when its driver appears
  Duration idle_timeout = std::chrono::seconds(1);
  Duration register_timeout = std::chrono::seconds(30);  // from the start of a process to its registration
  int max_start_attempts = 2;                            // in a row, for one job and environment; then those who wait are told
  int max_killed_starts = 20;                            // the same, of processes that were killed: by accident, or for want of memory
  Duration min_pause = std::chrono::milliseconds(100);   // after a start that the machine refused
  Duration max_pause = std::chrono::seconds(5);
  Duration patience = std::chrono::seconds(60);  // with such refusals
};

struct WorkerKey {
  JobId job;
  std::string runtime_env;
  friend auto operator<=>(const WorkerKey&, const WorkerKey&) = default;
};

// Effects, in order.
struct WorkerAssigned {
  LeaseId lease;
  WorkerId worker;
};
struct WorkerFork {  // start a process with this identity
  uint64_t token;
  WorkerId worker;
  WorkerKey key;
};
struct WorkerAskExit {  // idle: it may leave in its own time, and gets nothing more
  WorkerId worker;
  std::string reason;
};
struct WorkerKill {
  WorkerId worker;
  std::string reason;
};
struct WorkerPopFailed {
  LeaseId lease;
  std::string reason;
  bool job_ended = false;  // else the process could not be started
};
struct WorkersHeldUp {  // the machine refuses to start processes: news for the drivers of the job, once until one has started
  JobId job;
  std::string reason;
};
using PoolEffect = std::variant<WorkerAssigned, WorkerFork, WorkerAskExit, WorkerKill, WorkerPopFailed, WorkersHeldUp>;
using PoolEffects = std::vector<PoolEffect>;

enum class WorkerState { kStarting, kIdle, kLeased, kActor, kLeaving };
std::string_view WorkerStateName(WorkerState state);

// What the end of a worker's process says about the next.
enum class WorkerEnd {
  kFailed,   // or could not be started: the next may well fail, too
  kKilled,   // it was sent SIGKILL, and not from here: little, its zygote may have died, and all that had just been forked with it
  kRefused,  // it never was, or could not come in: the machine has no room for it now
};

class WorkerPoolCore {
 public:
  // `new_id` names the workers to come.
  WorkerPoolCore(WorkerPoolConfig config, std::function<WorkerId()> new_id);

  // Wants a worker for `lease`: WorkerAssigned or WorkerPopFailed follows, now or later. `fresh`: one that has run nothing yet.
  // `actor`: it will run an actor, and is never given out again.
  void Pop(const LeaseId& lease, const WorkerKey& key, bool fresh, bool actor, Time now, PoolEffects* out);
  // Forgets a Pop that was not answered; true if there was one.
  bool CancelPop(const LeaseId& lease);
  // A worker's process has come up. False if nobody waits for that process (late, or a stranger): refuse it.
  bool Registered(const WorkerId& worker, uint64_t token, Time now, PoolEffects* out);
  // Its lease is over. Not reusable: it is leaving by itself, or its state is unknown.
  void Returned(const WorkerId& worker, bool reusable, Time now, PoolEffects* out);
  // The process has ended, registered or not, or could not be started.
  void Died(const WorkerId& worker, const std::string& detail, WorkerEnd how, Time now, PoolEffects* out);
  // It has made that actor, which would end with it: until ActorEnded it runs tasks as before, but is given to no actor (with whose end it would go) and not
  // asked to leave.
  void Keep(const WorkerId& worker, const ActorId& actor);
  void ActorEnded(const ActorId& actor, Time now, PoolEffects* out);
  void JobStarted(const JobId& job, Time now, PoolEffects* out);
  // Ends the workers of the job and fails its waiting requests, but for those that the predicates hold for (detached actors, and what they
  // started). From then on its idle workers leave at once.
  void JobFinished(const JobId& job, const std::function<bool(const WorkerId&)>& keep_worker,
                   const std::function<bool(const LeaseId&)>& keep_lease, Time now, PoolEffects* out);
  void Tick(Time now, PoolEffects* out);
  Time NextDeadline() const;

  std::optional<WorkerState> StateOf(const WorkerId& worker) const;
  std::optional<WorkerKey> KeyOf(const WorkerId& worker) const;
  std::map<WorkerState, int> CountByState() const;
  size_t num_waiting() const { return num_waiting_; }
  // Why the machine starts no process for those who wait, as it said last; empty: it does.
  const std::string& refusal() const { return refusal_; }

 private:
  struct Worker {
    WorkerKey key;
    WorkerState state = WorkerState::kStarting;
    uint64_t token = 0;
    bool fresh = true;                             // has run nothing
    std::set<ActorId> actors;                      // that it made and that live, see Keep
    Time since;                                    // in this state
    bool overdue = false;                          // did not register in time, or its job ended first, and is being killed
    bool unwanted = false;                         // the latter: its end is no failed start
    bool kept() const { return !actors.empty(); }  // then never in idle_since_
  };
  struct Waiting {
    LeaseId lease;
    bool fresh;
    bool actor;
  };
  struct Pool {                  // of one key
    std::vector<WorkerId> idle;  // least recently used first
    std::deque<Waiting> waiting;
    int starting = 0;
    int failed_starts = 0, killed_starts = 0;  // in a row
    int prestart = 0;                          // starts still wanted without anyone waiting
    std::optional<Time> refused_since;         // the first start that the machine refused it while somebody waited
  };

  void Start(const WorkerKey& key, Pool* pool, Time now, PoolEffects* out);
  void StartMore(Time now, PoolEffects* out);
  void Assign(const WorkerId& id, Worker* worker, const Waiting& to, Time now, PoolEffects* out);
  // Gives a worker that can run anything to who waits first, or makes it idle.
  void BecomeFree(const WorkerId& id, Worker* worker, Time now, PoolEffects* out);
  void FailStart(const WorkerKey& key, const std::string& detail, WorkerEnd how, PoolEffects* out);
  void RefuseStart(const WorkerKey& key, const std::string& detail, Time now, PoolEffects* out);
  void ForgetRefusals();
  void FailWaiting(Pool* pool, const std::string& detail, PoolEffects* out);
  void DropPoolIfUnused(const WorkerKey& key);

  const WorkerPoolConfig config_;
  const std::function<WorkerId()> new_id_;
  uint64_t next_token_ = 1;
  std::unordered_map<WorkerId, Worker, IdHash> workers_;
  std::unordered_map<ActorId, WorkerId, IdHash> makers_;  // of the actors in Worker::actors
  std::map<WorkerKey, Pool> pools_;
  std::map<Time, WorkerId> idle_since_;    // of all idle workers; times are made unique
  std::map<uint64_t, WorkerId> starting_;  // by token, so by age
  RecentSet<JobId, IdHash> finished_jobs_;
  size_t num_waiting_ = 0;
  // While the machine refuses starts, of whatever pool.
  std::string refusal_;
  Duration pause_ = Duration::zero();
  std::optional<Time> resume_at_;  // no start before
  std::set<JobId> told_;           // WorkersHeldUp
};

}  // namespace ray::raylet
