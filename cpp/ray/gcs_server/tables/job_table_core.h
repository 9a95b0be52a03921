// JobTableCore: one job per driver, numbered from 1; of those that are over the last are remembered. Pure; part of GcsState; on the loop.
#pragma once

#include <deque>
#include <map>
#include <optional>
#include <set>

#include "ray/gcs_server/tables/effects.h"
#include "ray/v1/gcs_job.pb.h"

namespace ray::gcs {

class JobTableCore {
 public:
  explicit JobTableCore(size_t max_over = 10000) : max_over_(max_over) {}
  // What an earlier process stored. On an empty table.
  Status Restore(const StorageContents& stored);
  // A driver that has a running job gets that one again.
  void Add(const v1::JobInfo& job, CallToken call, int64_t wall_ms, Effects* out);
  // Answers OK for a job that is unknown or over, too. True if it ended now: its actors are to be ended as well.
  bool Finish(const JobId& job, CallToken call, int64_t wall_ms, Effects* out);
  void List(CallToken call, Effects* out) const;
  // True also for one that is over and forgotten; false for a number that was never given out.
  bool IsOver(const JobId& job) const;
  // Jobs under way whose driver ran there.
  std::vector<JobId> RunningOn(const NodeId& node) const;
  std::vector<JobId> RunningOf(const WorkerId& driver) const;
  // The last hundred that ended: a node that was away may have missed it.
  std::set<JobId> OverOfLate() const;

 private:
  static constexpr char kTable[] = "job";
  static constexpr char kCounterTable[] = "counter";
  static constexpr size_t kOfLate = 100;

  const size_t max_over_;
  uint32_t last_ = 0;  // durable before the number is given out
  std::map<JobId, v1::JobInfo> jobs_;
  std::map<std::string, JobId> by_driver_;  // worker id -> its job; of one that is over, too, since its request may come again behind that
  std::deque<JobId> over_;                  // oldest first
};

}  // namespace ray::gcs
