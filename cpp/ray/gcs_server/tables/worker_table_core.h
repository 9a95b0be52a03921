// WorkerTableCore: which workers and drivers have died lately, since an actor may be registered by one that is gone by then. Pure; on the loop.
#pragma once

#include <deque>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "ray/common/ids.h"
#include "ray/gcs_server/tables/effects.h"
#include "ray/v1/gcs_node.pb.h"
#include "ray/v1/raylet_worker.pb.h"

namespace ray::gcs {

class WorkerTableCore {
 public:
  explicit WorkerTableCore(size_t max_remembered = 10000) : max_remembered_(max_remembered) {}
  // True the first time: then it is published.
  bool Died(const v1::ReportWorkerDiedRequest& report, CallToken call, Effects* out);
  bool IsDead(const WorkerId& worker) const { return dead_.contains(worker); }
  // Every death that is remembered, the oldest first: visit(notice, the nodes that need to hear of it; none: all).
  template <typename F>
  void ForEach(F visit) const {
    for (const WorkerId& worker : order_) {
      const Death& death = dead_.at(worker);
      visit(death.notice, death.nodes);
    }
  }
  // How it ended, for people; empty: it is not known to have ended.
  std::string DetailOf(const WorkerId& worker) const;

 private:
  struct Death {
    v1::WorkerDiedNotice notice;
    std::optional<std::vector<NodeId>> nodes;
  };
  const size_t max_remembered_;
  std::unordered_map<WorkerId, Death, IdHash> dead_;
  std::deque<WorkerId> order_;  // oldest first
};

}  // namespace ray::gcs
