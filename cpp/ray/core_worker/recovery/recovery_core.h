// RecoveryCore: which tasks of ours could be run again to bring back a large value that was lost, and what is being done about those that are.
//
// An entry exists for each task that made a value in the shared-memory store which somebody holds, and for each task that such a one needs (its
// arguments could be lost, too). It ends when neither is left. Small values live in their owner's memory and are never lost, so tasks that make
// nothing else never come here. What the entries keep is capped: the oldest are evicted; then the entry stays, to say why its objects cannot be had.
//
// Losses are answered once each: by a run of the task, which serves all that it made and everybody who waits, or by a reason. Each run uses up one of
// the task's retries, so the same loss cannot go round for ever.
//
// A run brings back what it has not made yet. What it has made and is lost while it goes on it is past: a stream, which may be held back until its consumer
// has just that item, is begun again instead.
//
// Pure (events in, effects out); not thread-safe, the RecoveryService holds a lock.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <set>
#include <span>
#include <unordered_map>
#include <vector>

#include "ray/common/errors.h"
#include "ray/common/ids.h"

namespace ray::core {

struct PendingTask;
using PendingTaskPtr = std::shared_ptr<PendingTask>;

struct RecoveryEffect {
  // kHold, kRelease: arguments that are an object are to be kept from now on; they are of no use any more.
  // kPassed: the run under way of the task that made `object` is past it. It is to be begun again; if it cannot be, NotAgain is to be called.
  enum class Kind : uint8_t { kRun, kFail, kHold, kRelease, kPassed };
  Kind kind = Kind::kRun;
  PendingTaskPtr task;       // kRun: as it last ran; to be run again, as the next attempt
  int32_t retries_left = 0;  // kRun: beyond this run; -1 without end
  ObjectId object;           // kFail: it cannot be had; kHold, kRelease, kPassed
  ErrorType reason{};        // kFail
};
using RecoveryEffects = std::vector<RecoveryEffect>;

class RecoveryCore {
 public:
  // 0: nothing is kept, and losses have the reason LINEAGE_DISABLED.
  explicit RecoveryCore(uint64_t cap_bytes) : cap_bytes_(cap_bytes) {}

  // A value of a task that runs, or has just been answered, is in the store. It is not lost (any more).
  void Stored(const ObjectId& id);

  struct End {
    TaskId id;
    PendingTaskPtr task;   // may be kept
    uint64_t bytes = 0;    // what keeping it costs
    ObjectId args_object;  // nil: none. Nobody else holds it once the task has ended
    int32_t retries_left = 0;
    bool retries_allowed = true;  // it was ever allowed any
    // Objects that running it again would need. Of those that tasks of ours made, the entries stay.
    std::span<const ObjectId> needs;
    bool ran = true;                                                     // it has results; else it failed for good
    ErrorType failure = ErrorType::kObjectUnreconstructableMaxAttempts;  // if not `ran`: the reason for what is lost from now on
    int64_t items = -1;                                                  // streams that came to their end: how many there are
  };
  // Of a task without entry (nothing of it is in the store): nothing. What was lost and did not come back is lost again, or fails.
  void Ended(const End& end, RecoveryEffects* out);
  // Objects of the task that were lost and are not Stored yet. For the shell, which knows which of them got another kind of value.
  std::vector<ObjectId> LostOf(const TaskId& task) const;
  // It has a value that cannot be lost (small, or an error), or nobody holds it any more. Unknown ids are ignored.
  void Settled(const ObjectId& id, RecoveryEffects* out);

  // No copy of it is left; it is pending now. It is held by somebody (also if no entry knows it).
  void Lost(const ObjectId& id, RecoveryEffects* out);
  // The run under way begins anew, in another process perhaps: it is past nothing.
  void Again(const TaskId& task);
  // kPassed: the run goes on, since the task has no retries left. What is lost fails with `reason`, unless it came back meanwhile.
  void NotAgain(const ObjectId& id, ErrorType reason, RecoveryEffects* out);

  // Of its stream, an item behind this one is held that is in the store, or was and is lost.
  bool IsAnyHeldBehind(const ObjectId& item) const;
  // There is an entry for the task that made it.
  bool Knows(const ObjectId& id) const { return !id.IsPut() && entries_.contains(id.task_id()); }
  size_t size() const { return entries_.size(); }
  uint64_t bytes() const { return bytes_; }
  size_t lost() const { return lost_; }

 private:
  struct Entry {
    PendingTaskPtr task;                                             // null: it cannot be run again
    ErrorType why = ErrorType::kObjectUnreconstructableRefNotFound;  // task == null && !running: the reason
    uint64_t bytes = 0;                                              // counted in bytes_ while `task`
    ObjectId args_object;                                            // held while `task`; nil: none
    int32_t retries_left = 0;                                        // not 0 while `task`, but for the time of a run
    bool running = false;                                            // its first run, or one that brings something back
    std::set<ObjectId> live;                                         // of its values: those that were stored and are held
    std::set<ObjectId> lost;                                         // a part of `live`: absent, for `running` to bring back
    std::set<ObjectId> passed;                                       // those that the run under way has made
    std::vector<TaskId> needs;                                       // entries that it keeps, once for each; only while `task`
    uint32_t needed_by = 0;                                          // entries that keep it
    std::list<TaskId>::iterator age;
    bool aged = false;  // `age` is valid: it is in by_age_
  };
  using Map = std::unordered_map<TaskId, Entry, IdHash>;

  void Keep(Map::iterator it, const End& end, RecoveryEffects* out);
  // From now on it cannot be run again. May end entries that it kept, never itself.
  void Unkeep(Map::iterator it, ErrorType why, RecoveryEffects* out);
  // What keeping the entry's task cost.
  void Forget(Entry* entry, RecoveryEffects* out);
  void ReleaseNeeds(std::vector<TaskId> needs, RecoveryEffects* out);
  void MaybeErase(Map::iterator it, RecoveryEffects* out);
  void Evict(RecoveryEffects* out);
  // Runs it for what is lost of it, or fails that.
  void Answer(Map::iterator it, RecoveryEffects* out);

  const uint64_t cap_bytes_;
  Map entries_;
  std::list<TaskId> by_age_;  // entries with a task, the oldest first
  uint64_t bytes_ = 0;
  size_t lost_ = 0;  // over all entries
};

}  // namespace ray::core
