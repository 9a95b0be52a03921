#include "ray/raylet/explain/left_tasks.h"

#include <algorithm>

namespace ray::raylet {

void LeftTasks::Add(const v1::LeaveTasksRequest& left) {
  Owner owner;
  owner.id = WorkerId::FromBinaryOrNil(left.worker_id());
  std::erase_if(owners_, [&](const Owner& known) {
    if (known.id != owner.id) return false;
    rows_ -= known.rows;
    return true;
  });
  for (const v1::WaitFact& fact : left.facts()) {
    if (!fact.has_row()) continue;
    ++owner.rows;
    ++(fact.state() == v1::WAIT_STATE_FAILED ? owner.failed : owner.finished);
  }
  owner.left = left.SerializeAsString();
  rows_ += owner.rows;
  owners_.push_back(std::move(owner));
  while (rows_ > max_rows_ && owners_.size() > 1) {
    const Owner& first = owners_.front();
    rows_ -= first.rows;
    forgotten_finished_ += first.finished;
    forgotten_failed_ += first.failed;
    owners_.pop_front();
  }
}

void LeftTasks::Tell(std::string_view id, v1::ExplainReply* out) const {
  for (const Owner& owner : owners_) {
    v1::LeaveTasksRequest left;
    if (!left.ParseFromString(owner.left)) continue;  // cannot be: it was written here
    for (v1::WaitFact& fact : *left.mutable_facts()) {
      if (id.empty() || fact.id() == id) out->add_facts()->Swap(&fact);
    }
  }
  if (!id.empty() || forgotten_finished_ + forgotten_failed_ == 0) return;
  v1::WaitFact& about = *out->add_facts();
  about.set_kind(v1::SUBJECT_KIND_TASKS);
  about.mutable_totals()->set_forgotten_finished(forgotten_finished_);
  about.mutable_totals()->set_forgotten_failed(forgotten_failed_);
}

}  // namespace ray::raylet
