// DeathNotes: why workers ended, as the raylet tells it, for the messages of errors. A connection breaks before the raylet has reaped the process,
// so whoever needs the reason waits for it a moment.
#pragma once

#include <deque>
#include <functional>
#include <string>
#include <unordered_map>
#include <vector>

#include "ray/async/loop.h"
#include "ray/common/ids.h"
#include "ray/util/mutex.h"

namespace ray::core {

struct DeathNote {
  std::string detail = "its connection broke";
  bool out_of_memory = false, intended = false;
  bool with_node = false;  // its node has died, or stops
};

// Thread-safe. The loop must outlive it, and stop before it goes.
class DeathNotes {
 public:
  explicit DeathNotes(async::Loop* loop) : loop_(loop) {}
  void Add(const WorkerId& worker, DeathNote note);
  // `callback` with the reason once it is known, at the latest after half a second, on the loop; at once if it is known.
  void WhenKnown(const WorkerId& worker, std::function<void(const DeathNote&)> callback);

 private:
  static constexpr Duration kPatience = std::chrono::milliseconds(500);
  static constexpr size_t kKept = 1024;
  void Expire(const WorkerId& worker);

  async::Loop* const loop_;
  Mutex mu_;
  std::unordered_map<WorkerId, DeathNote, IdHash> notes_ GUARDED_BY(mu_);
  std::deque<WorkerId> order_ GUARDED_BY(mu_);
  std::unordered_map<WorkerId, std::vector<std::function<void(const DeathNote&)>>, IdHash> waiting_ GUARDED_BY(mu_);
};

}  // namespace ray::core
