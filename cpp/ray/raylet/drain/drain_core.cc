#include "ray/raylet/drain/drain_core.h"

namespace ray::raylet {

std::string DescribeLoad(const NodeLoad& load) {
  std::string text;
  const auto add = [&text](size_t n, const char* what) {
    if (n == 0) return;
    if (!text.empty()) text += ", ";
    text += std::to_string(n) + what;
  };
  add(load.leases, " leases for tasks and actors");
  add(load.drivers, " drivers");
  add(load.objects, " objects of which it has the primary copy");
  return text;
}

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
  if (leases_ == 0 && workers_ > 0) out->emplace_back(LetWorkersGo{});
  Save(out);
}

std::string DrainCore::BeginIfIdle(const std::string& reason, Duration deadline, const NodeLoad& load, Time now, DrainEffects* out) {
  std::string has = draining() ? "" : DescribeLoad(load);
  if (has.empty()) Begin(reason, deadline, now, out);
  return has;
}

void DrainCore::OnWork(size_t leases, size_t workers, DrainEffects* out) {
  const bool was_idle = IsIdle();
  leases_ = leases;
  workers_ = workers;
  if (state_ != State::kDraining) return;
  if (leases_ == 0 && workers_ > 0) out->emplace_back(LetWorkersGo{});
  if (IsIdle() && !was_idle && !saving_) Save(out);
}

void DrainCore::OnSaved(size_t left, Time now, DrainEffects* out) {
  saving_ = false;
  if (state_ != State::kDraining || !IsIdle()) return;
  if (saw_all_ && left == 0) return BecomeLeaving("nothing runs here, and what was here is elsewhere", out);
  if (!saw_all_) return Save(out);
  retry_at_ = now + kRetry;
}

void DrainCore::Tick(Time now, DrainEffects* out) {
  if (state_ != State::kDraining) return;
  if (now >= deadline_) return BecomeLeaving("the deadline is over", out);
  if (now >= retry_at_ && !saving_) Save(out);
}

void DrainCore::Save(DrainEffects* out) {
  saving_ = true;
  saw_all_ = IsIdle();
  retry_at_ = Time::Infinite();
  out->emplace_back(SaveObjects{});
}

void DrainCore::BecomeLeaving(const std::string& why, DrainEffects* out) {
  state_ = State::kLeaving;
  out->emplace_back(LeaveNode{"drained (" + reason_ + "): " + why});
}

}  // namespace ray::raylet
