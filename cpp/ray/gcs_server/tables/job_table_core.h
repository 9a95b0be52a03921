// JobTableCore: one job per driver, numbered from 1. Pure; owned by JobService; on the loop.
#pragma once

#include <map>
#include <optional>

#include "ray/gcs_server/tables/effects.h"
#include "ray/v1/gcs_job.pb.h"

namespace ray::gcs {

class JobTableCore {
 public:
  void Add(const v1::JobInfo& job, CallToken call, int64_t wall_ms, Effects* out);
  // Answers OK for a job that is unknown or over, too. True if it ended now: its actors are to be ended as well.
  bool Finish(const JobId& job, CallToken call, int64_t wall_ms, Effects* out);
  void List(CallToken call, Effects* out) const;
  // Jobs under way whose driver ran there.
  std::vector<JobId> RunningOn(const NodeId& node) const;

 private:
  static constexpr char kTable[] = "job";
  static constexpr char kCounterTable[] = "counter";

  uint32_t last_ = 0;  // durable before the number is given out
  std::map<JobId, v1::JobInfo> jobs_;
};

}  // namespace ray::gcs
