// CodeWorkload: what drivers and workers of a SimCluster run that is made of core workers, and whether what they saw can be. Drivers, until their time is up, submit
//   graphs of tasks, with arguments that others make; trees of tasks that submit tasks and wait for them; tasks that crash, or fail and are retried;
//   actors that are restarted, calls to them from the driver and from tasks that were given their handle, kills;
//   streams, read to their end or left before;
//   refs handed on inside arguments and results, kept by actors and read there, long after their maker has let go of them;
//   placement groups of all strategies, waited for, used by tasks and actors in their bundles, removed while they are used;
//   named actors, those of one driver and detached ones, which other drivers look up, call and end, and whose names are taken again; what is detached outlives its driver;
//   refs lent to actors of other drivers, alone or inside of values; some drivers leave in good order meanwhile, and the adopter answers for what they lent.
// Results are known beforehand. What must hold:
//   every get ends; it gives the right value, or an error of the kinds that what befell the cluster can cause, and none where a task is retried without end;
//   no task runs more often than its retries allow;
//   what runs in a group is where its strategy allows, as long as nothing fails; work in a group ends with a value, or since the group was removed;
//   a name stands for the actor that got it, until that one is ended or its driver has gone: nobody else gets it, and nobody finds another, or none;
//   the calls of each actor fit one log for each incarnation (ActorHistory);
//   when a driver holds only its actors, it knows of no other object any more, unless it has lent it;
//   and then whoever is counted as a borrower, by a driver, a worker or the adopter, holds the object (CodeCounts).
//
//   CodeWorkload workload(seed);
//   SimCluster cluster(seed, workload.Config());
//   Outcome outcome = cluster.Run();
//   workload.Check();
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <ostream>
#include <set>
#include <string>
#include <vector>

#include "ray/testing/sim/sim_cluster.h"
#include "ray/testing/workload/actor_history.h"
#include "ray/testing/workload/code_counts.h"
#include "ray/testing/workload/code_driver.h"
#include "ray/testing/workload/code_worker.h"

namespace ray::sim {

struct CodeStats {
  size_t tasks = 0, trees = 0, streams = 0, actors = 0, calls = 0, borrows = 0, kills = 0, cancels = 0;  // that were asked for by drivers
  size_t loans = 0, leavers = 0;                              // refs to other drivers; drivers that left early
  size_t groups = 0, in_groups = 0, names = 0, look_ups = 0;  // placement groups, tasks and actors in them; named actors, looks for one
  size_t runs = 0;                                            // of functions and methods
  size_t values = 0, errors = 0;                              // that drivers got
};

CodeStats& operator+=(CodeStats& sum, const CodeStats& more);
std::ostream& operator<<(std::ostream& out, const CodeStats& stats);

class CodeWorkload {
 public:
  explicit CodeWorkload(uint64_t seed);
  CodeWorkload(const CodeWorkload&) = delete;
  CodeWorkload& operator=(const CodeWorkload&) = delete;

  // As ClusterConfig::FromSeed, with drivers and workers of this workload. It must outlive the cluster.
  ClusterConfig Config();
  // After the run. Empty: all is well.
  std::string Check() const;
  const CodeStats& stats() const { return stats_; }

 private:
  struct ActorRecord {
    uint64_t incarnations = 0;
    ActorHistory history;
  };
  // An actor of a driver that works, to which others may lend.
  struct OpenActor {
    const Process* driver;
    ActorId actor;
    int32_t retries = 0;
  };
  struct Loan {
    OpenActor to;
    std::string text;
    bool put = false;           // else a task makes it, which ends with its job
    bool acknowledged = false;  // the actor has it, and its lender was told so
    bool read = false;          // somebody has asked for it
  };
  // Where what runs in a group has run, by the bundle that was asked for.
  struct GroupRecord {
    v1::PlacementStrategy strategy;
    std::map<int32_t, std::set<NodeId>> ran;
  };
  struct NamedActor {
    ActorId id;
    bool detached = false;
    bool answered = false;  // a call: it has been created
    bool doomed = false;    // somebody has begun to end it
    bool ended = false;     // and was told that it is
    bool Lasts() const { return detached && answered && !doomed; }
  };
  friend class CodeDriving;

  // What workers run, by kinds of programs: each has a file of its own, with what drivers do of it (CodeDriving).
  void DefineTasks();
  void DefineActors();
  void DefineBorrows();
  void DefineGroups();
  // An error since a file could not be read whose value nobody can make again: of a put, or its owner has left.
  bool MayBeLostPut(const Got& got) const;
  // Counts the run; one too many is a problem.
  void CountRun(const TaskCall& call);
  // Of an actor, by whoever runs on the session: makes call `number` of `caller`, and notes it.
  Ref CallLog(Session* session, const ActorHandle& actor, CallId id, int32_t retries);
  void SettleLog(Session* session, const ActorId& actor, CallId id, const Got& got);
  // What a look for a name gave (nil: nothing), which began when `lasting` (nil: none) had it for good; and what it must not give, that had been ended by then.
  void CheckName(const std::string& name, const ActorId& found, const ActorId& lasting, const std::set<ActorId>& ended);
  // The one that has the name for good; nil: none.
  ActorId LastingUnder(const std::string& name) const;
  std::set<ActorId> EndedUnder(const std::string& name) const;
  // Null: it is not known.
  NamedActor* FindNamed(const std::string& name, const ActorId& actor);
  std::string CheckGroups() const;
  // Its calls need no outcome once the process is dead.
  uint64_t NewCaller(Process* process, const ActorId& actor);
  void Fail(const std::string& problem) {
    if (problem_.empty()) problem_ = problem;
  }

  ClusterConfig config_;
  Program program_;
  CodeCounts counts_;
  std::vector<OpenActor> open_actors_;
  std::map<uint64_t, Loan> loans_;  // by number
  std::map<TaskId, int32_t> runs_;
  std::map<ActorId, ActorRecord> actors_;
  std::map<PlacementGroupId, GroupRecord> groups_;
  std::map<std::string, std::vector<NamedActor>> names_;  // whose creation was acknowledged
  uint64_t last_caller_ = 0;
  CodeStats stats_;
  std::string problem_;
};

}  // namespace ray::sim
