#include "ray/core_worker/objects/handover_core.h"

#include <utility>

namespace ray::core {

void HandoverCore::Begin(size_t batches, std::vector<Address> borrowers, Time now, HandoverEffects* out) {
  if (state_ != State::kNew) return;
  state_ = State::kBegun;
  borrowers_ = std::move(borrowers);
  deadline_ = now + config_.adopt_timeout;
  for (size_t batch = 0; batch < batches; ++batch) {
    not_taken_.insert(batch);
    out->emplace_back(SendObjects{batch});
  }
}

void HandoverCore::OnTaken(size_t batch, const Status& status, Time now, HandoverEffects* out) {
  if (state_ != State::kBegun) return;
  if (!status.ok()) return BecomeEnded(false, "the adopter does not take them: " + status.message(), out);
  not_taken_.erase(batch);
  if (not_taken_.empty()) BecomeMoved(now, out);
}

void HandoverCore::OnTold(const WorkerId& borrower, Time now, HandoverEffects* out) {
  if (state_ != State::kMoved || untold_.erase(borrower) == 0) return;
  if (untold_.empty()) BecomeCounting(now, out);
}

void HandoverCore::OnCounted(const Status& status, HandoverEffects* out) {
  if (state_ != State::kCounting) return;
  BecomeEnded(status.ok(), status.ok() ? "" : "the adopter may not know who holds them: " + status.message(), out);
}

void HandoverCore::Tick(Time now, HandoverEffects* out) {
  if (now < deadline_) return;
  switch (state_) {
    case State::kBegun: return BecomeEnded(false, "the adopter took too long", out);
    case State::kMoved: return BecomeCounting(now, out);
    case State::kCounting: return BecomeEnded(false, "the adopter did not answer in time", out);
    default: return;
  }
}

void HandoverCore::BecomeMoved(Time now, HandoverEffects* out) {
  state_ = State::kMoved;
  deadline_ = now + config_.tell_timeout;
  out->emplace_back(AnswerHeld{true});
  for (const Address& borrower : borrowers_) {
    untold_.insert(borrower.worker_id);
    out->emplace_back(TellBorrower{borrower});
  }
  if (untold_.empty()) BecomeCounting(now, out);
}

void HandoverCore::BecomeCounting(Time now, HandoverEffects* out) {
  state_ = State::kCounting;
  deadline_ = now + config_.count_timeout;
  out->emplace_back(SendCounts{});
}

void HandoverCore::BecomeEnded(bool done, std::string why, HandoverEffects* out) {
  if (state_ == State::kBegun) out->emplace_back(AnswerHeld{false});
  state_ = State::kEnded;
  deadline_ = Time::Infinite();
  out->emplace_back(HandoverEnded{done, std::move(why)});
}

}  // namespace ray::core
