#include "ray/raylet/explain/left_tasks.h"

#include <algorithm>
#include <utility>

namespace ray::raylet {

void LeftTasks::Add(v1::LeaveTasksRequest left) {
  Owner owner{WorkerId::FromBinaryOrNil(left.worker_id()), std::move(*left.mutable_tasks()), left.finished(), left.failed()};
  std::erase_if(owners_, [&](const Owner& known) {
    if (known.id != owner.id) return false;
    Forget(known);
    return true;
  });
  rows_ += owner.rows();
  bytes_ += owner.tasks.size();
  owners_.push_back(std::move(owner));
  while ((rows_ > max_rows_ || bytes_ > max_bytes_) && owners_.size() > 1) {
    const Owner& first = owners_.front();
    Forget(first);
    forgotten_finished_ += first.finished;
    forgotten_failed_ += first.failed;
    owners_.pop_front();
  }
}

void LeftTasks::Tell(std::string_view id, v1::ExplainReply* out) const {
  for (const Owner& owner : owners_) {
    v1::ExplainReply left;
    if (!left.ParseFromString(owner.tasks)) continue;  // what it left was nothing
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
