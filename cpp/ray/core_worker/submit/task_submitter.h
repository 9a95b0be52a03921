// TaskSubmitter: shell of the LeasePoolCore: normal tasks from "arguments ready" to the verdict.
//
// The lock is held while frames are handed to connections (which never block or call back), so that a task cannot be answered, or its worker declared
// lost, before its push is on record; everything else is called without it. Thread-safe. Owned by the CoreWorker.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <unordered_map>
#include <unordered_set>

#include "ray/async/loop.h"
#include "ray/core_worker/peers/peer_pool.h"
#include "ray/core_worker/placement_groups/placement_group_service.h"
#include "ray/core_worker/submit/death_notes.h"
#include "ray/core_worker/submit/lease_pool_core.h"
#include "ray/core_worker/submit/task_channel.h"
#include "ray/core_worker/tasks/task_manager.h"
#include "ray/util/mutex.h"
#include "ray/v1/explain.pb.h"
#include "ray/v1/raylet_worker.pb.h"

namespace ray::core {

class TaskSubmitter {
 public:
  struct Deps {
    async::Loop* loop = nullptr;
    PeerPool* peers = nullptr;
    TaskManager* tasks = nullptr;
    DeathNotes* deaths = nullptr;
    PlacementGroupService* groups = nullptr;
    ObjectService* objects = nullptr;
    Address self;
    LeasePoolConfig config;
    // Before a task runs again whose worker was ended for want of memory; doubles with each time, up to the maximum.
    Duration oom_backoff = std::chrono::seconds(1), max_oom_backoff = std::chrono::seconds(60);
    std::atomic<uint64_t>* push_numbers = nullptr;  // see TaskChannel
  };
  explicit TaskSubmitter(Deps deps) : deps_(std::move(deps)), pool_(deps_.config) {}

  // `depth`: how deep the task is nested, see TaskSpec.
  ClassNo ClassOf(const TaskTemplate& tmpl, int64_t depth);
  // REQUIRES: in the TaskManager's table, arguments ready.
  void Submit(const PendingTaskPtr& task);
  // Marked cancelled before. Settles it if it was not sent, else tells its worker.
  void Cancel(const PendingTaskPtr& task, bool force, bool recursive);
  // A placement group has changed: requests that wait for it go on, and leases in one that was removed go back. On the loop.
  void OnGroupChanged(const PlacementGroupId& group);
  // Before anybody else hears of it: what is made again for its losses is not sent to its workers, which would cost a retry more. On the loop.
  void OnNodeDied(const NodeId& node);
  // kReclaimLeases.
  void Reclaim(const v1::ReclaimLeasesNotice& notice);
  // No further requests or retries; leases go back.
  void Shutdown();
  // Where a task is whose arguments are ready.
  void Explain(const PendingTask& task, v1::WaitFact* out);
  // The tasks that were sent, by number, and where to.
  std::unordered_map<TaskNo, TaskWorker> Sent();
  // Where that one was sent to; nullopt: it was not, or is not there any more.
  std::optional<TaskWorker> SentTo(const PendingTask& task);

 private:
  struct Class {
    TaskTemplate tmpl;  // resources, job, runtime_env, strategy are those of all its tasks
    int64_t depth = 0;
    ClassNo base = 0;        // the same without `home`
    NodeId home;             // whose raylet decides: where most of their arguments are; nil: ours
    uint64_t next_node = 0;  // in a placement group: requests go to its nodes in turn
    std::set<NodeId> unfit;  // of those, the ones whose labels are not what it asks for
    std::string trouble;     // why this process could not connect to the last worker that it got; empty: it could
  };
  // Below so many classes none is looked for that could be forgotten.
  static constexpr size_t kFewClasses = 32;
  struct Lease {
    LeaseId id;
    ClassNo cls = 0;
    std::shared_ptr<TaskChannel> channel;  // null: requested
    Instances instances;
    NodeId home;                               // whose raylet decides; nil: ours
    NodeId node;                               // whose raylet was asked last
    std::vector<NodeId> rejected_by;           // since it was asked for, the latest last
    bool cancelled = false;                    // on the way from one raylet to the next
    std::vector<v1::LeaseArgument> arguments;  // of the task that it was asked for
    uint32_t asks = 0;                         // requests for it that were sent
    bool other_places = false;                 // in a placement group: if this node's labels do not do, another's may
  };
  // What has to be done without the lock.
  struct Later {
    TaskNo task;
    enum Kind { kLost, kRefused /* can never run */, kCancelled } kind;
    TaskWorker worker;
    PendingTaskPtr keep;
  };

  void Run(const std::function<void(Time now, LeaseEffects*)>& event, const ErrorValue& refusal = {});
  // The other node that has most of the task's arguments in its store; nil: none, or not worth the way.
  NodeId HomeOf(const PendingTask& task) const;
  ClassNo ClassAtLocked(ClassNo cls, const NodeId& home) REQUIRES(mu_);
  // The number of the class that `key` describes. New: `made` is it, its base being itself if it has no home.
  ClassNo NumberLocked(std::string key, Class made) REQUIRES(mu_);
  void AddClassLocked(ClassNo no, Class made) REQUIRES(mu_);
  void EnsureClassLocked(const PendingTask& task) REQUIRES(mu_);  // it may have been forgotten
  // Classes that nothing is left of. Whoever has the number of one brings it back by using it.
  void ForgetClassesLocked() REQUIRES(mu_);
  void CarryOutLocked(LeaseEffects* effects, Time now, std::vector<Later>* later) REQUIRES(mu_);
  void PushLocked(LeaseNo no, TaskNo task_no) REQUIRES(mu_);
  void RequestLocked(LeaseNo no, ClassNo cls, Time now, LeaseEffects* out) REQUIRES(mu_);
  // To the raylet of that node; nil: ours.
  void SendRequestLocked(LeaseNo no, const NodeId& node, v1::LeasePlacement placement) REQUIRES(mu_);
  // Large arguments of the task, wherever they are.
  std::vector<v1::LeaseArgument> LargeArguments(const PendingTask& task) const;
  // In a placement group: to where a bundle is, or waits for it to be somewhere.
  void RequestInGroupLocked(LeaseNo no, Time now, LeaseEffects* out) REQUIRES(mu_);
  // That raylet's node has other labels than what is asked for: on to the next node of the group.
  void OnLabelsDiffer(LeaseNo no);
  // Takes a request back from where it waits; its answer still comes.
  void SendCancelLocked(const Lease& lease) REQUIRES(mu_);
  // Null: it cannot be reached.
  rpc::ConnectionPtr RayletOf(const NodeId& node) const;
  void OnLeaseReply(LeaseNo no, const Status& status, const v1::RequestLeaseReply& reply);
  // Goes on with what a raylet said that did not grant it: the next raylet, or back to the one that decides. False: it has ended.
  bool FollowLocked(LeaseNo no, const Status& status, const v1::RequestLeaseReply& reply) REQUIRES(mu_);
  void ScheduleTickLocked(Time now) REQUIRES(mu_);
  void Settle(const std::vector<Later>& later, const ErrorValue& refusal);
  // Why the task's worker ended is known: it decides about another attempt.
  void OnLossExplained(const PendingTaskPtr& task, const TaskWorker& worker, const DeathNote& note);
  void OnGranted(LeaseNo no, const v1::RequestLeaseReply& reply);
  void OnAnswer(const PendingTaskPtr& task, LeaseNo no, const std::shared_ptr<TaskChannel>& channel, Status status, rpc::Reply reply);
  void OnConnectionClosed(uint64_t id, const Status& reason);
  // Whether each answer that the worker gave has come, now that the connection to it is closed for that reason. Not if a link between nodes broke before.
  bool HeardAll(const TaskChannel& channel, const Status& reason) const;
  void Resubmit(const PendingTaskPtr& task);

  const Deps deps_;
  Mutex mu_;
  LeasePoolCore pool_ GUARDED_BY(mu_);
  std::map<std::string, ClassNo> class_numbers_ GUARDED_BY(mu_);
  std::unordered_map<ClassNo, Class> classes_ GUARDED_BY(mu_);
  ClassNo next_class_ GUARDED_BY(mu_) = 0;  // never reused
  size_t many_classes_ GUARDED_BY(mu_) = kFewClasses;
  std::unordered_map<LeaseNo, Lease> leases_ GUARDED_BY(mu_);
  std::unordered_map<PlacementGroupId, std::unordered_set<LeaseNo>, IdHash> parked_ GUARDED_BY(mu_);  // requests that wait for a group
  std::unordered_set<uint64_t> watched_ GUARDED_BY(mu_);                                              // connections whose end we hear of
  Time tick_due_ GUARDED_BY(mu_) = Time::Infinite();
  bool closed_ GUARDED_BY(mu_) = false;
};

}  // namespace ray::core
