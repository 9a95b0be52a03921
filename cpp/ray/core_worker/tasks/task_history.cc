#include "ray/core_worker/tasks/task_history.h"

namespace ray::core {

std::string_view EndOfError(std::string_view text) {
  if (text.size() <= TaskHistory::kMaxErrorBytes) return text;
  text.remove_prefix(text.size() - TaskHistory::kMaxErrorBytes);
  constexpr auto kFollows = [](char c) { return (static_cast<uint8_t>(c) & 0xc0) == 0x80; };  // within a character of UTF-8
  while (!text.empty() && kFollows(text.front())) text.remove_prefix(1);
  return text;
}

EndedTask& TaskHistory::Ring::Next() {
  if (entries_.size() < capacity_) {
    if (entries_.empty()) entries_.reserve(capacity_);
    return entries_.emplace_back();
  }
  ++forgotten_;
  EndedTask& entry = entries_[oldest_];
  if (++oldest_ == capacity_) oldest_ = 0;
  return entry;
}

void TaskHistory::Fill(const TaskAttempt& attempt, EndedTask* out) {
  const TaskSpec& spec = attempt.spec;
  if (out->tmpl != spec.tmpl) out->tmpl = spec.tmpl;  // a count that other threads use as well is left alone if it can be
  out->id = spec.task_id;
  out->parent = spec.parent_task_id;
  out->worker = attempt.worker;
  out->submitted = attempt.submitted;
  out->ended = attempt.ended;
  out->run = attempt.run;
  out->attempt = attempt.attempt;
}

void TaskHistory::Finished(const TaskAttempt& attempt) {
  if (finished_.capacity() == 0 || attempt.spec.tmpl->omit_task_events) return;
  Fill(attempt, &finished_.Next());
}

void TaskHistory::Failed(const TaskAttempt& attempt, int32_t error_type, std::string_view error) {
  if (failed_.capacity() == 0 || attempt.spec.tmpl->omit_task_events) return;
  EndedTask& entry = failed_.Next();
  Fill(attempt, &entry);
  entry.error_type = error_type;
  entry.error = std::make_shared<const std::string>(EndOfError(error));
}

}  // namespace ray::core
