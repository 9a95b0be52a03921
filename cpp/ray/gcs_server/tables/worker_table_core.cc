#include "ray/gcs_server/tables/worker_table_core.h"

namespace ray::gcs {

bool WorkerTableCore::Died(const v1::ReportWorkerDiedRequest& report, CallToken call, Effects* out) {
  Reply(call, v1::NodeEmpty(), out);
  WorkerId worker = WorkerId::FromBinaryOrNil(report.worker_id());
  if (worker.IsNil() || dead_.contains(worker)) return false;
  v1::WorkerDiedNotice notice;
  notice.set_worker_id(report.worker_id());
  notice.set_node_id(report.node_id());
  notice.set_detail(report.detail());
  notice.set_intended(report.intended());
  notice.set_out_of_memory(report.out_of_memory());
  notice.set_with_node(report.with_node());
  std::optional<std::vector<NodeId>> nodes;
  if (report.to_met_nodes()) {
    nodes.emplace();
    for (const std::string& id : report.met_node_ids()) nodes->push_back(NodeId::FromBinaryOrNil(id));
  }
  dead_.emplace(worker, Death{notice, nodes});
  order_.push_back(worker);
  if (order_.size() > max_remembered_) {
    dead_.erase(order_.front());
    order_.pop_front();
  }
  Publish publish{.notice = {}, .nodes = std::move(nodes)};
  publish.notice.set_channel(v1::CHANNEL_WORKER);
  *publish.notice.mutable_worker() = std::move(notice);
  out->push_back(std::move(publish));
  return true;
}

std::string WorkerTableCore::DetailOf(const WorkerId& worker) const {
  auto it = dead_.find(worker);
  return it == dead_.end() ? "" : it->second.notice.detail();
}

}  // namespace ray::gcs
