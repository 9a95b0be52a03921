// LeaseQueueCore: who may run what on this node, and who waits.
//
// A lease is the right to hold some resources with a worker. Requests of one scheduling class (job and resources) are served first come,
// first served; jobs take turns, and the classes of a job take turns, so that a class which fits never stands behind one that does not.
// Requests beyond the node's totals wait (another node may come), and their drivers are told once per class.
// Pure core (architecture.md, section 4): events and time in, effects out, in order. Owned by the lease service; not thread-safe.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <unordered_map>
#include <variant>
#include <vector>

#include "ray/common/ids.h"
#include "ray/scheduling/node_resources.h"
#include "ray/scheduling/worker_cap.h"
#include "ray/util/clock.h"

namespace ray::scheduling {

enum class Strategy { kDefault, kSpread, kNodeAffinity };

struct LeaseRequest {
  LeaseId lease;
  JobId job;
  WorkerId owner;  // nil: the GCS (actors)
  ResourceSet resources;
  Strategy strategy = Strategy::kDefault;
  NodeId affinity_node;  // kNodeAffinity
  bool affinity_soft = false;
  std::string runtime_env;
  std::string task_name;   // for people
  bool dedicated = false;  // wants a worker that has run nothing
  int64_t depth = 0;       // how deep its tasks are nested
};

// Where a request should go instead of this node. The seam for many nodes: on one node nobody answers.
class SpillPolicy {
 public:
  virtual ~SpillPolicy() = default;
  // Nullopt: stay. Called for requests that cannot be granted here now.
  virtual std::optional<NodeId> Choose(const LeaseRequest& request, bool feasible_here) = 0;
  // Whether that node is part of the cluster and alive.
  virtual bool Knows(const NodeId& node) = 0;
};

struct LeaseQueueConfig {
  NodeId node;
  Duration infeasible_notice = std::chrono::seconds(1);  // how long a request beyond the totals waits before its driver is told
  // While requests wait for resources, owners are asked for unused leases: first at once, then after this long, doubling up to the
  // maximum. Lower: quicker hand-over between owners, more messages.
  Duration reclaim_interval = std::chrono::milliseconds(10);
  Duration max_reclaim_interval = std::chrono::milliseconds(200);
  WorkerCapConfig worker_cap;
};

// Effects, to be carried out in order.
struct LeaseGranted {  // resources are held from now on; find a worker
  LeaseRequest request;
  std::vector<InstanceShares> instances;
};
struct LeaseSpilled {
  LeaseId lease;
  NodeId node;
};
struct LeaseRefused {  // can never run
  LeaseId lease;
  std::string reason;
};
struct LeaseCancelled {  // was queued
  LeaseId lease;
};
struct LeaseRevoked {  // was granted; its owner is gone: end the worker
  LeaseId lease;
};
struct InfeasibleNotice {  // tell the drivers of the job
  JobId job;
  std::string message;
};
struct ReclaimWanted {  // ask these owners for leases that they do not use
  std::vector<WorkerId> owners;
};
using LeaseEffect = std::variant<LeaseGranted, LeaseSpilled, LeaseRefused, LeaseCancelled, LeaseRevoked, InfeasibleNotice, ReclaimWanted>;
using LeaseEffects = std::vector<LeaseEffect>;

class LeaseQueueCore {
 public:
  // `spill` may be null and must outlive the core.
  LeaseQueueCore(LeaseQueueConfig config, NodeResources resources, SpillPolicy* spill = nullptr);

  // False, and no effects, for a lease that is known already (a repeated request).
  bool Request(LeaseRequest request, Time now, LeaseEffects* out);
  // Drops a queued request. Unknown or granted leases are left alone.
  void Cancel(const LeaseId& lease, Time now, LeaseEffects* out);
  // The holder gives it back; unknown leases are fine.
  void Return(const LeaseId& lease, Time now, LeaseEffects* out);
  // Keeps only `keep` of what the lease holds (an actor that was placed).
  void Shrink(const LeaseId& lease, const ResourceSet& keep, Time now, LeaseEffects* out);
  // The lease's worker waits in get (its CPU is free meanwhile), and is done with it. Idempotent.
  void Block(const LeaseId& lease, Time now, LeaseEffects* out);
  void Unblock(const LeaseId& lease);
  // Its queued requests are dropped without an effect, its leases revoked.
  void OwnerDied(const WorkerId& owner, Time now, LeaseEffects* out);
  // Its queued requests are cancelled, save those whose owner `keep_owner` holds for; its leases end with their workers.
  void JobFinished(const JobId& job, const std::function<bool(const WorkerId&)>& keep_owner, Time now, LeaseEffects* out);
  // From now on nothing is granted here: the node is about to leave. What waits may still be sent elsewhere.
  void StopGrants() { grants_ = false; }
  void Tick(Time now, LeaseEffects* out);
  // When Tick has something to do next; infinite if nothing.
  Time NextDeadline() const;

  const NodeResources& resources() const { return resources_; }
  bool IsQueued(const LeaseId& lease) const { return queued_.contains(lease); }
  bool IsGranted(const LeaseId& lease) const { return granted_.contains(lease); }
  size_t num_queued() const { return queued_.size(); }
  size_t num_granted() const { return granted_.size(); }
  // One line per class: "job 01000000 {CPU: 4}: 3 waiting, the node has {CPU: 2}".
  std::vector<std::string> DescribeQueue() const;

 private:
  struct Class {
    std::deque<LeaseRequest> queue;  // never empty, or the class goes
    bool feasible = true;            // within the totals
    bool noticed = false;            // the driver was told
    Time since;                      // of the first request
  };
  using ClassKey = std::pair<ResourceSet, int64_t /* depth */>;
  struct Job {
    std::map<ClassKey, Class> classes;  // waiting ones
    ClassKey last_class;                // served last; the next one in order has the turn
  };
  struct Granted {
    LeaseRequest request;
    Allocation allocation;
    int64_t cpu_given_back = 0;  // > 0 while blocked
  };

  void Enqueue(LeaseRequest request, Time now);
  void Schedule(Time now, LeaseEffects* out);
  bool ServeJob(Job* job, Time now, LeaseEffects* out);
  void Remove(const LeaseId& lease);
  void ArmReclaim(Time now, bool fresh);
  std::string InfeasibleMessage(const Class& waiting, const ResourceSet& need) const;

  const LeaseQueueConfig config_;
  NodeResources resources_;
  SpillPolicy* const spill_;
  std::map<JobId, Job> jobs_;  // with something waiting
  bool grants_ = true;
  JobId last_job_;
  std::unordered_map<LeaseId, std::pair<JobId, ClassKey>, IdHash> queued_;
  std::unordered_map<LeaseId, Granted, IdHash> granted_;
  WorkerCap cap_;
  std::map<std::pair<JobId, ResourceSet>, bool> noticed_;  // of which the job's driver was told; kept for when they come again
  Time next_reclaim_ = Time::Infinite();
  Time last_reclaim_{INT64_MIN / 2};
  Duration reclaim_backoff_;
};

}  // namespace ray::scheduling
