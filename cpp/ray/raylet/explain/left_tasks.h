// LeftTasks: what is known of tasks whose owners have left this node, for lists of tasks.
//
// The latest are kept: when there are too many rows or bytes, those of the owner that left first go, all at once. Serialised, as they came, since most are
// never asked for.
// Pure; owned by the ExplainService.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>

#include "ray/common/ids.h"
#include "ray/v1/explain.pb.h"

namespace ray::raylet {

class LeftTasks {
 public:
  // Beyond `max_rows`, or `max_bytes` of them, owners go, all but the last.
  explicit LeftTasks(size_t max_rows = 20'000, size_t max_bytes = size_t{32} << 20) : max_rows_(max_rows), max_bytes_(max_bytes) {}

  // The same owner again: replaced.
  void Add(v1::LeaveTasksRequest left);
  // Facts of SUBJECT_KIND_TASKS: all, with their totals; or those of the task with that id.
  void Tell(std::string_view id, v1::ExplainReply* out) const;

  size_t rows() const { return rows_; }

 private:
  struct Owner {
    WorkerId id;
    std::string tasks;  // ExplainReply
    size_t finished = 0, failed = 0;
    size_t rows() const { return finished + failed; }
  };
  void Forget(const Owner& owner) {
    rows_ -= owner.rows();
    bytes_ -= owner.tasks.size();
  }
  const size_t max_rows_, max_bytes_;
  std::deque<Owner> owners_;  // who left first is first
  size_t rows_ = 0, bytes_ = 0;
  uint64_t forgotten_finished_ = 0, forgotten_failed_ = 0;  // with those that went
};

}  // namespace ray::raylet
