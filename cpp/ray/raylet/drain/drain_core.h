// DrainCore: how a node leaves without hurting what runs on it.
//
//   serving ──Begin──> draining: nothing new is started ──last lease ended, or the deadline──> leaving (final)
//
// Pure core (architecture.md, section 4): events and time in, effects out, in order. Owned by Raylet; on the loop.
#pragma once

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
struct LeaveNode {
  std::string reason;
};
using DrainEffect = std::variant<StopGrants, TellGcsDraining, LetWorkersFinish, LeaveNode>;
using DrainEffects = std::vector<DrainEffect>;

class DrainCore {
 public:
  // A second order can only bring the deadline nearer.
  void Begin(const std::string& reason, Duration deadline, Time now, DrainEffects* out);
  // So many leases are held now, those of actors included.
  void OnLeases(size_t held, DrainEffects* out);
  void Tick(Time now, DrainEffects* out);
  // When Tick has something to do next; infinite if nothing.
  Time NextDeadline() const { return state_ == State::kDraining ? deadline_ : Time::Infinite(); }
  bool draining() const { return state_ != State::kServing; }

 private:
  enum class State { kServing, kDraining, kLeaving };
  void BecomeLeaving(const std::string& why, DrainEffects* out);

  State state_ = State::kServing;
  size_t held_ = 0;
  std::string reason_;
  Time deadline_ = Time::Infinite();
};

}  // namespace ray::raylet
