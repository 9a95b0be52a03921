// GcsState: the tables of one GCS and the links to its raylets; what the services share. Owned by GcsServer; on the loop.
// Services turn requests into events of the cores, and route what concerns several of them. Nothing else decides anything.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>

#include "ray/async/loop.h"
#include "ray/gcs_server/gcs_server.h"
#include "ray/gcs_server/health/health_core.h"
#include "ray/gcs_server/services/effect_runner.h"
#include "ray/gcs_server/tables/actor_table_core.h"
#include "ray/gcs_server/tables/job_table_core.h"
#include "ray/gcs_server/tables/kv_table_core.h"
#include "ray/gcs_server/tables/node_table_core.h"
#include "ray/gcs_server/tables/placement_group_table_core.h"
#include "ray/gcs_server/tables/request_log_core.h"
#include "ray/gcs_server/tables/worker_table_core.h"
#include "ray/gcs_server/views/resource_news_core.h"
#include "ray/rpc/core/dispatcher.h"
#include "ray/rpc/pubsub/publisher_core.h"
#include "ray/scheduling/cluster_view.h"

namespace ray::gcs {

struct GcsState {
  GcsState(async::Loop* loop, Storage* storage, NodeTableConfig config, const GcsServerOptions& options, EffectHandlers handlers)
      : loop(loop),
        nodes(std::move(config)),
        health(options.health),
        jobs(options.remembered.jobs),
        actors({.max_dead = options.remembered.actors}, &view),
        groups({.max_removed = options.remembered.placement_groups}, &view),
        workers(options.remembered.workers),
        runner(storage, std::move(handlers)) {}

  async::Loop* const loop;
  NodeTableCore nodes;
  scheduling::ClusterView view;  // what nodes have free; the cores below take from it what they place
  HealthCore health;
  JobTableCore jobs;
  ActorTableCore actors;
  PlacementGroupTableCore groups;
  KvTableCore kv;
  WorkerTableCore workers;
  RequestLogCore requests;
  rpc::PublisherCore publisher;
  EffectRunner runner;
  std::map<NodeId, rpc::ConnectionPtr> links;  // of nodes that are alive
  struct Subscriber {
    rpc::ConnectionPtr connection;
    NodeId node;  // whose raylet it is; nil: of no node
  };
  std::map<uint64_t, Subscriber> subscribers;  // by connection id
  ResourceNewsCore news;                       // what raylets have yet to be told of others' resources
  std::set<NodeId> read_no_columns;            // raylets of an earlier release: every view is sent to them in full
  std::set<NodeId> watch_nothing;              // the same: the end of every process is told to them
  async::TimerId news_timer = 0;
  async::TimerId probe_timer = 0;
  Time probe_at;  // when it fires
  // After a restart: nodes that were alive before and have not come back yet, and for how long they are waited for.
  std::set<NodeId> expected;
  Duration node_return_timeout = Duration::zero();
  async::TimerId return_timer = 0;
  std::function<void(const std::string& ip, int port, std::function<void(bool refused)>)> knock;  // may be null
  async::TimerId knock_timer = 0;
  std::set<NodeId> refused;                                         // of those expected: at the last knock nobody listened there
  std::shared_ptr<bool> alive_flag = std::make_shared<bool>(true);  // for answers to knocks
  std::function<void()> on_empty;                                   // the last node has gone
  async::TimerId groups_timer = 0;                                  // runs PlacementGroupTableCore::Tick
  Time groups_timer_at = Time::Infinite();

  Time now() const { return loop->clock().Now(); }
  int64_t wall_ms() const { return loop->clock().WallMillis(); }
  rpc::ConnectionPtr LinkTo(const NodeId& node) const {
    auto it = links.find(node);
    return it == links.end() ? nullptr : it->second;
  }
};

// One event that changes something and must not be done twice: `event(token, effects)`. With an id that was answered before, the same answer is
// given again. `id` empty: nobody will ask again.
template <typename ReplyMessage, typename F>
void RunOnce(GcsState* gcs, const std::string& id, rpc::Responder responder, F event) {
  Effects out;
  const CallToken call = gcs->runner.Hold(std::move(responder));
  if (const std::string* known = id.empty() ? nullptr : gcs->requests.Find(id)) {
    ReplyMessage reply;
    if (reply.ParseFromString(*known)) {
      Reply(call, std::move(reply), &out);
    } else {
      Fail(call, Status::DataLoss("the stored answer to this request cannot be read"), &out);
    }
  } else {
    event(call, &out);
    if (!id.empty()) gcs->requests.Done(id, call, &out);
  }
  gcs->runner.Run(std::move(out));
}

// Each registers its handlers; `gcs` must outlive the dispatcher's use.
void RegisterNodeService(GcsState* gcs, rpc::Dispatcher* dispatcher);
void RegisterJobService(GcsState* gcs, rpc::Dispatcher* dispatcher);
void RegisterActorService(GcsState* gcs, rpc::Dispatcher* dispatcher);
void RegisterPlacementGroupService(GcsState* gcs, rpc::Dispatcher* dispatcher);
void RegisterKvService(GcsState* gcs, rpc::Dispatcher* dispatcher);
void RegisterPubSubService(GcsState* gcs, rpc::Dispatcher* dispatcher);
void RegisterExplainService(GcsState* gcs, rpc::Dispatcher* dispatcher);

// News of a node's resources reach those who place things; changes of placement groups reach those who start actors in them.
void NodeChanged(GcsState* gcs, const NodeId& node, Effects* out);
void RouteGroups(GcsState* gcs, Effects* out);
// What nodes have, for the raylets: a node has changed (`whole`: in more than what is free) or has died; one looks for room on others, or does so no more;
// everything, for one that joins.
void TellResources(GcsState* gcs, const NodeId& node, bool whole);
void TellGone(GcsState* gcs, const NodeId& node);
void SetLooksElsewhere(GcsState* gcs, const NodeId& node, bool looks);
void SendAllResources(GcsState* gcs, const NodeId& node);
// Job: its driver has left. Node: all that a node's death entails.
void FinishJob(GcsState* gcs, const JobId& job, CallToken call, Effects* out);
// The same of every job of that driver.
void FinishJobsOf(GcsState* gcs, const WorkerId& driver, Effects* out);
// The placement groups of a job that is over, but for those of actors that live on.
void EndGroupsOfJob(GcsState* gcs, const JobId& job, Effects* out);
// Definitions of functions and classes, if nothing of their job will ask for them again: it is over, and its actors are dead.
void DropDefinitions(GcsState* gcs, const JobId& job, Effects* out);
void OnNodeDead(GcsState* gcs, const NodeId& node, const std::string& reason, CallToken call, v1::DeathKind kind = v1::DEATH_KIND_FAILED);

// After a restart: waits for the nodes that were alive before, and ends the wait for one, whether it came back or is dead.
void ExpectNodes(GcsState* gcs);
void NoLongerExpected(GcsState* gcs, const NodeId& node, Effects* out);

// An actor's death was published: what it owned goes.
void OnActorDead(GcsState* gcs, const ActorId& actor);

// Effects that leave the process.
void PublishToSubscribers(GcsState* gcs, const Publish& publish);
void StartActorOnNode(GcsState* gcs, const StartOnNode& order);
void KillActorOnNode(GcsState* gcs, const KillOnNode& order);
void PrepareBundlesOnNode(GcsState* gcs, const PrepareOnNode& order);
void CommitBundlesOnNode(GcsState* gcs, const CommitOnNode& order);
void ReturnBundlesOnNode(GcsState* gcs, const ReturnOnNode& order);
void TellNodesJobFinished(GcsState* gcs, const TellJobFinished& order);
void TellDriverOfNode(GcsState* gcs, const TellDriver& message);

}  // namespace ray::gcs
