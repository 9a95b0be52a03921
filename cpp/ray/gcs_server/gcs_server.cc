#include "ray/gcs_server/gcs_server.h"

#include "ray/gcs_server/services/gcs_state.h"
#include "ray/util/logging.h"
#include "ray/v1/gcs_storage.pb.h"
#include "ray/v1/raylet_lease.pb.h"

namespace ray::gcs {
namespace {

constexpr char kClusterTable[] = "cluster";
constexpr char kClusterKey[] = "cluster";

}  // namespace

Result<std::unique_ptr<GcsServer>> GcsServer::Make(GcsServerOptions options, async::Loop* loop, Storage* storage) {
  RAY_ASSIGN_OR_RETURN(const StorageContents stored, storage->Load());
  NodeTableConfig config;
  config.config_json = options.config_json;
  config.durable = storage->durable();
  config.cluster_id = ClusterId::FromRandom();
  config.session_name = options.session_name;
  config.max_dead = options.remembered.nodes;
  const auto table = stored.find(kClusterTable);
  const bool is_new = table == stored.end();
  if (!is_new) {
    const auto row = table->second.find(kClusterKey);
    if (row == table->second.end()) return Status::DataLoss("the stored id of the cluster is missing");
    RAY_ASSIGN_OR_RETURN(const v1::StoredCluster cluster, ReadRow<v1::StoredCluster>(kClusterTable, kClusterKey, row->second));
    config.cluster_id = ClusterId::FromBinaryOrNil(cluster.cluster_id());
    config.session_name = cluster.session_name();
  } else if (!stored.empty()) {
    return Status::DataLoss("the stored id of the cluster is missing");
  }
  v1::StoredCluster cluster;
  cluster.set_cluster_id(config.cluster_id.Binary());
  cluster.set_session_name(config.session_name);
  std::unique_ptr<GcsServer> server(new GcsServer(std::move(options), loop, storage, std::move(config)));
  if (is_new) {
    server->state_->runner.Run({PersistMessage(kClusterTable, kClusterKey, cluster)});
  } else {
    RAY_RETURN_NOT_OK(server->Restore(stored));
  }
  return server;
}

Status GcsServer::Restore(const StorageContents& stored) {
  GcsState& gcs = *state_;
  RAY_RETURN_NOT_OK(gcs.kv.Restore(stored));
  RAY_RETURN_NOT_OK(gcs.jobs.Restore(stored));
  RAY_RETURN_NOT_OK(gcs.nodes.Restore(stored));
  gcs.requests.Restore(stored);
  RAY_RETURN_NOT_OK(gcs.groups.Restore(
      stored, [&gcs](const NodeId& node) { return gcs.nodes.IsAlive(node); }, [&gcs](const JobId& job) { return gcs.jobs.IsOver(job); },
      gcs.now()));
  Effects out;
  RouteGroups(&gcs, &out);  // before the actors, which are accounted for in them
  RAY_RETURN_NOT_OK(gcs.actors.Restore(stored));
  // The death of the actor that made a group is stored before the group's end.
  const auto lives = [&gcs](const ActorId& id) {
    const v1::ActorInfo* actor = gcs.actors.Find(id);
    return actor != nullptr && actor->state() != v1::ACTOR_STATE_DEAD;
  };
  for (const JobId& job : gcs.groups.Jobs()) {
    if (gcs.jobs.IsOver(job)) gcs.groups.JobFinished(job, lives, gcs.now(), &out);
  }
  RouteGroups(&gcs, &out);
  for (const JobId& job : gcs.kv.Jobs()) DropDefinitions(&gcs, job, &out);  // as that may have been left to this process
  RAY_LOG(INFO) << "the GCS goes on with " << gcs.nodes.num_alive() << " nodes that are to come back";
  if (gcs.nodes.num_alive() > 0) ExpectNodes(&gcs);
  gcs.runner.Run(std::move(out));
  return Status::Ok();
}

GcsServer::GcsServer(GcsServerOptions options, async::Loop* loop, Storage* storage, NodeTableConfig config) {
  EffectHandlers handlers;
  handlers.publish = [this](const Publish& publish) {
    PublishToSubscribers(state_.get(), publish);
    const v1::ActorInfo& actor = publish.notice.actor();
    if (actor.state() == v1::ACTOR_STATE_DEAD) OnActorDead(state_.get(), ActorId::FromBinaryOrNil(actor.actor_id()));
  };
  handlers.start = [this](const StartOnNode& order) { StartActorOnNode(state_.get(), order); };
  handlers.kill = [this](const KillOnNode& order) { KillActorOnNode(state_.get(), order); };
  handlers.prepare_bundles = [this](const PrepareOnNode& order) { PrepareBundlesOnNode(state_.get(), order); };
  handlers.commit_bundles = [this](const CommitOnNode& order) { CommitBundlesOnNode(state_.get(), order); };
  handlers.return_bundles = [this](const ReturnOnNode& order) { ReturnBundlesOnNode(state_.get(), order); };
  handlers.tell_job_finished = [this](const TellJobFinished& order) { TellNodesJobFinished(state_.get(), order); };
  handlers.tell_driver = [this](const TellDriver& message) { TellDriverOfNode(state_.get(), message); };
  handlers.storage_failed = [failed = std::move(options.on_storage_failed)](const Status& status) {
    if (failed) failed(status);
  };
  state_ = std::make_unique<GcsState>(loop, storage, std::move(config), options, std::move(handlers));
  state_->on_empty = std::move(options.on_empty);
  state_->node_return_timeout = options.node_return_timeout;
  state_->knock = std::move(options.knock);
  RegisterNodeService(state_.get(), &dispatcher_);
  RegisterJobService(state_.get(), &dispatcher_);
  RegisterActorService(state_.get(), &dispatcher_);
  RegisterPlacementGroupService(state_.get(), &dispatcher_);
  RegisterKvService(state_.get(), &dispatcher_);
  RegisterPubSubService(state_.get(), &dispatcher_);
  RegisterExplainService(state_.get(), &dispatcher_);
}

const scheduling::ClusterView& GcsServer::view() const { return state_->view; }

void GcsServer::EndCluster(Duration patience, std::function<void()> done) {
  const auto waiting = std::make_shared<size_t>(1);  // one for this function itself
  const auto heard = [waiting, done = std::move(done)] {
    if (--*waiting == 0) done();
  };
  rpc::CallOptions options;
  options.timeout = patience;
  for (const auto& [node, link] : std::map<NodeId, rpc::ConnectionPtr>(state_->links)) {
    ++*waiting;
    link->Call(
        MethodId::kShutdownNode, v1::LeaseEmpty(), {}, [heard](const Status&, const rpc::Reply&) { heard(); }, options);
  }
  heard();
}

GcsServer::~GcsServer() {
  if (state_->probe_timer != 0) state_->loop->CancelTimer(state_->probe_timer);
  if (state_->news_timer != 0) state_->loop->CancelTimer(state_->news_timer);
  if (state_->groups_timer != 0) state_->loop->CancelTimer(state_->groups_timer);
  if (state_->return_timer != 0) state_->loop->CancelTimer(state_->return_timer);
  if (state_->knock_timer != 0) state_->loop->CancelTimer(state_->knock_timer);
}

}  // namespace ray::gcs
