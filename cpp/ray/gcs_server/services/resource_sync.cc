// What nodes have free, from their reports to all raylets: gathered for a while, then sent to all at once.
#include "ray/gcs_server/services/gcs_state.h"
#include "ray/v1/sync.pb.h"

namespace ray::gcs {
namespace {

constexpr Duration kInterval = std::chrono::milliseconds(100);  // least time between two rounds

void AddView(const GcsState& gcs, const v1::NodeInfo& node, v1::ResourceViewsNotice* notice) {
  v1::NodeResourceView* view = notice->add_nodes();
  view->set_node_id(node.node_id());
  *view->mutable_total() = node.total();
  *view->mutable_available() = node.available();
  *view->mutable_labels() = node.labels();
  view->set_draining(node.draining() || node.driver_only());
  view->set_version(gcs.nodes.VersionOf(NodeId::FromBinaryOrNil(node.node_id())) + 1);  // 0 is "never heard of"
}

void SendNews(GcsState* gcs) {
  gcs->news_sent = gcs->now();
  const std::set<NodeId> news = std::exchange(gcs->news, {}), gone = std::exchange(gcs->gone, {});
  v1::ResourceViewsNotice notice;
  for (const NodeId& id : news) {
    if (const v1::NodeInfo* node = gcs->nodes.Find(id); node != nullptr && node->alive()) AddView(*gcs, *node, &notice);
  }
  for (const NodeId& id : gone) notice.add_gone(id.Binary());
  const std::string bytes = notice.SerializeAsString();
  for (const auto& [id, link] : gcs->links) {
    if (gone.empty() && news.size() == 1 && news.contains(id)) continue;  // it knows
    link->NotifyRaw(MethodId::kResourceViews, bytes, {});
  }
}

}  // namespace

void TellResources(GcsState* gcs, const NodeId& node) {
  (gcs->nodes.IsAlive(node) ? gcs->news : gcs->gone).insert(node);
  if (gcs->news_timer != 0) return;
  gcs->news_timer = gcs->loop->AddTimer(std::max(gcs->news_sent + kInterval - gcs->now(), Duration::zero()), [gcs] {
    gcs->news_timer = 0;
    SendNews(gcs);
  });
}

void SendAllResources(const GcsState& gcs, const rpc::ConnectionPtr& link) {
  v1::ResourceViewsNotice notice;
  for (const v1::NodeInfo* node : gcs.nodes.All()) {
    if (node->alive()) AddView(gcs, *node, &notice);
  }
  if (notice.nodes_size() > 1) link->Notify(MethodId::kResourceViews, notice);
}

}  // namespace ray::gcs
