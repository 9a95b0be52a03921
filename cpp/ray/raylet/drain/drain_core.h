// DrainCore: how a node leaves without hurting what runs on it, or losing what only it has.
//
//   serving ──Begin──> draining: nothing new is started ──nothing runs, workers have left, objects are elsewhere; or the deadline──> leaving (final)
//
// Objects are saved in passes: one at once, since bytes take time, and further ones when all work and its workers have ended, until one finds nothing
// that is only here. (What a worker owns is handed over as it leaves, so its objects can be saved only then.)
//
// Pure core (docs/contributing/style.md): events and time in, effects out, in order. Owned by NodeDrain; on the loop.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <variant>
#include <vector>

#include "ray/util/clock.h"

namespace ray::raylet {

// Effects, to be carried out in order.
struct StopGrants {};  // what waits here, or comes, is sent elsewhere or waits in vain
struct TellGcsDraining {
  std::string reason;
  Duration left;  // until the deadline
};
struct LetWorkersFinish {};  // workers of tasks end once they have done what they have
struct LetWorkersGo {};      // nothing runs: all workers end, those that are asked already stay so
struct SaveObjects {};       // one pass; then OnSaved
struct LeaveNode {
  std::string reason;
};
using DrainEffect = std::variant<StopGrants, TellGcsDraining, LetWorkersFinish, LetWorkersGo, SaveObjects, LeaveNode>;
using DrainEffects = std::vector<DrainEffect>;

// What keeps a node from being idle.
struct NodeLoad {
  size_t leases = 0;   // held, those of actors included
  size_t drivers = 0;  // connected here
  size_t objects = 0;  // primary copies, in memory or spilled
};
// For people; empty: the node is idle.
std::string DescribeLoad(const NodeLoad& load);

class DrainCore {
 public:
  // A second order can only bring the deadline nearer.
  void Begin(const std::string& reason, Duration deadline, Time now, DrainEffects* out);
  // The same if the node has nothing, or drains already. Else it stays as it is, and what it has is said; empty: it drains.
  std::string BeginIfIdle(const std::string& reason, Duration deadline, const NodeLoad& load, Time now, DrainEffects* out);
  // So many leases are held now, those of actors included, and so many workers live.
  void OnWork(size_t leases, size_t workers, DrainEffects* out);
  // A pass has ended; of `left` objects this node still has the only copy.
  void OnSaved(size_t left, Time now, DrainEffects* out);
  void Tick(Time now, DrainEffects* out);
  // When Tick has something to do next; infinite if nothing.
  Time NextDeadline() const { return state_ == State::kDraining ? std::min(deadline_, retry_at_) : Time::Infinite(); }
  bool draining() const { return state_ != State::kServing; }

 private:
  static constexpr Duration kRetry = std::chrono::milliseconds(200);  // after a pass that left something
  enum class State { kServing, kDraining, kLeaving };
  bool IsIdle() const { return leases_ == 0 && workers_ == 0; }
  void Save(DrainEffects* out);
  void BecomeLeaving(const std::string& why, DrainEffects* out);

  State state_ = State::kServing;
  size_t leases_ = 0, workers_ = 0;
  bool saving_ = false;   // a pass is under way
  bool saw_all_ = false;  // it began when nothing ran any more
  std::string reason_;
  Time deadline_ = Time::Infinite();
  Time retry_at_ = Time::Infinite();
};

}  // namespace ray::raylet
