// HandoverCore: how a process that leaves in good order hands its objects over (docs/architecture/ownership.md, "Leaving in good order").
//
//   begun: the adopter takes the objects ──all taken──> moved: borrowers are told ──all know, or time is up──> counts go to the adopter ──taken──> done
//        └── refused, or time is up ──> failed: they end with their owner
//
// Pure core (docs/contributing/style.md): events and time in, effects out, in order. Owned by Handover; on the loop.
#pragma once

#include <cstddef>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "ray/common/address.h"
#include "ray/util/clock.h"
#include "ray/util/status.h"

namespace ray::core {

struct HandoverConfig {
  Duration adopt_timeout = std::chrono::seconds(30);  // longer: large objects of a node that leaves, too, can be brought elsewhere
  Duration tell_timeout =
      std::chrono::seconds(2);  // who does not answer asks the adopter once the owner is gone; its counts may then stay too high
  Duration count_timeout = std::chrono::seconds(2);
};

// Effects, to be carried out in order.
struct SendObjects {
  size_t batch = 0;
};
struct AnswerHeld {  // requests of borrowers that came meanwhile, and later ones: ask the adopter; or, as ever
  bool moved = false;
};
struct TellBorrower {
  Address borrower;
};
struct SendCounts {};
struct HandoverEnded {
  bool done = false;
  std::string why;  // not done
};
using HandoverEffect = std::variant<SendObjects, AnswerHeld, TellBorrower, SendCounts, HandoverEnded>;
using HandoverEffects = std::vector<HandoverEffect>;

class HandoverCore {
 public:
  explicit HandoverCore(HandoverConfig config) : config_(config) {}

  // Once. REQUIRES: at least one batch.
  void Begin(size_t batches, std::vector<Address> borrowers, Time now, HandoverEffects* out);
  void OnTaken(size_t batch, const Status& status, Time now, HandoverEffects* out);
  // It knows, or is gone, or cannot be reached.
  void OnTold(const WorkerId& borrower, Time now, HandoverEffects* out);
  void OnCounted(const Status& status, HandoverEffects* out);
  void Tick(Time now, HandoverEffects* out);
  // The adopter's answers to the objects, and to the counts, are waited for.
  bool taking() const { return state_ == State::kBegun; }
  bool counting() const { return state_ == State::kCounting; }
  // When Tick has something to do next; infinite if nothing.
  Time NextDeadline() const { return deadline_; }

 private:
  enum class State { kNew, kBegun, kMoved, kCounting, kEnded };
  void BecomeMoved(Time now, HandoverEffects* out);
  void BecomeCounting(Time now, HandoverEffects* out);
  void BecomeEnded(bool done, std::string why, HandoverEffects* out);

  const HandoverConfig config_;
  State state_ = State::kNew;
  Time deadline_ = Time::Infinite();
  std::set<size_t> not_taken_;
  std::vector<Address> borrowers_;
  std::set<WorkerId> untold_;
};

}  // namespace ray::core
