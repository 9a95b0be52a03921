// GcsServer: the tables of a cluster, as services on a Dispatcher. Knows no carrier: main/ puts gRPC in front, tests call the dispatcher.
// Owned by the composition root; everything runs on the loop. Must outlive the carriers' use of the dispatcher.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "ray/async/loop.h"
#include "ray/gcs_server/health/health_core.h"
#include "ray/gcs_server/storage/storage.h"
#include "ray/gcs_server/tables/node_table_core.h"
#include "ray/rpc/core/dispatcher.h"
#include "ray/scheduling/cluster_view.h"

namespace ray::gcs {

// How many of what has ended are remembered, for people and for those who still ask; the oldest are forgotten first.
struct RememberedCounts {
  size_t nodes = 1000, actors = 10000, workers = 10000, placement_groups = 10000, jobs = 10000;
};

struct GcsServerOptions {
  std::string config_json;   // settings for the whole cluster, handed to every raylet
  std::string session_name;  // of the cluster, handed to every raylet
  HealthConfig health;
  RememberedCounts remembered;
  // After a restart: how long nodes that were alive before may take to come back; then they are dead.
  Duration node_return_timeout = std::chrono::seconds(30);
  // Asks the host of a node whether anybody listens at the port of its raylet: `refused` is told once, on the loop, never from
  // within the call. Null: it cannot be asked.
  std::function<void(const std::string& ip, int port, std::function<void(bool refused)>)> knock;
  std::function<void()> on_empty;                        // the last node that was alive has gone
  std::function<void(const Status&)> on_storage_failed;  // the process must end
};

class GcsServer {
 public:
  // Goes on from what is stored. `loop` and `storage` must outlive the server. Fails if what is stored cannot be read.
  static Result<std::unique_ptr<GcsServer>> Make(GcsServerOptions options, async::Loop* loop, Storage* storage);
  ~GcsServer();
  const rpc::Dispatcher* dispatcher() const { return &dispatcher_; }
  // By which it places actors and bundles.
  const scheduling::ClusterView& view() const;
  // Has every node stop, instead of waiting for the next GCS. `done` runs on the loop once all have heard, or after `patience`.
  void EndCluster(Duration patience, std::function<void()> done);

 private:
  GcsServer(GcsServerOptions options, async::Loop* loop, Storage* storage, NodeTableConfig config);
  Status Restore(const StorageContents& stored);

  std::unique_ptr<struct GcsState> state_;
  rpc::Dispatcher dispatcher_;
};

}  // namespace ray::gcs
