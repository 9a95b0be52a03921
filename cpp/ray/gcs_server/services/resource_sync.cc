// What nodes have, from their reports to all raylets: who is told what and when says ResourceNewsCore.
#include <algorithm>
#include <string>

#include "ray/gcs_server/services/gcs_state.h"
#include "ray/v1/sync.pb.h"
#include "ray/wire/convert.h"

namespace ray::gcs {
namespace {

void AddView(const GcsState& gcs, const NodeId& id, v1::ResourceViewsNotice* notice) {
  const v1::NodeInfo* node = gcs.nodes.Find(id);
  if (node == nullptr || !node->alive()) return;
  v1::NodeResourceView* view = notice->add_nodes();
  view->set_node_id(node->node_id());
  *view->mutable_total() = node->total();
  *view->mutable_available() = node->available();
  *view->mutable_labels() = node->labels();
  view->set_draining(node->draining() || node->driver_only());
  view->set_version(gcs.nodes.VersionOf(id) + 1);  // 0 is "never heard of"
  view->set_number(gcs.news.NumberOf(id));
}

// What is free has no name which the total has not (NodeChanged).
void AddColumns(const GcsState& gcs, const NodeId& id, v1::ResourceViewsNotice* notice) {
  const v1::NodeInfo* node = gcs.nodes.Find(id);
  if (node == nullptr || !node->alive()) return;
  notice->add_numbers(gcs.news.NumberOf(id));
  notice->add_versions(gcs.nodes.VersionOf(id) + 1);
  const ResourceSet total = FromProto(node->total()), available = FromProto(node->available());
  for (const auto& [name, amount] : total.items()) notice->add_taken(amount - available.Get(name));
}

std::string Encode(const GcsState& gcs, const ResourceNewsCore::Message& message, bool columns) {
  v1::ResourceViewsNotice notice;
  for (const NodeId& id : message.whole) AddView(gcs, id, &notice);
  for (const NodeId& id : message.free) columns ? AddColumns(gcs, id, &notice) : AddView(gcs, id, &notice);
  for (const NodeId& id : message.gone) notice.add_gone(id.Binary());
  return notice.SerializeAsString();
}

void Send(const GcsState& gcs, const ResourceNewsCore::Messages& messages) {
  for (const ResourceNewsCore::Message& message : messages) {
    std::string with_columns, in_full;
    for (const NodeId& to : message.to) {
      const rpc::ConnectionPtr link = gcs.LinkTo(to);
      if (link == nullptr) continue;
      const bool columns = !gcs.read_no_columns.contains(to);
      std::string& bytes = columns ? with_columns : in_full;
      if (bytes.empty()) bytes = Encode(gcs, message, columns);
      link->NotifyRaw(MethodId::kResourceViews, bytes, {});
    }
  }
}

void ArmNews(GcsState* gcs) {
  const Time due = gcs->news.NextDue();
  if (gcs->news_timer != 0 || due.is_infinite()) return;
  gcs->news_timer = gcs->loop->AddTimer(std::max(due - gcs->now(), Duration::zero()), [gcs] {
    gcs->news_timer = 0;
    ResourceNewsCore::Messages messages;
    gcs->news.Tick(gcs->now(), &messages);
    Send(*gcs, messages);
    ArmNews(gcs);
  });
}

}  // namespace

void TellResources(GcsState* gcs, const NodeId& node, bool whole) {
  gcs->news.Changed(node, whole);
  ArmNews(gcs);
}

void TellGone(GcsState* gcs, const NodeId& node) {
  gcs->news.Gone(node);
  gcs->read_no_columns.erase(node);
  ArmNews(gcs);
}

void SetLooksElsewhere(GcsState* gcs, const NodeId& node, bool looks) {
  ResourceNewsCore::Messages messages;
  gcs->news.LooksElsewhere(node, looks || gcs->read_no_columns.contains(node), &messages);
  Send(*gcs, messages);
}

void SendAllResources(GcsState* gcs, const NodeId& node) {
  ResourceNewsCore::Messages messages;
  gcs->news.Joins(node, &messages);
  // Alone it knows everything but its number, which nobody needs who reads no columns.
  if (messages.size() == 1 && messages[0].whole.size() == 1 && gcs->read_no_columns.contains(node)) return;
  Send(*gcs, messages);
}

}  // namespace ray::gcs
