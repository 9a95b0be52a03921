// WaitFact: what one process knows of where something stands and what it waits for (protos/ray/v1/explain.proto). Made by whoever keeps the state, put
// together by who asked.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "ray/common/address.h"
#include "ray/common/ids.h"
#include "ray/util/clock.h"
#include "ray/v1/explain.pb.h"
#include "ray/wire/task_spec.h"

namespace ray {

inline constexpr int kMaxWaitPointers = 8;  // of one fact; beyond them only their number is told

void SetSubject(v1::SubjectKind kind, std::string_view id, v1::WaitState state, v1::WaitFact* out);
// `since` infinite: unknown.
void SetAge(Time since, Time now, v1::WaitFact* out);
// `address` as in WaitPointer: nil is the GCS.
void AddPointer(v1::SubjectKind kind, std::string_view id, const Address& address, v1::WaitFact* out);
// An attempt at a task, in SUBJECT_KIND_TASKS. The rest of the row is the caller's.
v1::TaskRow* SetTask(const TaskTemplate& tmpl, const TaskId& id, const TaskId& parent, uint32_t attempt, v1::WaitState state,
                     v1::WaitFact* out);
// Room for the rows of tasks in one answer, so that it fits in a message whatever the tasks are like.
class RowRoom {
 public:
  explicit RowRoom(size_t bytes) : bytes_(bytes) {}
  // False: there is none, and it is counted.
  bool Take(const v1::WaitFact& row);
  uint64_t left_out() const { return left_out_; }

 private:
  size_t bytes_;  // left
  uint64_t left_out_ = 0;
};

// Moments of the monotonic clock on that of the wall, for people. One moment has the same time whenever it is told: what the wall's clock is set to after
// the construction is not looked at.
class WallTimes {
 public:
  explicit WallTimes(const Clock& clock) : known_(clock.Now()), wall_ms_(clock.WallMillis()) {}
  int64_t Millis(Time time) const { return wall_ms_ + std::chrono::floor<std::chrono::milliseconds>(time - known_).count(); }

 private:
  const Time known_;
  const int64_t wall_ms_;
};

}  // namespace ray
