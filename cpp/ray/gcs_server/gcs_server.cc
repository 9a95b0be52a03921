#include "ray/gcs_server/gcs_server.h"

#include "ray/gcs_server/services/gcs_state.h"

namespace ray::gcs {

GcsServer::GcsServer(GcsServerOptions options, async::Loop* loop, Storage* storage) {
  NodeTableConfig config;
  config.config_json = options.config_json;
  config.cluster_id = ClusterId::FromRandom();
  config.session_name = options.session_name;
  EffectHandlers handlers;
  handlers.publish = [this](const v1::PublishNotice& notice) {
    PublishToSubscribers(state_.get(), notice);
    if (notice.actor().state() == v1::ACTOR_STATE_DEAD) OnActorDead(state_.get(), ActorId::FromBinaryOrNil(notice.actor().actor_id()));
  };
  handlers.start = [this](const StartOnNode& order) { StartActorOnNode(state_.get(), order); };
  handlers.kill = [this](const KillOnNode& order) { KillActorOnNode(state_.get(), order); };
  handlers.prepare_bundles = [this](const PrepareOnNode& order) { PrepareBundlesOnNode(state_.get(), order); };
  handlers.commit_bundles = [this](const CommitOnNode& order) { CommitBundlesOnNode(state_.get(), order); };
  handlers.return_bundles = [this](const ReturnOnNode& order) { ReturnBundlesOnNode(state_.get(), order); };
  handlers.tell_job_finished = [this](const JobId& job) { TellNodesJobFinished(state_.get(), job); };
  handlers.tell_driver = [this](const TellDriver& message) { TellDriverOfNode(state_.get(), message); };
  handlers.storage_failed = [failed = std::move(options.on_storage_failed)](const Status& status) {
    if (failed) failed(status);
  };
  state_ = std::make_unique<GcsState>(loop, storage, std::move(config), options.health, std::move(handlers));
  state_->on_empty = std::move(options.on_empty);
  RegisterNodeService(state_.get(), &dispatcher_);
  RegisterJobService(state_.get(), &dispatcher_);
  RegisterActorService(state_.get(), &dispatcher_);
  RegisterPlacementGroupService(state_.get(), &dispatcher_);
  RegisterKvService(state_.get(), &dispatcher_);
  RegisterPubSubService(state_.get(), &dispatcher_);
}

GcsServer::~GcsServer() {
  if (state_->probe_timer != 0) state_->loop->CancelTimer(state_->probe_timer);
  if (state_->news_timer != 0) state_->loop->CancelTimer(state_->news_timer);
  if (state_->groups_timer != 0) state_->loop->CancelTimer(state_->groups_timer);
}

}  // namespace ray::gcs
