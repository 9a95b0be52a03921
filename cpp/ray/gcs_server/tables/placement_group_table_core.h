// PlacementGroupTableCore: the life of every placement group: where its bundles go, the two phases, loss of nodes, removal.
//
//   PENDING --all nodes have reserved--> PREPARED --all have committed--> CREATED --a node with bundles dies--> RESCHEDULING --> PREPARED ...
//   any of them --> REMOVED, which is final.
//
// A round places the bundles that are nowhere: a plan over the view, PrepareBundles to each node, CommitBundles when all have reserved. If one
// cannot, what the others reserved goes back and the group waits: until a node has more, or for a time that grows with each try, whichever is
// first. A group whose bundles are all on one node takes both phases in one message. Rounds are numbered; an answer to an earlier one is ignored.
// Groups that lost bundles are placed before those that never had any; of equal ones the oldest first. One that does not fit holds up no other.
// A group goes with its creator: its job, or, where that has finished but the actor that made it lives on, that actor. Detached ones stay.
// Pure core: events in, effects out. Part of GcsState; on the loop.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "ray/gcs_server/tables/effects.h"
#include "ray/scheduling/bundle_policy.h"
#include "ray/scheduling/cluster_view.h"
#include "ray/util/clock.h"
#include "ray/v1/explain.pb.h"
#include "ray/v1/gcs_node.pb.h"
#include "ray/v1/gcs_placement_group.pb.h"

namespace ray::gcs {

struct PlacementGroupTableConfig {
  Duration min_retry = std::chrono::milliseconds(100);  // after a round that failed; times 1.5 with each further one
  Duration max_retry = std::chrono::seconds(1);
  size_t max_removed = 10000;  // removed groups remembered
};

class PlacementGroupTableCore {
 public:
  // `view` must outlive the core; what it places is taken from there.
  PlacementGroupTableCore(PlacementGroupTableConfig config, scheduling::ClusterView* view) : config_(config), view_(view) {}

  // What an earlier process stored. On an empty table. `is_alive`: a node that may come back. `is_over`: a job that has finished.
  Status Restore(const StorageContents& stored, const std::function<bool(const NodeId&)>& is_alive,
                 const std::function<bool(const JobId&)>& is_over, Time now);
  // While `expecting`, nodes that were alive then may still come back: nobody is told that a group waits.
  void ExpectNodes(bool expecting) { expecting_nodes_ = expecting; }
  // A node has come back over a new link, with these bundles: the two phases go on where they were; what should not be there is returned.
  void NodeReturned(const NodeId& node, const std::vector<v1::BundleOnNode>& bundles, Time now, int64_t wall_ms, Effects* out);

  // Requests. `wall_ms` is the time for people.
  void Create(const v1::CreatePlacementGroupRequest& request, CallToken call, Time now, int64_t wall_ms, Effects* out);
  void Remove(const PlacementGroupId& group, CallToken call, Time now, Effects* out);
  void Get(const v1::GetPlacementGroupRequest& request, CallToken call, Effects* out) const;
  void List(CallToken call, Effects* out) const;

  // Answers of nodes to round `attempt`. A node that is gone answers with its death (NodeDied), not here.
  void Prepared(const PlacementGroupId& group, uint32_t attempt, const NodeId& node, bool prepared, Time now, int64_t wall_ms,
                Effects* out);
  void Committed(const PlacementGroupId& group, uint32_t attempt, const NodeId& node, bool committed, Time now, int64_t wall_ms,
                 Effects* out);

  // Some node has more than before (the view knows it already).
  void ResourcesChanged(Time now, int64_t wall_ms, Effects* out);
  // The view does not know it any more.
  void NodeDied(const NodeId& node, Time now, int64_t wall_ms, Effects* out);
  // `actor_lives`: whether an actor is not dead, after the end of the job took its toll.
  void JobFinished(const JobId& job, const std::function<bool(const ActorId&)>& actor_lives, Time now, Effects* out);
  void ActorDied(const ActorId& actor, Time now, Effects* out);
  void Tick(Time now, int64_t wall_ms, Effects* out);
  // When Tick has something to do; infinite: nothing.
  Time NextDeadline() const;

  // Those of groups that are not removed.
  std::set<JobId> Jobs() const;
  // Nullptr: unknown.
  const v1::PlacementGroupInfo* Find(const PlacementGroupId& group) const;
  // Where it stands, for people; of a group that waits, which bundle does not fit, and why. False: unknown.
  bool Explain(const PlacementGroupId& group, int64_t wall_ms, v1::WaitFact* out) const;
  // Groups whose bundles or state have changed since the last call, for those that place actors in them.
  std::vector<PlacementGroupId> TakeChanged() { return std::exchange(changed_, {}); }
  // Of those that are removed, the oldest beyond max_removed. After the changed ones were looked at.
  void ForgetRemoved(Effects* out);

 private:
  static constexpr char kTable[] = "placement_group";

  enum class Step { kReserved, kAsked };  // of a node in a round
  struct Group {
    PlacementGroupId id;
    v1::PlacementGroupInfo info;
    std::vector<scheduling::BundleWant> wants;  // by index
    ActorId creator;                            // nil: a driver or a task
    bool job_finished = false;
    uint32_t attempt = 0;  // number of the newest round
    // The round under way: which bundles go where, and how far each node is. Empty: none is.
    std::map<NodeId, std::vector<int32_t>> round;
    std::map<NodeId, Step> steps;
    bool committing = false;
    std::string shape;  // while it is queued: what decides whether it fits
    Time retry_at;      // not before, unless some node has more; changed by RetryAt only
    Duration retry_delay = Duration::zero();
    bool IsRemoved() const { return info.state() == v1::PLACEMENT_GROUP_STATE_REMOVED; }
  };
  using GroupPtr = std::shared_ptr<Group>;

  GroupPtr Lookup(const PlacementGroupId& group) const;
  void Changed(Group& group, CallToken call, Effects* out);
  void Save(const Group& group, Effects* out) const;
  // Asks a node of the round under way for its part in the present phase.
  void AskNode(Group& group, const NodeId& node, Effects* out);
  // Its bundles on the node are nowhere now: they are to be placed anew, ahead of the new groups.
  void Reschedule(Group& group, const std::string& why, Time now, Effects* out);
  void TryDue(Time now, Effects* out);
  // False: it does not fit.
  bool TryPlace(Group& group, Time now, Effects* out);
  void FailRound(Group& group, const std::string& why, Time now, Effects* out);
  // `group`: null if it is not known any more.
  void TakeBackLate(const Group* group, const PlacementGroupId& id, uint32_t attempt, const NodeId& node, Effects* out);
  void WaitAgain(Group& group, Time now);
  void Commit(Group& group, Effects* out);
  void FinishRound(Group& group, int64_t wall_ms, Effects* out);
  // Bundles on the node are nowhere now. False: there were none.
  static bool LoseNode(Group& group, const NodeId& node);
  void Place(Group& group);  // into the queue
  void Unqueue(Group& group);
  void RetryAt(Group& group, Time at);
  static std::string ShapeOf(const Group& group);
  void BecomeRemoved(Group& group, const std::string& reason, CallToken call, Effects* out);
  ResourceSet SumOf(const Group& group, const std::vector<int32_t>& indices) const;

  const PlacementGroupTableConfig config_;
  scheduling::ClusterView* const view_;
  std::map<PlacementGroupId, GroupPtr> groups_;
  std::map<std::pair<std::string, std::string>, PlacementGroupId> names_;  // namespace, name -> one that is not removed
  // Groups that are not placed and have no round under way. Those of one shape fit or do not fit together: however many wait, a change of a node's
  // resources costs a try for each shape.
  using Turn = std::pair<int, uint64_t>;  // (0: lost bundles, 1: new), order
  struct Shape {
    std::map<Turn, PlacementGroupId> waiting;  // never empty
    uint64_t tried_epoch = 0;                  // of the view, when one of them did not fit
  };
  std::map<std::string, Shape> shapes_;
  std::map<PlacementGroupId, Turn> queued_;
  std::set<std::pair<Time, PlacementGroupId>> due_;           // of those, by retry_at
  std::map<ActorId, std::set<PlacementGroupId>> by_creator_;  // not removed
  uint64_t next_order_ = 0;
  std::deque<PlacementGroupId> removed_;  // oldest first
  std::vector<PlacementGroupId> changed_;
  std::set<std::pair<JobId, std::string>> told_infeasible_;  // shapes whose driver was told that nothing can hold them; until the job ends
  bool expecting_nodes_ = false;
};

}  // namespace ray::gcs
