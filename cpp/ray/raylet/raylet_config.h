// RayletConfig: the settings of one node. Made by main from flags; every part gets its own piece.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "ray/common/resources.h"
#include "ray/raylet/memory/memory_monitor.h"
#include "ray/raylet/nodes/link_core.h"
#include "ray/raylet/router/tunnel_router.h"
#include "ray/raylet/workers/worker_pool_core.h"
#include "ray/rpc/grpc/security.h"
#include "ray/scheduling/lease_queue_core.h"
#include "ray/util/clock.h"

namespace ray::rpc {
class FaultInjector;
}  // namespace ray::rpc

namespace ray::raylet {

// In the folder node_dir/sockets.
inline constexpr char kRayletSocket[] = "raylet.sock";
inline constexpr char kStoreSocket[] = "store.sock";

struct RayletConfig {
  std::string session_dir;  // logs, spilled objects
  std::string node_dir;     // sockets; another than the session's where a session has several nodes on this machine
  std::string gcs_address;  // "unix:/path" or "host:port"
  std::string listen;       // "host:port" for the other nodes, port 0: any that is free; empty: this node only dials out
  rpc::SecurityConfig security;
  LinkConfig links;
  TunnelRouterConfig tunnels;
  std::string python_version;  // X.Y.Z of the workers; must be of the cluster's minor version; empty: not checked
  std::string node_ip = "127.0.0.1";
  std::string node_name;  // empty: the node's id
  bool is_head = false;
  bool driver_only = false;          // the way into the cluster of the driver that started it: it offers nothing
  ResourceSet resources;             // CPU, GPU, memory, accelerator_type:..., custom; what follows from the rest is added
  uint64_t object_store_memory = 0;  // bytes
  std::vector<std::string> object_spilling_directories;  // where the store's objects go when it is full; none: the session's folder
  double max_disk_use = 0.95;                            // share of a disk above which nothing is spilled to it
  std::vector<std::string> object_spilling_uris;         // if any, they go there; disk-backed memory stays in the directories
  std::string object_spilling_options_file;              // for the helper that speaks to those: JSON
  uint64_t max_spill_file_bytes = uint64_t{100} << 20;   // small objects share files up to this size
  uint64_t max_spill_file_objects = 2000;                // and up to so many of them
  double spill_threshold = 0.8;                          // share of the store above which objects are spilled ahead of need
  Duration overflow_grace = std::chrono::seconds(1);     // how long a put waits for memory before it gets a file instead
  std::map<std::string, std::string> labels;
  std::string python;  // interpreter for the zygote
  WorkerPoolConfig pool;
  scheduling::LeaseQueueConfig leases;
  MemoryMonitorOptions memory_monitor;
  Duration report_interval = std::chrono::milliseconds(100);        // least time between two resource reports to the GCS
  Duration store_report_interval = std::chrono::milliseconds(500);  // for how long changes of the store's fill are gathered before one
  Duration log_coalesce = std::chrono::milliseconds(5);             // printed lines are picked up this long after the first
  Duration stop_grace = std::chrono::seconds(1);                    // from asking the workers to leave to SIGKILL
  Duration connect_timeout = std::chrono::seconds(10);              // for the first answer of the GCS
  Duration gcs_reconnect_timeout = std::chrono::seconds(60);        // for a durable GCS that has gone to be there again
  std::shared_ptr<rpc::FaultInjector> faults;                       // for tests; null: none
};

}  // namespace ray::raylet
