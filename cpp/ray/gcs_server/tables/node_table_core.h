// NodeTableCore: which nodes there are, what they have, and which are gone for good. Pure; part of GcsState; on the loop.
#pragma once

#include <deque>
#include <map>

#include "ray/common/resources.h"
#include "ray/gcs_server/tables/effects.h"
#include "ray/v1/gcs_node.pb.h"

namespace ray::gcs {

struct NodeTableConfig {
  std::string config_json;  // settings for the whole cluster, handed to every raylet
  ClusterId cluster_id;
  bool durable = false;      // what raylets are told: a GCS that is started again will know them
  std::string session_name;  // of the whole cluster, handed to every raylet
  size_t max_dead = 1000;    // dead nodes remembered, and refused when they come back
};

class NodeTableCore {
 public:
  explicit NodeTableCore(NodeTableConfig config) : config_(std::move(config)) {}

  // What an earlier process stored. On an empty table.
  Status Restore(const StorageContents& stored);
  // True if the node is now in the table and alive, whether new or not. Refused: an id that was declared dead, or is none; workers of another Python
  // minor version than the first node's, since values could not be exchanged; one that was in another cluster. `state`: as in RegisterNodeRequest; null:
  // it was in none.
  bool Register(const v1::NodeInfo& node, CallToken call, int64_t wall_ms, Effects* out, const v1::NodeState* state = nullptr);
  // True if it took effect: reports that are older than what is known, or of nodes that are not alive, do not.
  bool Report(const v1::ReportResourcesRequest& report, Effects* out);
  // The node takes no more work and is about to leave. True if it is alive.
  bool Drain(const v1::DrainNodeRequest& report, int64_t wall_ms, Effects* out);
  // The node is gone for good. True if it was alive.
  bool Die(const NodeId& node, const std::string& reason, v1::DeathKind kind, CallToken call, int64_t wall_ms, Effects* out);
  void List(CallToken call, bool with_config, Effects* out) const;

  // Nullptr: unknown.
  const v1::NodeInfo* Find(const NodeId& node) const;
  bool IsAlive(const NodeId& node) const;
  // It was there; not: it has never been, or is forgotten.
  bool IsDead(const NodeId& node) const;
  // Of its newest report; 0: none.
  uint64_t VersionOf(const NodeId& node) const;
  std::vector<const v1::NodeInfo*> All() const;
  size_t num_alive() const { return num_alive_; }

 private:
  static constexpr char kTable[] = "node";
  struct Node {
    v1::NodeInfo info;
    uint64_t version = 0;  // of the newest report
    // Bundles of placement groups on it; shown with its resources as CPU_group_<index>_<group> (the bundle) and CPU_group_<group> (all of them).
    std::map<std::pair<std::string, int32_t>, v1::BundleReport> bundles;
  };
  static v1::NodeInfo WithBundles(const Node& node);
  static void PublishNode(const v1::NodeInfo& node, Effects* out);

  const NodeTableConfig config_;
  std::map<NodeId, Node> nodes_;
  std::deque<NodeId> dead_;  // oldest first
  size_t num_alive_ = 0;
  std::string python_version_;  // of the first node that told one
};

}  // namespace ray::gcs
