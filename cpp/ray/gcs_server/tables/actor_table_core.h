// ActorTableCore: the life of every actor: names, creation, placement, restarts, death and its cause.
//
//   DEPENDENCIES_UNREADY --Create--> PENDING_CREATION --Started--> ALIVE --worker or node dies--> RESTARTING --Started--> ALIVE
//   any of them --> DEAD, which is final. PENDING_CREATION and RESTARTING include "no node can take it yet" and "its start is under way".
//
// A dead actor gives up its name at once. Who may restart: worker or node died, or ray.kill(no_restart=False), while restarts are left. Who may not:
// an actor that was killed, left by itself, went out of scope, lost its owner or its job, or whose constructor raised.
// An actor in a placement group waits until the bundle has a node, and dies with the group.
// Pure core: events in, effects out (persist, reply, publish and orders to nodes). Part of GcsState; on the loop.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>

#include "ray/common/errors.h"
#include "ray/gcs_server/tables/effects.h"
#include "ray/scheduling/cluster_view.h"
#include "ray/scheduling/policies.h"
#include "ray/v1/explain.pb.h"
#include "ray/v1/gcs_actor.pb.h"
#include "ray/v1/gcs_node.pb.h"
#include "ray/v1/gcs_placement_group.pb.h"
#include "ray/v1/raylet_lease.pb.h"

namespace ray::gcs {

struct ActorTableConfig {
  size_t max_dead = 10000;  // dead actors remembered, with their causes
  // How long a start waits at a full node while others could ever take it; then it is placed anew. Lower: more moves, less waiting.
  Duration start_patience = std::chrono::milliseconds(500);
};

class ActorTableCore {
 public:
  // `view` must outlive the core; what it places is taken from there.
  ActorTableCore(ActorTableConfig config, scheduling::ClusterView* view) : config_(config), view_(view), policy_({}, view) {}

  // What an earlier process stored. On an empty table; the placement groups are known already (GroupChanged).
  Status Restore(const StorageContents& stored);
  // While `expecting`, nodes that were alive then may still come back: what cannot be placed waits for them, and nobody is told that it waits. With the end
  // of it what waits is placed, if it can be.
  void ExpectNodes(bool expecting, int64_t wall_ms, Effects* out);
  // A node has come back over a new link, with these actors. What the two do not agree on is put right: what died there or was never
  // started, what should not be there any more, and orders that may have been lost.
  void NodeReturned(const NodeId& node, const std::vector<v1::ActorOnNode>& actors, int64_t wall_ms, Effects* out);

  // Requests. `wall_ms` is the time for people.
  // A name that is taken: nothing is registered, and the reply's `existing` is its holder.
  void Register(const v1::RegisterActorRequest& request, CallToken call, int64_t wall_ms, Effects* out);
  // `control` is the v1::CreateActorRequest's spec, serialised.
  void Create(const ActorId& actor, std::shared_ptr<const CreationSpec> spec, CallToken call, int64_t wall_ms, Effects* out);
  void FailCreation(const ActorId& actor, const v1::ErrorDetail& cause, CallToken call, int64_t wall_ms, Effects* out);
  void Kill(const ActorId& actor, bool no_restart, CallToken call, int64_t wall_ms, Effects* out);
  void OutOfScope(const ActorId& actor, CallToken call, int64_t wall_ms, Effects* out);
  void Exiting(const ActorId& actor, const WorkerId& worker, CallToken call, Effects* out);
  void Get(const ActorId& actor, CallToken call, Effects* out) const;
  void GetNamed(const std::string& ray_namespace, const std::string& name, CallToken call, Effects* out) const;
  void List(const v1::ListActorsRequest& request, CallToken call, Effects* out) const;

  // What the raylet answered to StartOnNode number `start`.
  void Started(const ActorId& actor, uint32_t start, const Status& status, const v1::StartActorReply& reply, int64_t wall_ms, Effects* out);
  // A node has come, or has more than before (the view knows it already): actors that nobody could take are placed if one can now.
  void NodeChanged(int64_t wall_ms, Effects* out);
  // A placement group has other bundles, or another state, than before.
  void GroupChanged(const v1::PlacementGroupInfo& group, int64_t wall_ms, Effects* out);
  void NodeDied(const NodeId& node, const std::string& reason, int64_t wall_ms, Effects* out);
  // It is about to leave, and the view knows. Actors that may be restarted, and that another node could take, go on there: they end in good order first.
  void NodeDraining(const NodeId& node, Effects* out);
  void WorkerDied(const v1::ReportWorkerDiedRequest& report, int64_t wall_ms, Effects* out);
  // The owner was gone before it registered this actor.
  void OwnerWasDead(const ActorId& actor, const std::string& detail, int64_t wall_ms, Effects* out);
  // Actors of the job end, but for detached ones and those that these created.
  void JobFinished(const JobId& job, int64_t wall_ms, Effects* out);

  // Workers of actors that outlive their jobs: detached ones and what these created, however indirectly.
  std::vector<WorkerId> StayingWorkers() const;
  // Whether some actor of that job is not dead.
  bool AnyLives(const JobId& job) const;
  // Nullptr: unknown.
  const v1::ActorInfo* Find(const ActorId& actor) const;
  // Where it stands, for people. False: unknown.
  bool Explain(const ActorId& actor, int64_t wall_ms, v1::WaitFact* out) const;

 private:
  static constexpr char kTable[] = "actor";
  static constexpr char kSpecTable[] = "actor_spec";

  struct Actor {
    ActorId id;
    v1::ActorInfo info;                        // what others see
    std::shared_ptr<const CreationSpec> spec;  // from Create to death
    scheduling::PlacementRequest wish;
    PlacementGroupId group;  // nil: none
    int32_t bundle = -1;     // in it; -1: any
    ResourceSet kept;        // what it holds while it lives; wish.need is what it takes to place it
    NodeId turned_away_by;   // it was full when the actor was to start there, last
    // What counts against a bundle of its group, and which.
    int32_t taken_from = -1;
    ResourceSet taken;
    NodeId owner_node;
    WorkerId owner_worker;
    NodeId node;            // where it starts or lives; nil: nowhere
    WorkerId worker;        // ALIVE; nil else
    uint32_t start = 0;     // number of the newest StartOnNode
    bool starting = false;  // that one is under way
    bool told_infeasible = false;
    std::string unplaced;           // why it is in unplaced_, for people
    bool without_template = false;  // restored before Create, which brings it
    // Set: when its worker or start ends it is dead of this, not restarted.
    std::optional<std::string> last_words;
    // Killed with a restart: its next death counts as that, not as a crash.
    bool killed = false;
    // It was told to end its process in good order, to go on elsewhere; stored before the order.
    bool moving = false;
    bool out_of_scope = false;
    bool IsDead() const { return info.state() == v1::ACTOR_STATE_DEAD; }
  };
  using ActorPtr = std::shared_ptr<Actor>;

  ActorPtr Lookup(const ActorId& actor) const;
  Status RestoreActor(const std::string& key, const std::string& row, const StorageTable& specs);
  // What decides where it may run.
  void ReadTemplate(Actor& actor, const v1::TaskTemplate& task);
  void Save(const Actor& actor, Effects* out) const;
  // Persists and publishes what has changed.
  void Changed(Actor& actor, Effects* out);
  // Replies after the record is persisted, before it is published.
  void ChangedAndReply(Actor& actor, CallToken call, const google::protobuf::MessageLite* reply, Effects* out);
  void Place(Actor& actor, int64_t wall_ms, Effects* out);
  // The node for an actor that is in no group, and how long it may wait there. Nullopt: none could ever take it, or it has died of that.
  std::optional<NodeId> ChooseNode(Actor& actor, Duration* patience, int64_t wall_ms, Effects* out);
  // Which of the alternatives that it asks for, by label, the node fulfils first; 0 where it asks for none. Nullopt: none, or the node is not known (yet).
  std::optional<size_t> AlternativeAt(const Actor& actor, const NodeId& node) const;
  // For people: why it waits in its group; its driver is told once if nothing that is there will do. `misplaced`: each bundle that it may use has a node, with
  // other labels than it asks for.
  void WaitInGroup(Actor& actor, bool misplaced, Effects* out);
  // The node of its bundle; nil: it has to wait. False: it has died.
  bool ChooseInGroup(Actor& actor, int64_t wall_ms, NodeId* node, Effects* out);
  // Replaces what the actor counts for in the account of its bundle.
  void AccountInBundle(Actor& actor, int32_t bundle, const ResourceSet& amount);
  void BecomeAlive(Actor& actor, const v1::StartActorReply& reply, Effects* out);
  void BecomeDead(Actor& actor, v1::ErrorDetail cause, CallToken call, int64_t wall_ms, Effects* out);
  // Its process, or its start, is over for `reason`: a sentence without its full stop, such as "its worker process ended: killed by signal 9".
  // `in_order`: as it was asked to.
  void OnEnded(Actor& actor, const std::string& reason, ErrorType type, int64_t wall_ms, Effects* out, bool in_order = false);
  static KillOnNode MoveOrder(const Actor& actor);
  bool MayRestart(const Actor& actor) const;
  std::set<ActorId> Staying() const;
  // Whether it ends with its owner, as it is now.
  static bool NeedsOwner(const Actor& actor);
  void ForgetOwner(const Actor& actor);
  void OwnerDied(const std::function<bool(const Actor&)>& is_owned, const std::string& what, int64_t wall_ms, Effects* out);
  v1::ErrorDetail DiedOf(const Actor& actor, const std::string& reason, ErrorType type = ErrorType::kActorDied) const;
  void ReleaseWorker(Actor& actor);
  std::string Describe(const Actor& actor) const;

  // A group that is not removed, as far as it matters here.
  struct Group {
    struct Bundle {
      NodeId node;  // nil: nowhere
      ResourceSet total, used;
    };
    std::vector<Bundle> bundles;
    std::set<ActorId> actors;  // not dead
  };

  const ActorTableConfig config_;
  scheduling::ClusterView* const view_;
  scheduling::PlacementPolicy policy_;
  std::map<PlacementGroupId, Group> groups_;
  std::map<ActorId, ActorPtr> actors_;
  std::map<std::pair<std::string, std::string>, ActorId> names_;  // namespace, name -> holder that is not dead
  std::map<std::string, size_t, std::less<>> living_;             // by job id, of actors that are not dead
  std::unordered_map<WorkerId, ActorId, IdHash> by_worker_;       // of ALIVE actors
  std::map<WorkerId, std::set<ActorId>> by_owner_;                // whose death is theirs
  std::map<NodeId, std::set<ActorId>> by_node_;                   // starting or alive there
  std::set<ActorId> unplaced_;                                    // PENDING_CREATION or RESTARTING, and no node can take them
  uint64_t unplaced_epoch_ = 0;                                   // of the view, when all of them were tried last
  std::deque<ActorId> dead_;                                      // oldest first
  bool expecting_nodes_ = false;
};

}  // namespace ray::gcs
