// LeaseQueueCore: who may run what on this node, and who waits.
//
// A lease is the right to hold some resources with a worker. Requests of one scheduling class (job, priority, bundle and resources) are served
// first come, first served; jobs take turns; of one job those with the highest priority that fit go first, and its classes of equal priority take
// turns. So a class which fits never stands behind one that does not.
// Requests that no node of the cluster could ever run wait (a node may come), and their drivers are told once per class.
//
// Many nodes: an owner asks one raylet to decide. That one grants, or names a better node (LeaseSpilled), or keeps the request in its queue. The
// node that was named does not decide again: it grants now or rejects, and the owner comes back to the decider, naming who turned it away.
// A request is so never bound to a full node while others have room, and it cannot go to and fro: a node that turned it away is out until it
// has reported anew. Only requests that must go to one node (affinity) or be spread evenly wait there, the latter not for long.
// Pure core (docs/contributing/style.md): events and time in, effects out, in order. Owned by the lease service; not thread-safe.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <unordered_map>
#include <variant>
#include <vector>

#include "ray/common/ids.h"
#include "ray/scheduling/cluster_view.h"
#include "ray/scheduling/node_resources.h"
#include "ray/scheduling/policies.h"
#include "ray/scheduling/worker_cap.h"
#include "ray/util/clock.h"

namespace ray::scheduling {

enum class LeaseMode {
  kDecide,      // grant, queue, or name a better node
  kNowOrNever,  // another raylet decided: grant or reject
  kHere,        // this node and no other
};

struct LeaseRequest {
  LeaseId lease;
  JobId job;
  WorkerId owner;  // nil: the GCS (actors)
  PlacementRequest where;
  LeaseMode mode = LeaseMode::kDecide;
  std::vector<NodeId> rejected_by;       // that turned it away, the latest last
  Duration patience = Duration::zero();  // after so long in the queue it is rejected; zero: never
  BundleId bundle;                       // nil: none
  bool other_places = false;             // another node may serve the bundle: turned away if the labels here are not what it asks for
  int32_t priority = 0;                  // of what the job queues here, the highest goes first
  std::string runtime_env;
  std::string task_name;   // for people
  bool dedicated = false;  // wants a worker that has run nothing
  int64_t depth = 0;       // how deep its tasks are nested
};

struct LeaseQueueConfig {
  NodeId node;
  Labels labels;
  PolicyConfig policy{.spread_waits_its_turn = true};
  uint64_t seed = 1;  // of chance among equally good nodes; different on each node, or all would choose the same
  // How long a request that is spread waits at the node whose turn it is before another gets it. Lower: less even, fewer idle nodes.
  Duration spread_patience = std::chrono::seconds(1);
  Duration infeasible_notice = std::chrono::seconds(1);  // how long a request beyond the totals waits before its driver is told
  // While requests wait for resources, owners are asked for unused leases: first at once, then after this long, doubling up to the
  // maximum. Lower: quicker hand-over between owners, more messages.
  Duration reclaim_interval = std::chrono::milliseconds(10);
  Duration max_reclaim_interval = std::chrono::milliseconds(200);
  WorkerCapConfig worker_cap;
  // A lease is asked for on behalf of others after so long at the earliest. Lower: fairer between short bursts, more hand-over.
  Duration min_tenure = std::chrono::milliseconds(100);
  // One that was asked for and has not come after so long runs a long task: another is asked for, too.
  Duration yield_wait = std::chrono::seconds(1);
  // How often other nodes report at most, see SendWindow. And so many requests are always sent on in that time, however many come back.
  Duration report_interval = std::chrono::milliseconds(100);
  size_t min_sent = 16;
  // What was sent to a node counts there until its next report; without one, so long: the request may never have come there. Lower: more come back.
  Duration sent_counts_for = std::chrono::seconds(5);
  Duration bundle_commit_timeout = std::chrono::seconds(30);  // what the GCS reserved and did not commit by then goes back
};

// Effects, to be carried out in order.
struct LeaseGranted {  // resources are held from now on; find a worker
  LeaseRequest request;
  std::vector<InstanceShares> instances;
};
struct LeaseSpilled {
  LeaseId lease;
  NodeId node;
  LeaseMode mode = LeaseMode::kNowOrNever;
};
struct LeaseRefused {  // can never run
  LeaseId lease;
  std::string reason;
};
struct LeaseRejected {  // not here, or not now: whoever decided has to decide anew
  LeaseId lease;
  bool bundle_gone = false;    // its bundle is not here (any more)
  bool labels_differ = false;  // this node's labels are not what it asks for
};
struct LeaseCancelled {  // was queued
  LeaseId lease;
};
struct LeaseRevoked {  // was granted; its owner or its bundle is gone: end the worker
  LeaseId lease;
  std::string reason;
};
struct InfeasibleNotice {  // tell the drivers of the job
  JobId job;
  std::string message;
};
struct ReclaimWanted {  // ask these owners for leases that they do not use
  std::vector<WorkerId> owners;
  std::vector<std::pair<WorkerId, LeaseId>> yield;  // and for these after the task that runs: others have a better claim
};
using LeaseEffect =
    std::variant<LeaseGranted, LeaseSpilled, LeaseRefused, LeaseRejected, LeaseCancelled, LeaseRevoked, InfeasibleNotice, ReclaimWanted>;
using LeaseEffects = std::vector<LeaseEffect>;

class LeaseQueueCore {
 public:
  LeaseQueueCore(LeaseQueueConfig config, NodeResources resources);

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
  // --- what is known of the other nodes. After a batch of news, ViewChanged.
  ClusterView* view() { return &view_; }
  const ClusterView& view() const { return view_; }
  void ViewChanged(Time now, LeaseEffects* out);
  // When it mattered last what other nodes have free; long ago: never.
  Time looked_elsewhere() const { return looked_elsewhere_; }
  // Whether something waits that goes to another node as soon as that has room.
  bool WaitsForOthers() const;
  // Its queued requests are cancelled, save those whose owner `keep_owner` holds for; its leases end with their workers.
  void JobFinished(const JobId& job, const std::function<bool(const WorkerId&)>& keep_owner, Time now, LeaseEffects* out);
  // From now on nothing is granted here: the node is about to leave. What waits for this node is rejected, the rest
  // may still be sent elsewhere.
  void StopGrants(Time now, LeaseEffects* out);
  // --- bundles of placement groups. `attempt` numbers the round of the GCS in which they are placed.
  // Sets all of them aside, or none (false: not that much is free, or a later round was here). Known ones of this round are fine; those of an
  // earlier one that were not committed go back first. With `commit`, both phases at once. What is not committed in time goes back by itself.
  bool PrepareBundles(const PlacementGroupId& group, uint32_t attempt, const std::vector<std::pair<int32_t, ResourceSet>>& bundles,
                      bool commit, Time now, LeaseEffects* out);
  // From now on requests in them are served. Idempotent. False: one is not here (any more); nothing was done.
  bool CommitBundles(const PlacementGroupId& group, uint32_t attempt, const std::vector<int32_t>& indices, Time now, LeaseEffects* out);
  // In whatever phase they are; of round `attempt` (0: any), `indices` (none: all). Idempotent. Requests that no other bundle here can serve
  // are rejected, leases revoked because of `reason`.
  void ReturnBundles(const PlacementGroupId& group, uint32_t attempt, const std::vector<int32_t>& indices, const std::string& reason,
                     Time now, LeaseEffects* out);
  std::vector<NodeResources::BundleState> TakeChangedBundles() { return resources_.TakeChangedBundles(); }
  // All of them count as changed.
  void ShowAllBundles() { resources_.ShowAllBundles(); }
  // Reserved or committed.
  std::vector<BundleId> Bundles() const {
    std::vector<BundleId> ids;
    for (const auto& [id, bundle] : bundles_) ids.push_back(id);
    return ids;
  }
  void Tick(Time now, LeaseEffects* out);
  // When Tick has something to do next; infinite if nothing.
  Time NextDeadline() const;

  const NodeResources& resources() const { return resources_; }
  bool IsQueued(const LeaseId& lease) const { return queued_.contains(lease); }
  bool IsGranted(const LeaseId& lease) const { return granted_.contains(lease); }
  // What a granted lease holds; null if it is none.
  const Allocation* AllocationOf(const LeaseId& lease) const {
    const auto it = granted_.find(lease);
    return it == granted_.end() ? nullptr : &it->second.allocation;
  }
  size_t num_queued() const { return queued_.size(); }
  size_t num_granted() const { return granted_.size(); }
  // For people: how a queued lease stands. Nullopt: it is not queued.
  struct Standing {
    size_t behind = 0;       // of its kind that are served first
    Time since;              // when it came
    bool here = true;        // this node could run it, if it were empty
    std::string infeasible;  // why no node could; empty: some could
    std::string why;         // what keeps it from being granted here now
  };
  std::optional<Standing> StandingOf(const LeaseId& lease) const;
  // What waits for tasks (actors are the GCS's to tell of), by what it needs.
  std::map<ResourceSet, int64_t> WaitingDemand() const;
  // One line per class: "job 01000000 {CPU: 4}: 3 waiting, the node has {CPU: 2}".
  std::vector<std::string> DescribeQueue() const;

 private:
  struct Waiting {
    LeaseRequest request;
    std::map<NodeId, uint64_t> avoid;  // nodes that turned it away -> version of the view then
    Time impatient_at = Time::Infinite();
    Time since;  // when it was asked for
  };
  struct Class {
    std::list<Waiting> queue;  // never empty, or the class goes; a list, since requests leave it from anywhere
    bool here = true;          // this node could run it, if it were empty
    std::string infeasible;    // why no node could; empty: some could
    bool noticed = false;      // the driver was told
    Time since;                // of the first request
    uint64_t tried_epoch = 0;  // of the view, when other nodes were looked at last
  };
  struct ClassKey {
    int32_t priority = 0;
    BundleId bundle;
    ResourceSet need;
    bool pinned = false;  // waits for this node
    std::string where;    // what else decides where it may run; empty: nothing, or it was decided elsewhere
    int64_t depth = 0;
    friend bool operator==(const ClassKey&, const ClassKey&) = default;
    // The highest priority first.
    friend bool operator<(const ClassKey& a, const ClassKey& b) {
      if (a.priority != b.priority) return a.priority > b.priority;
      return std::tie(a.bundle, a.need, a.pinned, a.where, a.depth) < std::tie(b.bundle, b.need, b.pinned, b.where, b.depth);
    }
  };
  static ClassKey KeyOf(const LeaseRequest& request, bool pinned);
  // What drivers are told of once, whatever the depth.
  static ClassKey NoticeKey(ClassKey key) {
    key.depth = 0;
    return key;
  }
  // The cap's say about what could be granted now. Actors live on: they are not capped.
  bool CapAllows(const LeaseRequest& request, Time now);
  struct Job {
    std::map<ClassKey, Class> classes;       // waiting ones
    std::map<int32_t, ClassKey> last_class;  // by priority: served last; the next one in order has the turn
  };
  struct Granted {
    LeaseRequest request;
    Allocation allocation;
    int64_t cpu_given_back = 0;  // > 0 while blocked
    Time since;
    Time asked = Time::Infinite();  // when it was asked to yield; infinite: never
  };

  struct Bundle {
    uint32_t attempt = 0;
    Time commit_by = Time::Infinite();  // infinite: committed
  };
  void CloseBundle(const BundleId& bundle, const std::string& reason, Time now, LeaseEffects* out);
  // Waits for this node (`pinned`), or for any. `infeasible`: why no node could run it.
  void Enqueue(LeaseRequest request, std::map<NodeId, uint64_t> avoid, bool pinned, const std::string& infeasible, Time now);
  void Decide(LeaseRequest request, Time now, LeaseEffects* out);
  void GrantNow(LeaseRequest request, Allocation allocation, Time now, LeaseEffects* out);
  // For each class that waits here at most one lease that has to make room for it: of the same job with a lower priority, or of a job (or
  // a class of the same job) that holds more than it. Owners keep leases as long as they have tasks: without this the first would keep all.
  std::vector<std::pair<WorkerId, LeaseId>> ChooseYields(Time now);
  // The view's entry of this node, brought up to date.
  void SyncSelf();
  bool LabelsAllow(const PlacementRequest& where);
  // Of a request in a bundle, for which nobody has looked at labels before. Any of the alternatives will do: which others the bundle's group has is not known here.
  bool LabelsMatchHere(const PlacementRequest& where) const;
  std::set<NodeId> Avoided(const std::map<NodeId, uint64_t>& avoid) const;
  // A request for that is sent to the node: it counts in the view until the node has said what it has then, or for as long as it may be on its way.
  void CountSent(const NodeId& node, const ResourceSet& need, Time now);
  // True: of some that were sent nothing was heard in time. They count no longer.
  bool ForgetSent(Time now);
  // A new report is there, or should have come.
  void NextRound(Time now);
  // Of the waiting requests of the job that another node has room for, sends one there. False: none.
  bool SpillOne(Job* job, Time now, LeaseEffects* out);
  void SpillWaiting(Time now, LeaseEffects* out);
  void Schedule(Time now, LeaseEffects* out);
  bool ServeJob(Job* job, Time now, LeaseEffects* out);
  bool ServeClass(Job* job, std::map<ClassKey, Class>::iterator cls, Time now, LeaseEffects* out);
  void Remove(const LeaseId& lease);
  // Takes the first of a class out of the queue, and the class if it was the last. Whoever calls it sees to the job.
  Waiting TakeFirst(Job* job, std::map<ClassKey, Class>::iterator cls);
  void ArmReclaim(Time now, bool fresh);
  std::string InfeasibleMessage(const Class& waiting, const ClassKey& key) const;

  const LeaseQueueConfig config_;
  NodeResources resources_;
  ClusterView view_;
  PlacementPolicy policy_;
  uint64_t self_version_ = 1;
  Time looked_elsewhere_{INT64_MIN / 2};
  std::set<std::pair<Time, LeaseId>> impatient_;
  std::map<JobId, Job> jobs_;  // with something waiting
  bool grants_ = true;
  JobId last_job_;
  struct Place {
    std::map<JobId, Job>::iterator job;
    std::map<ClassKey, Class>::iterator cls;
    std::list<Waiting>::iterator at;
  };
  std::unordered_map<LeaseId, Place, IdHash> queued_;
  std::unordered_map<LeaseId, Granted, IdHash> granted_;
  std::set<std::pair<Time, BundleId>> uncommitted_;
  std::map<BundleId, Bundle> bundles_;  // reserved or committed; closing ones are NodeResources' alone
  WorkerCap cap_;
  std::map<std::pair<JobId, ClassKey>, bool> noticed_;  // classes whose driver was told, also when they come again
  // Many who decide by the same reports all send to the same nodes, and most requests come back. So each counts, from report to report, what it sent and
  // what came back. Where that is more than half it sends, until the next report, twice as many as were taken; the rest waits here. Else it may send twice as
  // many as before. So a free place is sent some two requests, however many decide.
  struct SendWindow {
    size_t size = SIZE_MAX;
    size_t sent = 0, back = 0;
    Time since{INT64_MIN / 2};
    bool used_up() const { return sent >= size; }
  };
  SendWindow window_;
  struct Sent {
    Time until;
    NodeId node;
    uint64_t version = 0;  // of the node's report that it was counted against
    ResourceSet need;
  };
  std::deque<Sent> sent_;  // oldest first; some are settled by a later report
  Time next_reclaim_ = Time::Infinite();
  Time last_reclaim_{INT64_MIN / 2};
  Duration reclaim_backoff_;
};

}  // namespace ray::scheduling
