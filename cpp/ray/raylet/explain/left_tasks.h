// LeftTasks: what is known of tasks whose owners have left this node, for lists of tasks.
//
// The latest are kept: when there are too many rows, those of the owner that left first go, all at once. Serialised, since most are never asked for.
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
  // `max_rows`: beyond it owners go, all but the last.
  explicit LeftTasks(size_t max_rows = 20'000) : max_rows_(max_rows) {}

  // The same owner again: replaced.
  void Add(const v1::LeaveTasksRequest& left);
  // Facts of SUBJECT_KIND_TASKS: all, with their totals; or those of the task with that id.
  void Tell(std::string_view id, v1::ExplainReply* out) const;

  size_t rows() const { return rows_; }

 private:
  struct Owner {
    WorkerId id;
    std::string left;  // LeaveTasksRequest
    size_t rows = 0;
    uint64_t finished = 0, failed = 0;  // of them
  };
  const size_t max_rows_;
  std::deque<Owner> owners_;  // who left first is first
  size_t rows_ = 0;
  uint64_t forgotten_finished_ = 0, forgotten_failed_ = 0;  // with those that went
};

}  // namespace ray::raylet
