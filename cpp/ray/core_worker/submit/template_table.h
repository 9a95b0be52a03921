// TemplateTable: the static parts of what this process submits, one for each content.
//
// Options are often made anew for each call (f.options(...).remote()). Equal ones share a template, so that what was told of it to workers is not told
// again, and what was learnt of its run time is not forgotten. One that nobody uses any more stays for a while, for the next who makes the same.
//
// Pure. Not thread-safe: owned by the CoreWorker, under its lock.
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <string>
#include <unordered_map>

#include "ray/core_worker/submit/lease_pool_core.h"
#include "ray/wire/task_spec.h"

namespace ray::core {

class TemplateTable {
 public:
  struct Template {
    TaskTemplatePtr tmpl;
    ClassNo cls = 0;
    int64_t depth = -1;  // that `cls` is for: what this process submitted last was nested so deep; -1: it has no class yet
  };

  explicit TemplateTable(size_t max_unused = 256) : max_unused_(max_unused) {}

  // Counts one more user. The handle is the template's key too; it is never given to another content. `tmpl.key` is filled in here.
  uint64_t Acquire(TaskTemplate tmpl);
  // One user fewer. REQUIRES: an Acquire for each.
  void Release(uint64_t handle);
  // Nullptr: unknown. Until the next call of Acquire or Release.
  const Template* Find(uint64_t handle) const;
  void SetClass(uint64_t handle, ClassNo cls, int64_t depth);
  size_t size() const { return entries_.size(); }

 private:
  struct Entry {
    Template shown;
    std::string content;
    size_t users = 0;
    std::list<uint64_t>::iterator unused;  // where it stands in unused_, while it has no users
  };

  const size_t max_unused_;
  uint64_t last_ = 0;
  std::unordered_map<uint64_t, Entry> entries_;
  std::unordered_map<std::string, uint64_t> by_content_;
  std::list<uint64_t> unused_;  // the longest unused first
};

}  // namespace ray::core
