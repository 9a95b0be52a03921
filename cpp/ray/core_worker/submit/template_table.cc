#include "ray/core_worker/submit/template_table.h"

#include "ray/util/check.h"

namespace ray::core {

uint64_t TemplateTable::Acquire(TaskTemplate tmpl) {
  std::string content = ContentOf(tmpl);
  if (const auto known = by_content_.find(content); known != by_content_.end()) {
    Entry& entry = entries_.at(known->second);
    if (entry.users++ == 0) unused_.erase(entry.unused);
    return known->second;
  }
  tmpl.key = ++last_;
  by_content_.emplace(content, last_);
  entries_.emplace(last_, Entry{{std::make_shared<const TaskTemplate>(std::move(tmpl))}, std::move(content), 1, {}});
  return last_;
}

void TemplateTable::Release(uint64_t handle) {
  const auto it = entries_.find(handle);
  RAY_CHECK(it != entries_.end() && it->second.users > 0);
  if (--it->second.users > 0) return;
  it->second.unused = unused_.insert(unused_.end(), handle);
  if (unused_.size() <= max_unused_) return;
  const auto oldest = entries_.find(unused_.front());
  unused_.pop_front();
  by_content_.erase(oldest->second.content);
  entries_.erase(oldest);
}

const TemplateTable::Template* TemplateTable::Find(uint64_t handle) const {
  const auto it = entries_.find(handle);
  return it == entries_.end() ? nullptr : &it->second.shown;
}

void TemplateTable::SetClass(uint64_t handle, ClassNo cls, int64_t depth) {
  const auto it = entries_.find(handle);
  if (it == entries_.end()) return;
  it->second.shown.cls = cls;
  it->second.shown.depth = depth;
}

}  // namespace ray::core
