// RunQueueCore: in which order a worker runs what was pushed to it, and how much at once.
//
// Normal tasks: one at a time, in the order of arrival among those whose arguments are here; one that is `in_order` is not overtaken. Actor calls: started in the order of their numbers
// per caller (a connection and an epoch on it), an earlier one whose arguments are late holding up the later ones of that caller only; calls marked
// out_of_order start as soon as they can. At most as many run at once as their concurrency group allows.
//
// Pure; not thread-safe, its shell holds a lock.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

namespace ray::core {

using RunNo = uint64_t;  // names a received task; opaque here

class RunQueueCore {
 public:
  RunQueueCore() { groups_.push_back({"", 1}); }
  // Limits of an actor, at its creation. Group 0 is the default one.
  void Configure(int32_t max_concurrency, const std::vector<std::pair<std::string, int32_t>>& groups);

  // A normal task or a creation. `ready`: its arguments are here. `in_order`: those behind it do not start before it.
  void AddTask(RunNo run, bool ready, bool in_order);
  // An actor call. False: a number already seen, or of an epoch that is over: not added. An unknown group counts as the default one.
  bool AddCall(RunNo run, uint64_t caller, uint64_t epoch, uint64_t sequence, const std::string& group, bool out_of_order, bool ready);
  void SetReady(RunNo run);
  // What to start now; it counts as running until Finished.
  std::optional<RunNo> Next();
  void Finished(RunNo run);
  // Not started: forgets it. False: running or unknown.
  bool Remove(RunNo run);
  // Forgets up to `max` unstarted normal tasks (0: all), the latest first, and returns them.
  std::vector<RunNo> TakeUnstarted(uint32_t max);
  // The caller is gone: what waits for numbers that will not come is forgotten and returned.
  std::vector<RunNo> DropCaller(uint64_t caller);

  // What Next would return, but for cases that need a longer look.
  std::optional<RunNo> Peek() const;
  bool HasRunnable() const;
  // Whether there is something to run, and all of it waits for its arguments: nothing runs, nothing could. Looks through the queue.
  bool IsStalled() const;
  size_t unstarted() const { return items_.size() - running_; }
  size_t running() const { return running_; }
  size_t num_callers() const { return callers_.size(); }

 private:
  struct Item {
    bool call = false, ready = false, released = false, running = false, out_of_order = false, in_order = false;
    size_t group = 0;
    uint64_t caller = 0, sequence = 0;
  };
  struct Group {
    std::string name;
    int32_t limit;
    int32_t running = 0;
    std::deque<RunNo> runnable;
  };
  struct Caller {
    uint64_t epoch = 0;
    uint64_t next = 0;                  // every number below was released
    std::map<uint64_t, RunNo> waiting;  // numbers >= next that wait for their turn or their arguments
    std::set<uint64_t> passed;          // numbers > next that need no turn any more
    bool gone = false;                  // forgotten once nothing of it waits
  };
  void Release(RunNo run, Item& item);
  void Advance(Caller& caller);
  void Advance(uint64_t caller_no);

  std::vector<Group> groups_;
  std::unordered_map<RunNo, Item> items_;
  std::unordered_map<uint64_t, Caller> callers_;
  std::deque<RunNo> tasks_;  // normal tasks, not started, in order of arrival; holds forgotten ones until they are met
  size_t running_ = 0;
};

}  // namespace ray::core
