#include "ray/gcs_server/tables/node_table_core.h"

#include <algorithm>

#include "ray/wire/convert.h"
#include "ray/wire/version.h"

namespace ray::gcs {
namespace {

// "3.11" of "3.11.4".
std::string_view MajorMinor(std::string_view version) {
  const size_t dot = version.find('.');
  return version.substr(0, version.find('.', dot == std::string_view::npos ? dot : dot + 1));
}

}  // namespace

void NodeTableCore::PublishNode(const v1::NodeInfo& node, Effects* out) {
  Publish publish;
  publish.notice.set_channel(v1::CHANNEL_NODE);
  *publish.notice.mutable_node() = node;
  out->push_back(std::move(publish));
}

Status NodeTableCore::Restore(const StorageContents& stored) {
  const auto rows = stored.find(kTable);
  if (rows == stored.end()) return Status::Ok();
  std::vector<std::pair<int64_t, NodeId>> dead;
  for (const auto& [key, value] : rows->second) {
    RAY_ASSIGN_OR_RETURN(v1::NodeInfo info, ReadRow<v1::NodeInfo>(kTable, key, value));
    const NodeId id = NodeId::FromBinaryOrNil(key);
    if (info.alive()) {
      ++num_alive_;
      if (python_version_.empty()) python_version_ = info.python_version();
      *info.mutable_available() = info.total();  // until it reports
    } else {
      dead.emplace_back(info.end_time_ms(), id);
    }
    nodes_[id].info = std::move(info);
  }
  std::sort(dead.begin(), dead.end());
  for (const auto& [time, id] : dead) dead_.push_back(id);
  return Status::Ok();
}

bool NodeTableCore::Register(const v1::NodeInfo& node, CallToken call, int64_t wall_ms, Effects* out, const v1::NodeState* state) {
  NodeId id = NodeId::FromBinaryOrNil(node.node_id());
  if (id.IsNil()) {
    Fail(call, Status::InvalidArgument("a node without a valid id"), out);
    return false;
  }
  if (!node.python_version().empty() && !python_version_.empty() && MajorMinor(node.python_version()) != MajorMinor(python_version_)) {
    Fail(call,
         Status::FailedPrecondition("the node runs Python " + node.python_version() + ", the cluster runs Python " + python_version_ +
                                    ": values could not be exchanged; use the same minor version on all nodes"),
         out);
    return false;
  }
  if (state != nullptr && (state->cluster_id() != config_.cluster_id.View() || !nodes_.contains(id))) {
    Fail(call,
         Status::FailedPrecondition(
             "the GCS does not know node " + id.Hex() +
             ": it was started without what the one before it had stored, or serves another cluster; the node has to start anew"),
         out);
    return false;
  }
  auto [it, is_new] = nodes_.try_emplace(id);
  v1::NodeInfo& info = it->second.info;
  if (!is_new && !info.alive()) {
    Fail(call,
         Status::FailedPrecondition("node " + id.Hex() + " was declared dead (" + info.death_reason() +
                                    "); it has to start anew under another id"),
         out);
    return false;
  }
  if (python_version_.empty()) python_version_ = node.python_version();
  if (is_new) {
    info = node;
    info.set_alive(true);
    info.set_start_time_ms(wall_ms);
    ++num_alive_;
    out->push_back(PersistMessage(kTable, id.Binary(), info));
  }
  v1::RegisterNodeReply reply;
  reply.set_config_json(config_.config_json);
  reply.set_cluster_id(config_.cluster_id.Binary());
  reply.set_session_name(config_.session_name);
  reply.set_durable(config_.durable);
  reply.set_protocol_version(std::string(kProtocolVersion));
  for (const auto& [other, entry] : nodes_) {
    if (entry.info.is_head() && entry.info.alive()) reply.set_head_node_id(other.Binary());
  }
  Reply(call, std::move(reply), out);
  if (is_new) PublishNode(info, out);
  return true;
}

bool NodeTableCore::Report(const v1::ReportResourcesRequest& report, Effects* out) {
  auto it = nodes_.find(NodeId::FromBinaryOrNil(report.node_id()));
  if (it == nodes_.end() || !it->second.info.alive() || report.version() <= it->second.version) return false;
  // Not persisted: raylets report anew to a GCS that restarts. Nor published: what is free is of interest to schedulers only.
  it->second.version = report.version();
  *it->second.info.mutable_available() = report.available();
  for (const v1::BundleReport& bundle : report.bundles()) {
    const std::pair key(bundle.placement_group_id(), bundle.index());
    if (bundle.total().items().empty()) {
      it->second.bundles.erase(key);
    } else {
      it->second.bundles[key] = bundle;
    }
  }
  *it->second.info.mutable_waiting() = report.waiting();
  if (report.has_total() && report.total().SerializeAsString() != it->second.info.total().SerializeAsString()) {
    *it->second.info.mutable_total() = report.total();
    PublishNode(it->second.info, out);
  }
  return true;
}

bool NodeTableCore::Drain(const v1::DrainNodeRequest& report, int64_t wall_ms, Effects* out) {
  auto it = nodes_.find(NodeId::FromBinaryOrNil(report.node_id()));
  if (it == nodes_.end() || !it->second.info.alive()) return false;
  v1::NodeInfo& info = it->second.info;
  info.set_draining(true);
  info.set_drain_reason(report.reason());
  info.set_drain_deadline_ms(wall_ms + report.deadline_ms());
  out->push_back(PersistMessage(kTable, it->first.Binary(), info));
  PublishNode(info, out);
  return true;
}

bool NodeTableCore::Die(const NodeId& node, const std::string& reason, v1::DeathKind kind, CallToken call, int64_t wall_ms, Effects* out) {
  auto it = nodes_.find(node);
  bool dies = it != nodes_.end() && it->second.info.alive();
  if (dies) {
    v1::NodeInfo& info = it->second.info;
    info.set_alive(false);
    info.set_death_reason(reason);
    info.set_death_kind(kind);
    info.set_end_time_ms(wall_ms);
    info.clear_available();
    it->second.bundles.clear();
    --num_alive_;
    out->push_back(PersistMessage(kTable, node.Binary(), info));
  }
  Reply(call, v1::NodeEmpty(), out);
  if (!dies) return false;
  PublishNode(it->second.info, out);
  dead_.push_back(node);
  while (dead_.size() > config_.max_dead) {
    out->push_back(Persist{kTable, dead_.front().Binary(), {}, true});
    nodes_.erase(dead_.front());
    dead_.pop_front();
  }
  return true;
}

void NodeTableCore::List(CallToken call, bool with_config, Effects* out) const {
  v1::ListNodesReply reply;
  for (const auto& [id, node] : nodes_) *reply.add_nodes() = WithBundles(node);
  if (with_config) reply.set_config_json(config_.config_json);
  Reply(call, std::move(reply), out);
}

v1::NodeInfo NodeTableCore::WithBundles(const Node& node) {
  v1::NodeInfo info = node.info;
  if (node.bundles.empty() || !info.alive()) return info;
  ResourceSet total = FromProto(info.total()), available = FromProto(info.available());
  auto add = [](const v1::ResourceSet& amounts, const std::string& group, int32_t index, ResourceSet* to) {
    for (const v1::Resource& item : amounts.items()) {
      for (const std::string& name : {item.name() + "_group_" + group, item.name() + "_group_" + std::to_string(index) + "_" + group}) {
        to->Set(name, to->Get(name) + item.amount());
      }
    }
  };
  v1::ResourceSet marker;  // what a task that needs nothing else could hold of a bundle
  v1::Resource* item = marker.add_items();
  item->set_name("bundle");
  item->set_amount(1000 * ResourceSet::kUnit);
  for (const auto& [key, bundle] : node.bundles) {
    const std::string group = BytesToHex(key.first);
    add(bundle.total(), group, key.second, &total);
    add(bundle.available(), group, key.second, &available);
    add(marker, group, key.second, &total);
    add(marker, group, key.second, &available);
  }
  *info.mutable_total() = ToProto(total);
  *info.mutable_available() = ToProto(available);
  return info;
}

uint64_t NodeTableCore::VersionOf(const NodeId& node) const {
  auto it = nodes_.find(node);
  return it == nodes_.end() ? 0 : it->second.version;
}

const v1::NodeInfo* NodeTableCore::Find(const NodeId& node) const {
  auto it = nodes_.find(node);
  return it == nodes_.end() ? nullptr : &it->second.info;
}

bool NodeTableCore::IsAlive(const NodeId& node) const {
  const v1::NodeInfo* info = Find(node);
  return info != nullptr && info->alive();
}

bool NodeTableCore::IsDead(const NodeId& node) const {
  const v1::NodeInfo* info = Find(node);
  return info != nullptr && !info->alive();
}

std::vector<const v1::NodeInfo*> NodeTableCore::All() const {
  std::vector<const v1::NodeInfo*> all;
  for (const auto& [id, node] : nodes_) all.push_back(&node.info);
  return all;
}

}  // namespace ray::gcs
