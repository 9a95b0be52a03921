#include "ray/wire/wait_fact.h"

#include <algorithm>
#include <chrono>
#include <string>

#include "ray/wire/convert.h"

namespace ray {

void SetSubject(v1::SubjectKind kind, std::string_view id, v1::WaitState state, v1::WaitFact* out) {
  out->set_kind(kind);
  out->set_id(std::string(id));
  out->set_state(state);
  out->set_age_ms(-1);
  out->set_ahead(-1);
}

void SetAge(Time since, Time now, v1::WaitFact* out) {
  if (since.is_infinite()) return;
  out->set_age_ms(std::max<int64_t>(0, std::chrono::duration_cast<std::chrono::milliseconds>(now - since).count()));
}

void AddPointer(v1::SubjectKind kind, std::string_view id, const Address& address, v1::WaitFact* out) {
  if (out->next_size() >= kMaxWaitPointers) {
    out->set_more(out->more() + 1);
    return;
  }
  v1::WaitPointer* pointer = out->add_next();
  pointer->set_kind(kind);
  pointer->set_id(std::string(id));
  ToProto(address, pointer->mutable_address());
}

bool RowRoom::Take(const v1::WaitFact& row) {
  const size_t bytes = row.ByteSizeLong();
  if (bytes > bytes_) {
    ++left_out_;
    return false;
  }
  bytes_ -= bytes;
  return true;
}

v1::TaskRow* SetTask(const TaskTemplate& tmpl, const TaskId& id, const TaskId& parent, uint32_t attempt, v1::WaitState state,
                     v1::WaitFact* out) {
  SetSubject(v1::SUBJECT_KIND_TASKS, id.View(), state, out);
  out->set_name(tmpl.DisplayName());
  out->set_attempt(attempt);
  ToProto(tmpl.resources, out->mutable_need());
  v1::TaskRow* row = out->mutable_row();
  row->set_type(static_cast<v1::TaskType>(tmpl.type));
  row->set_function_name(tmpl.function_name);
  row->set_parent_task_id(parent.Binary());
  row->set_runtime_env(tmpl.runtime_env);
  if (tmpl.strategy.kind != SchedulingStrategy::kDefault || !tmpl.strategy.selectors.empty())
    ToProto(tmpl.strategy, row->mutable_strategy());
  return row;
}

}  // namespace ray
