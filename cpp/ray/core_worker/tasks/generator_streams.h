// GeneratorStreams: the streaming generators of this owner: which items have come, which were taken, and how far the producer may run ahead.
//
// Item i of a stream is the object with index i + 2 of its task (index 1 is the generator itself). An item is owned here from its arrival and gets
// one handle, which the consumer takes over. The producer's reports are answered once fewer than the limit are unconsumed.
// Thread-safe; callbacks and answers run without the lock.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "ray/core_worker/objects/object_service.h"
#include "ray/util/mutex.h"
#include "ray/wire/error_detail.h"

namespace ray::core {

// What a producer is to do after an item.
enum class Pace { kGoOn, kStop, kBeginAgain };

class GeneratorStreams {
 public:
  // `held_behind`: an item of its stream behind this one is held that could be lost, or is. Called without locks.
  GeneratorStreams(ObjectService* objects, std::function<bool(const ObjectId& item)> held_behind)
      : objects_(objects), held_behind_(std::move(held_behind)) {}

  // `backpressure`: unconsumed items allowed; -1: no limit.
  void Create(const TaskId& task, int64_t backpressure);
  // The producer runs again, for items that were lost: from now until EndReplay it brings back what is held and pending. What consumers see of the
  // stream does not change. Where nobody consumes any more it is let go on to the last item that is held, since there may be no end.
  void BeginReplay(const TaskId& task);
  void EndReplay(const TaskId& task);
  // The run under way is past an item that was lost: it is told to begin again, at once if it is held back, and consumers see nothing of it.
  void BeginAgain(const TaskId& task);
  // It is consumed, and its end is not known: its producer may be held back.
  bool IsOpen(const TaskId& task);
  // `answer` runs when the producer may go on, or is to end.
  void Report(const TaskId& task, int64_t index, ReturnValue item, std::function<void(Pace)> answer);
  void End(const TaskId& task, int64_t items);
  // The error becomes the last item; `items` < 0: after those that came.
  void Fail(const TaskId& task, int64_t items, const ErrorValue& error);

  // False: nothing yet. Else the next item (whose handle is the caller's from now on), or *end.
  bool TryNext(const TaskId& task, bool* end, ObjectId* item);
  // `callback` once TryNext would return true; at once if it does. Returns a number for Cancel, 0 if the callback has run.
  uint64_t OnNext(const TaskId& task, std::function<void()> callback);
  // The callback will not run, unless it is about to.
  void Cancel(const TaskId& task, uint64_t number);
  // Every stream that has not ended fails.
  void FailAll(const ErrorValue& error);
  // Nobody consumes any more: what was not taken is dropped, the producer is told to stop at its next report behind which nothing is held.
  void Release(const TaskId& task);

  static ObjectId ItemId(const TaskId& task, int64_t index) { return ObjectId::ForReturn(task, static_cast<uint32_t>(index) + 1); }

 private:
  struct Waiting {
    uint64_t number;
    std::function<void()> callback;
  };
  // Of the task, as far as it is known here.
  struct Run {
    uint32_t attempt = 0;  // the last that reported anything
    int64_t again = -1;    // attempts up to this one are to begin again
  };
  struct Stream {
    int64_t limit = -1;
    int64_t arrived = 0;                                    // items [0, arrived) are here
    int64_t consumed = 0;                                   // of them the first were taken
    int64_t end = -1;                                       // number of items, once known
    std::map<int64_t, std::function<void(Pace)>> withheld;  // by index of the item that was reported
    std::vector<Waiting> waiters;
    Run run;
  };
  static std::vector<std::function<void(Pace)>> AllowedLocked(Stream& stream);
  // Null: there is neither a stream nor a replay.
  Run* RunOfLocked(const TaskId& task) REQUIRES(mu_);
  static ObjectId NextId(const TaskId& task, const Stream& stream) { return ItemId(task, stream.consumed); }

  ObjectService* const objects_;
  const std::function<bool(const ObjectId& item)> held_behind_;
  Mutex mu_;
  std::unordered_map<TaskId, Stream, IdHash> streams_ GUARDED_BY(mu_);
  std::unordered_map<TaskId, Run, IdHash> replays_ GUARDED_BY(mu_);
  uint64_t last_number_ GUARDED_BY(mu_) = 0;  // of a waiter
};

}  // namespace ray::core
