// RecoveryService: shell of the RecoveryCore: hears of large values that come, go and get lost, and has tasks run again.
//
// The ObjectService tells what happens to values, the TaskManager how tasks end. A lost object is pending until the run that brings it back, so everybody
// who waits for it, here or as a borrower, simply waits. What a run needs and nobody held any more comes back in the same way, before it.
// Owned by the CoreWorker. Thread-safe; nothing is called with the lock held.
#pragma once

#include <atomic>
#include <functional>
#include <span>

#include "ray/core_worker/objects/object_service.h"
#include "ray/core_worker/recovery/recovery_core.h"
#include "ray/util/mutex.h"

namespace ray::core {

// Whether a run that is under way will begin again.
enum class Begun {
  kAgain,      // it will, or it is at its end, after which the task is run again
  kNoRetries,  // there are none left
  kNever,      // the task never had any
};

class RecoveryService {
 public:
  struct Deps {
    ObjectService* objects = nullptr;
    uint64_t cap_bytes = uint64_t{1} << 30;
    // Puts a task to work that is not in the table of tasks; what it needs is held, but perhaps not ready.
    std::function<void(const PendingTaskPtr& task, int32_t retries_left)> run;
    // The run under way of a stream is past an item that is lost, and is to end and begin again.
    std::function<Begun(const TaskId& task)> begin_again;
  };
  explicit RecoveryService(Deps deps) : deps_(std::move(deps)), core_(deps_.cap_bytes) {}

  // From the ObjectService.
  void OnStored(const ObjectId& id);
  void OnLost(const ObjectId& id);
  void OnFreed(std::span<const ObjectId> ids, std::span<const ObjectId> in_store);

  // From the TaskManager: the task is run anew, since its run was lost or gave up.
  void OnAgain(const TaskId& task);
  // The same, after the results are stored and while what the task held is still held. `items`: of a stream that came to its end, else -1.
  void OnDone(const PendingTask& task, int32_t retries_left, int64_t items);
  void OnFailed(const PendingTask& task, const ErrorValue& error);

  // It was lost, and a run that is to bring it back is under way.
  bool IsLost(const ObjectId& id) const;
  // As of RecoveryCore.
  bool IsAnyHeldBehind(const ObjectId& item) const;

  size_t TEST_size() const;

 private:
  void End(RecoveryCore::End end);
  void CarryOut(RecoveryEffects effects);
  // The next attempt of `task`, with a hold on each thing it needs. Null: one of them cannot be had; the losses were answered.
  PendingTaskPtr Prepare(const PendingTask& task, RecoveryEffects* effects);

  const Deps deps_;
  std::atomic<bool> any_lost_{false};  // the core knows lost objects
  mutable Mutex mu_;
  RecoveryCore core_ GUARDED_BY(mu_);
};

}  // namespace ray::core
