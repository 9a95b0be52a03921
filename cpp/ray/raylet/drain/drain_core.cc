#include "ray/raylet/drain/drain_core.h"

namespace ray::raylet {

void DrainCore::Begin(const std::string& reason, Duration deadline, Time now, DrainEffects* out) {
  if (state_ == State::kLeaving) return;
  if (state_ == State::kDraining) {
    if (now + deadline >= deadline_) return;
    deadline_ = now + deadline;
    out->emplace_back(TellGcsDraining{reason_, deadline});
    return;
  }
  state_ = State::kDraining;
  reason_ = reason;
  deadline_ = now + deadline;
  out->emplace_back(StopGrants{});
  out->emplace_back(TellGcsDraining{reason, deadline});
  out->emplace_back(LetWorkersFinish{});
  if (held_ == 0) BecomeLeaving("nothing runs here", out);
}

void DrainCore::OnLeases(size_t held, DrainEffects* out) {
  held_ = held;
  if (state_ == State::kDraining && held == 0) BecomeLeaving("all that ran here has ended", out);
}

void DrainCore::Tick(Time now, DrainEffects* out) {
  if (state_ == State::kDraining && now >= deadline_) BecomeLeaving("the deadline is over", out);
}

void DrainCore::BecomeLeaving(const std::string& why, DrainEffects* out) {
  state_ = State::kLeaving;
  out->emplace_back(LeaveNode{"drained (" + reason_ + "): " + why});
}

}  // namespace ray::raylet
