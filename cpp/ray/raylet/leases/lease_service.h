// LeaseService: leases of workers for tasks, and the starts of actors, on this node.
//
// It carries out what LeaseQueueCore decides: a grant takes a worker from WorkerService and answers the owner once it has one. An actor is
// a lease whose owner is the GCS: the service pushes the creation task to the worker itself and keeps the lease until the worker ends.
// A lease ends with ReturnLease, with its worker, or with its owner (then the worker is killed: it may still run the owner's task).
// On the loop only; owned by NodeServices.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "ray/async/loop.h"
#include "ray/async/tick_timer.h"
#include "ray/raylet/memory/memory_monitor_core.h"
#include "ray/raylet/workers/worker_service.h"
#include "ray/rpc/core/answer_log.h"
#include "ray/rpc/core/dispatcher.h"
#include "ray/scheduling/lease_queue_core.h"
#include "ray/v1/explain.pb.h"
#include "ray/v1/gcs_node.pb.h"
#include "ray/v1/raylet_bundle.pb.h"
#include "ray/v1/raylet_lease.pb.h"
#include "ray/v1/sync.pb.h"
#include "ray/v1/worker_task.pb.h"

namespace ray::raylet {

// A lease with a worker.
struct HeldLease {
  LeaseId lease;
  WorkerId worker;
  JobId job;
  ActorId actor;  // nil: a lease for tasks
  std::string class_name, actor_name, ray_namespace;
  bool actor_alive = false;  // its constructor has returned
  Time since;
};

class LeaseService {
 public:
  struct Deps {
    async::Loop* loop;
    WorkerService* workers;  // set before the first request
    NodeId node_id;
    std::string node_ip;
    std::function<void()> on_resources_changed;
    // Fills a report of what the node has free, newer than all before. May be empty.
    std::function<void(v1::ReportResourcesRequest* report)> report;
    // Begins to fetch arguments of a task whose lease waits here, and goes on as long as the answer lives. May be empty.
    std::function<std::shared_ptr<void>(const v1::RequestLeaseRequest& message)> prefetch = nullptr;
    // That worker is leased to a process of that other node. May be empty.
    std::function<void(const WorkerId& worker, const NodeId& node)> on_lent = nullptr;
    // It matters now what other nodes have free. May be empty.
    std::function<void()> on_looked_elsewhere = nullptr;
  };
  LeaseService(Deps deps, scheduling::LeaseQueueConfig config, scheduling::NodeResources resources);
  ~LeaseService();
  void RegisterHandlers(rpc::Dispatcher* dispatcher);

  // kResourceViews: what other nodes have.
  void OnResourceViews(const v1::ResourceViewsNotice& notice);
  // The node is dead: nothing is sent there. Said by the GCS also where the notice of its end was missed.
  void OnNodeDead(const NodeId& node) { queue_.view()->Remove(node); }
  // A GCS that was started again may not know of nodes that it told of before; everything that it does know follows.
  void ForgetOtherNodes();
  // Whether others have sent something here since the last call: what they took off this node's account has to be put right by a report.
  bool TakeTouched() { return std::exchange(touched_, false); }

  // WorkerService's hooks.
  void OnAssigned(const LeaseId& lease, const WorkerId& worker);
  void OnPopFailed(const WorkerPopFailed& failure);
  void OnProcessEnded(const ProcessEnd& end);
  // An owner on another node has died: its leases here end, and their workers are killed.
  void OnOwnerDied(const WorkerId& owner);

  // From now on nothing is granted, and no actor is started; what waits stays in the queue.
  void StopGrants() {
    scheduling::LeaseEffects effects;
    queue_.StopGrants(Now(), &effects);
    Run(std::move(effects));
  }
  // The workers of tasks end once they have done what they were sent; actors go on.
  void LetWorkersFinish(const std::string& reason);
  // Leases that have a worker, or are about to, those of actors included.
  size_t num_held() const { return queue_.num_granted(); }
  // Those that have one.
  size_t num_running() const { return by_worker_.size(); }

  // What of actors and bundles is here, for a GCS that was started again; the next report has all bundles.
  void FillState(v1::NodeState* state);
  // Of its leases.
  std::set<JobId> Jobs() const;

  const scheduling::NodeResources& resources() const { return queue_.resources(); }
  std::map<ResourceSet, int64_t> WaitingDemand() const { return queue_.WaitingDemand(); }
  bool WaitsForOthers() const { return queue_.WaitsForOthers(); }
  // What it knows of other nodes.
  const scheduling::ClusterView& view() const { return queue_.view(); }
  // The workers that run something, for the memory monitor.
  std::vector<MemoryCandidate> RunningWork() const;
  std::vector<HeldLease> Held() const;  // by id
  // Nil: the lease is over, or has no worker yet.
  WorkerId HolderOf(const LeaseId& lease) const;
  // Those that changed since the last call, for a report.
  std::vector<scheduling::NodeResources::BundleState> TakeChangedBundles() { return queue_.TakeChangedBundles(); }
  void WriteStats(JsonWriter* json) const;
  // Where a request for a worker, or an actor of this node, stands. False: it is not here.
  bool Explain(const LeaseId& lease, v1::WaitFact* out) const;
  bool Explain(const ActorId& actor, v1::WaitFact* out) const;

 private:
  struct Actor;
  struct Lease {
    scheduling::LeaseRequest request;
    rpc::Responder responder;  // valid until it is answered; never for actors
    std::vector<scheduling::InstanceShares> instances;
    WorkerId worker;  // nil until one is assigned
    std::shared_ptr<Actor> actor;
    bool retriable = false;  // what it runs may be run again elsewhere
    NodeId owner_node;       // nil: this one
    Time assigned_at;
    std::shared_ptr<void> prefetch;  // until the lease ends: its worker goes on with what has not come yet
  };
  // One incarnation of an actor on this node, from StartActor to the end of its worker.
  struct Actor {
    ActorId id;
    uint32_t restart = 0;
    v1::StartActorRequest request;
    PartList parts;
    bool detached = false;
    WorkerId owner;
    LeaseId lease;
    WorkerId worker;
    std::vector<rpc::Responder> responders;  // until it is answered
    std::shared_ptr<v1::StartActorReply> reply;
    bool cancelled = false;  // killed before it was up
  };

  void RequestLease(const v1::RequestLeaseRequest& message, const rpc::ConnectionPtr& connection, rpc::Responder responder);
  // An owner on another node is as good as dead when the connection by which it came ends: it then takes its workers for lost, too.
  void WatchRemoteOwner(const WorkerId& owner, const rpc::ConnectionPtr& connection);
  void ReturnLease(const v1::ReturnLeaseRequest& message);
  void CancelLease(const LeaseId& lease);
  void StartActor(const v1::StartActorRequest& message, rpc::Request& request, rpc::Responder responder);
  void KillActor(const v1::KillActorOnNodeRequest& message);
  void JobFinished(const JobId& job, const std::set<WorkerId>& kept_elsewhere);
  // Others count on what this node has free: they get a report soon, even if it has not changed.
  void Touch();
  void RegisterBundleHandlers(rpc::Dispatcher* dispatcher);
  void TakeColumns(const v1::ResourceViewsNotice& notice);

  static void FillInstances(const scheduling::InstanceShares& instance, v1::AssignedInstances* out);

  void Run(scheduling::LeaseEffects effects);
  void Apply(const scheduling::LeaseEffect& effect);
  void OnTick();
  // Answers a lease that gets no worker here, and forgets it. The actor that it was for, or null.
  std::shared_ptr<Actor> TakeUnused(std::map<LeaseId, Lease>::iterator it, const v1::RequestLeaseReply& reply);
  // The actor (may be null) is not started here: the GCS looks for another place, unless it was cancelled.
  void TurnAway(const std::shared_ptr<Actor>& actor, bool cancelled);
  // Drops a lease that has no worker yet, granted or queued.
  void Drop(const LeaseId& lease);
  void EndLease(const LeaseId& lease, bool reusable);
  void AnswerLease(Lease* lease);
  void PushCreation(const std::shared_ptr<Actor>& actor);
  void OnCreationReply(const std::shared_ptr<Actor>& actor, const Status& status, v1::PushTaskReply& reply, PartList parts);
  void AnswerActor(const std::shared_ptr<Actor>& actor, v1::StartActorReply reply);
  // `pid`: of the process that was to run its constructor; 0: there was none.
  void FailActor(const std::shared_ptr<Actor>& actor, int32_t error_type, const std::string& message, int64_t pid = 0);
  void ForgetActor(const std::shared_ptr<Actor>& actor);
  // A start that failed, or was cancelled, is not tried again under the same number: the GCS may ask again because it did not get the answer, and
  // a repeat that comes behind the order to end it would run a constructor that nobody ends.
  void RememberStart(const Actor& actor);
  Time Now() const { return deps_.loop->clock().Now(); }
  bool IsOfDetachedActor(const WorkerId& worker) const;

  const Deps deps_;
  scheduling::LeaseQueueCore queue_;
  std::map<LeaseId, Lease> leases_;
  rpc::AnswerLog asked_{4096};  // RequestLease, by lease and ask
  std::unordered_map<WorkerId, LeaseId, IdHash> by_worker_;
  // What columns of views call by its number.
  struct Numbered {
    bool told = false;                     // it stands for a node
    scheduling::ClusterView::Handle node;  // none: this one
    size_t resources = 0;                  // of its total
  };
  std::vector<Numbered> numbered_;  // by number
  std::map<ActorId, std::shared_ptr<Actor>> actors_;
  std::deque<std::pair<std::pair<ActorId, uint32_t>, std::shared_ptr<v1::StartActorReply>>>
      over_starts_;                                                         // that gave no actor, oldest first
  std::unordered_map<WorkerId, rpc::ConnectionPtr, IdHash> remote_owners_;  // until their connection ends
  std::deque<scheduling::LeaseEffect> effects_;
  bool running_effects_ = false;
  bool touched_ = false;
  Time looked_elsewhere_{INT64_MIN / 2};  // as of the last look at the queue
  async::TickTimer timer_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);  // for callbacks that connections keep
};

}  // namespace ray::raylet
