// ResourceReports: what the GCS is told of the node's resources: what is free, what waits for more, and what has changed in bundles; gathered for a while,
// numbered, and sent when something has changed. On the loop only; owned by NodeServices.
#pragma once

#include <cstdint>
#include <functional>
#include <map>

#include "ray/async/loop.h"
#include "ray/common/ids.h"
#include "ray/common/resources.h"
#include "ray/rpc/core/connection.h"
#include "ray/v1/gcs_node.pb.h"

namespace ray::raylet {

class LeaseService;
class NodeObjects;

inline constexpr char kStoreMemory[] = "object_store_memory";

class ResourceReports {
 public:
  struct Deps {
    async::Loop* loop = nullptr;
    NodeId node_id;
    const ResourceSet* total = nullptr;
    LeaseService* leases = nullptr;
    NodeObjects* objects = nullptr;
    std::function<rpc::ConnectionPtr()> gcs;                                  // null while there is none: the next one is told everything
    uint64_t store_capacity = 0;                                              // bytes
    Duration interval = Duration::zero(), store_interval = Duration::zero();  // RayletConfig::report_interval, store_report_interval
  };
  explicit ResourceReports(Deps deps) : deps_(std::move(deps)) {}
  ~ResourceReports() { Stop(); }

  // The node is registered, with all that it has.
  void Begin();
  void Stop();
  void Soon();
  // It matters what other nodes have free: the GCS tells as soon as can be, as long as that was so within the last kLooksFor, or something
  // waits for them.
  void OnLookedElsewhere();
  // The store's fill has changed since NodeObjects::ArmUse.
  void OnStoreUse();
  // A full report, which counts as sent.
  void Fill(v1::ReportResourcesRequest* report) { Fill(Available(), report); }

 private:
  static constexpr Duration kLooksFor = std::chrono::seconds(10);
  void RestLater();
  ResourceSet Available() const;
  void Fill(const ResourceSet& available, v1::ReportResourcesRequest* report);
  void Report();
  void LookAtStore();

  const Deps deps_;
  bool reporting_ = false;
  uint64_t version_ = 0;
  ResourceSet reported_;  // available, as of the last report
  std::map<ResourceSet, int64_t> reported_waiting_;
  uint64_t store_used_ = 0;
  Time last_{INT64_MIN / 2};
  async::TimerId timer_ = 0;
  async::TimerId store_timer_ = 0;
  Time looked_elsewhere_;
  bool looks_ = false, reported_looks_ = false;
  async::TimerId looks_timer_ = 0;
};

}  // namespace ray::raylet
