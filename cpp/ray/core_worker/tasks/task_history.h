// TaskHistory: the attempts at this owner's tasks that have ended, for lists of tasks.
//
// Written for each task, read when somebody asks: so an entry is filled in where it stands, and shares its template with the others instead of copying
// names. The latest so many are kept, and as many more of those that failed, so that what succeeds does not push them out. No memory is taken before the
// first one.
//
// Pure; not thread-safe: part of the TaskManager, under its lock.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "ray/common/address.h"
#include "ray/common/ids.h"
#include "ray/util/clock.h"
#include "ray/wire/task_spec.h"

namespace ray::core {

// The process that an attempt was sent to; nil: none.
struct TaskWorker {
  Address address;
  int64_t pid = 0;
};

struct EndedTask {
  static constexpr int32_t kFinished = -1;

  TaskTemplatePtr tmpl;
  TaskId id, parent;
  TaskWorker worker;
  Time submitted, ended;
  Duration run = Duration::zero();  // in the program's code, up to `ended`; zero: not known
  uint32_t attempt = 0;
  int32_t error_type = kFinished;            // ErrorType of one that failed
  std::shared_ptr<const std::string> error;  // the same for people; null: it has not failed. Shared with who lists the entries
};

// An attempt that ends; all of it is copied.
struct TaskAttempt {
  const TaskSpec& spec;  // that of the task; its `attempt` may be of a later one already
  uint32_t attempt = 0;
  const TaskWorker& worker;
  Time submitted, ended;
  Duration run = Duration::zero();
};

class TaskHistory {
 public:
  static constexpr size_t kMaxErrorBytes = 2048;

  // `capacity`: of each kind; 0: nothing is kept.
  explicit TaskHistory(size_t capacity) : finished_(capacity), failed_(capacity) {}

  // What templates leave out (omit_task_events) is not noted.
  void Finished(const TaskAttempt& attempt);
  // Of a long `error` the end is kept, where tracebacks say what happened.
  void Failed(const TaskAttempt& attempt, int32_t error_type, std::string_view error);

  // In no order.
  const std::vector<EndedTask>& finished() const { return finished_.entries(); }
  const std::vector<EndedTask>& failed() const { return failed_.entries(); }
  // How many had to go.
  uint64_t forgotten_finished() const { return finished_.forgotten(); }
  uint64_t forgotten_failed() const { return failed_.forgotten(); }

 private:
  class Ring {
   public:
    explicit Ring(size_t capacity) : capacity_(capacity) {}
    size_t capacity() const { return capacity_; }
    // The entry to overwrite: a fresh one while there is room, then the oldest. REQUIRES: capacity above 0.
    EndedTask& Next();
    const std::vector<EndedTask>& entries() const { return entries_; }
    uint64_t forgotten() const { return forgotten_; }

   private:
    const size_t capacity_;
    std::vector<EndedTask> entries_;
    size_t oldest_ = 0;  // once it is full
    uint64_t forgotten_ = 0;
  };

  static void Fill(const TaskAttempt& attempt, EndedTask* out);

  Ring finished_, failed_;
};

// The end of `text`, at most kMaxErrorBytes of it, beginning with a whole character.
std::string_view EndOfError(std::string_view text);

}  // namespace ray::core
