#include "ray/core_worker/submit/lease_pool_core.h"

#include <algorithm>

#include "ray/util/check.h"

namespace ray::core {

int64_t LeasePoolCore::CostOf(uint64_t template_key) const {
  auto it = cost_ns_.find(template_key);
  return it == cost_ns_.end() ? config_.unknown_cost.count() : it->second;
}

void LeasePoolCore::SetFanOut(ClassNo cls, uint32_t requests, Time now, LeaseEffects* out) {
  Class& c = classes_[cls];
  if (c.fan_out == requests) return;
  c.fan_out = requests;
  AdjustRequests(cls, c, now, out);
}

void LeasePoolCore::Submit(TaskNo task, ClassNo cls, uint64_t template_key, Time now, LeaseEffects* out) {
  Class& c = classes_[cls];
  c.queued.push_back({task, template_key});
  Pump(cls, c, now, out);
}

bool LeasePoolCore::Forget(ClassNo cls) {
  const auto it = classes_.find(cls);
  if (it == classes_.end()) return true;
  const Class& c = it->second;
  if (!c.queued.empty() || !c.leases.empty() || !c.requests.empty()) return false;
  classes_.erase(it);
  return true;
}

bool LeasePoolCore::RemoveQueued(TaskNo task, ClassNo cls, Time now, LeaseEffects* out) {
  auto it = classes_.find(cls);
  if (it == classes_.end()) return false;
  auto& queued = it->second.queued;
  auto q = std::find_if(queued.begin(), queued.end(), [&](const Queued& x) { return x.task == task; });
  if (q == queued.end()) return false;
  queued.erase(q);
  AdjustRequests(cls, it->second, now, out);
  return true;
}

void LeasePoolCore::Granted(LeaseNo no, Time now, LeaseEffects* out) {
  auto r = requests_.find(no);
  RAY_CHECK(r != requests_.end());
  ClassNo cls = r->second;
  requests_.erase(r);
  Class& c = classes_[cls];
  c.requests.erase(no);
  c.backoff = Duration::zero();
  c.retry_at = Time{};
  auto lease = std::make_unique<Lease>();
  lease->no = no;
  lease->cls = cls;
  lease->idle_since = now;
  c.leases.push_back(lease.get());
  leases_.emplace(no, std::move(lease));
  Pump(cls, c, now, out);
}

void LeasePoolCore::Refused(LeaseNo no, bool cancelled, bool for_good, Time now, LeaseEffects* out) {
  auto r = requests_.find(no);
  if (r == requests_.end()) return;
  ClassNo cls = r->second;
  requests_.erase(r);
  Class& c = classes_[cls];
  c.requests.erase(no);
  if (for_good) {
    auto queued = std::move(c.queued);
    c.queued.clear();
    for (const Queued& q : queued) out->push_back({.kind = LeaseEffect::kFail, .cls = cls, .lease = no, .task = q.task});
  } else if (!cancelled) {
    c.backoff = std::clamp(c.backoff * 2, config_.backoff_min, config_.backoff_max);
    c.retry_at = now + c.backoff;
  }
  Pump(cls, c, now, out);
}

bool LeasePoolCore::Take(Lease& lease, TaskNo task, Pushed* out) {
  // Answers come in the order of the pushes but for tasks whose arguments were late: the first few are looked at.
  for (auto it = lease.pushed.begin(); it != lease.pushed.end(); ++it) {
    if (it->task != task) continue;
    *out = *it;
    lease.cost_ns -= it->cost_ns;
    lease.pushed.erase(it);
    return true;
  }
  return false;
}

void LeasePoolCore::AfterAnswer(Lease& lease, Time now) {
  lease.stealing = false;
  lease.head_since = now;
  if (lease.pushed.empty()) {
    lease.idle_since = now;
    lease.parked = false;
  }
}

void LeasePoolCore::Done(LeaseNo no, TaskNo task, Duration run, bool worker_exiting, Time now, LeaseEffects* out) {
  auto it = leases_.find(no);
  if (it == leases_.end()) return;
  Lease& lease = *it->second;
  Pushed pushed;
  if (!Take(lease, task, &pushed)) return;
  if (run > Duration::zero()) {
    // Programs may make templates without end; what is forgotten is measured anew.
    if (cost_ns_.size() >= config_.max_costs && !cost_ns_.contains(pushed.template_key)) cost_ns_.clear();
    auto [cost, fresh] = cost_ns_.try_emplace(pushed.template_key, run.count());
    // A rise is believed at once in part, so that one long run stops the pipelining behind it; a fall slowly.
    if (!fresh) cost->second += (run.count() - cost->second) / (run.count() > cost->second ? 2 : 8);
  }
  lease.parked = false;
  lease.exiting |= worker_exiting;
  AfterAnswer(lease, now);
  ClassNo cls = lease.cls;
  Class& c = classes_[cls];
  if ((!lease.IsOpen() || c.single_use) && lease.pushed.empty()) Drop(&lease, false, out);
  Pump(cls, c, now, out);
}

void LeasePoolCore::Returned(LeaseNo no, TaskNo task, Time now, LeaseEffects* out) {
  auto it = leases_.find(no);
  if (it == leases_.end()) return;
  Lease& lease = *it->second;
  Pushed pushed;
  if (!Take(lease, task, &pushed)) return;
  Class& c = classes_[lease.cls];
  ClassNo cls = lease.cls;
  c.queued.push_front({pushed.task, pushed.template_key});
  Time head_since = lease.head_since;
  AfterAnswer(lease, now);
  if (!lease.pushed.empty()) {
    lease.head_since = head_since;  // its head goes on
    lease.parked = true;
  } else if (!lease.IsOpen()) {
    Drop(&lease, false, out);
  }
  Pump(cls, c, now, out);
}

void LeasePoolCore::WorkersLost(std::span<const LeaseNo> numbers, bool heard_all, Time now, LeaseEffects* out) {
  std::vector<ClassNo> classes;
  for (const LeaseNo no : numbers) {
    if (const auto it = leases_.find(no); it != leases_.end()) classes.push_back(LoseWorker(*it->second, heard_all, out));
  }
  for (const ClassNo cls : classes) Pump(cls, classes_[cls], now, out);
}

ClassNo LeasePoolCore::LoseWorker(Lease& lease, bool heard_all, LeaseEffects* out) {
  const LeaseNo no = lease.no;
  const ClassNo cls = lease.cls;
  Class& c = classes_[cls];
  // With all answers here the head is what ran: a worker starts tasks in the order of their pushes, and tells of each that is done before it starts the next. Where they may
  // be run again and none of them was lost before, it may keep back the replies to some, or start one whose arguments are there ahead of the head
  // (RunQueueCore): then the head is charged although another ran. That costs a task one retry at most.
  auto pushed = std::move(lease.pushed);
  lease.pushed.clear();
  const size_t begun = heard_all ? std::min<size_t>(pushed.size(), 1) : pushed.size();
  for (size_t i = pushed.size(); i-- > begun;) c.queued.push_front({pushed[i].task, pushed[i].template_key});
  bool exiting = lease.exiting;
  Drop(&lease, !exiting, out);
  for (size_t i = 0; i < begun; ++i) out->push_back({.kind = LeaseEffect::kLost, .cls = cls, .lease = no, .task = pushed[i].task});
  return cls;
}

void LeasePoolCore::Drop(Lease* lease, bool failed, LeaseEffects* out) {
  out->push_back(
      {.kind = LeaseEffect::kReturn, .cls = lease->cls, .lease = lease->no, .worker_failed = failed, .worker_exiting = lease->exiting});
  std::erase(classes_[lease->cls].leases, lease);
  leases_.erase(lease->no);
}

void LeasePoolCore::PushTo(Lease& lease, const Queued& q, Time now, LeaseEffects* out) {
  if (lease.pushed.empty()) lease.head_since = now;
  int64_t cost = CostOf(q.template_key);
  lease.cost_ns += cost;
  lease.pushed.push_back({q.task, q.template_key, cost});
  out->push_back({.kind = LeaseEffect::kPush, .cls = lease.cls, .lease = lease.no, .task = q.task});
}

void LeasePoolCore::Pump(ClassNo no, Class& c, Time now, LeaseEffects* out) {
  while (!c.queued.empty()) {
    Lease* best = nullptr;
    int64_t cost = CostOf(c.queued.front().template_key);
    for (Lease* lease : c.leases) {
      if (!lease->IsOpen() || lease->parked) continue;
      if (lease->pushed.empty()) {
        best = lease;
        break;
      }
      if (c.single_use) continue;
      if (lease->cost_ns + cost > config_.pipeline_budget.count() || lease->pushed.size() >= config_.max_depth || Overdue(*lease, now))
        continue;
      if (best == nullptr || lease->cost_ns < best->cost_ns) best = lease;
    }
    if (best == nullptr) break;
    Queued q = c.queued.front();
    c.queued.pop_front();
    PushTo(*best, q, now, out);
  }
  if (c.queued.empty()) StealFor(c, now, out);
  AdjustRequests(no, c, now, out);
}

bool LeasePoolCore::Overdue(const Lease& lease, Time now) const { return now - lease.head_since > config_.overdue; }

void LeasePoolCore::StealFor(Class& c, Time now, LeaseEffects* out) {
  size_t idle = 0;
  for (Lease* lease : c.leases) idle += lease->pushed.empty() && lease->IsOpen();
  while (idle-- > 0) {
    Lease* victim = nullptr;
    for (Lease* lease : c.leases) {
      if (lease->pushed.size() < 2 || lease->stealing) continue;
      // What is over in a moment is not worth a round trip, unless the guess has proved wrong.
      if (lease->cost_ns < config_.unknown_cost.count() && !Overdue(*lease, now)) continue;
      if (victim == nullptr || lease->pushed.size() > victim->pushed.size()) victim = lease;
    }
    if (victim == nullptr) return;
    victim->stealing = true;
    bool all = Overdue(*victim, now);
    size_t unstarted = victim->pushed.size() - 1;
    out->push_back({.kind = LeaseEffect::kSteal,
                    .cls = victim->cls,
                    .lease = victim->no,
                    .count = static_cast<uint32_t>(all ? unstarted : (unstarted + 1) / 2)});
  }
}

void LeasePoolCore::AdjustRequests(ClassNo no, Class& c, Time now, LeaseEffects* out) {
  size_t backlog = c.queued.size();
  size_t idle = 0;
  for (Lease* lease : c.leases) {
    if (lease->pushed.size() > 1 && (lease->cost_ns >= config_.unknown_cost.count() || Overdue(*lease, now)))
      backlog += lease->pushed.size() - 1;
    idle += lease->pushed.empty() && lease->IsOpen();
  }
  backlog -= std::min(backlog, idle);
  if (backlog == 0) {
    for (auto it = c.requests.begin(); it != c.requests.end(); ++it) {
      if (it->second.is_infinite()) continue;  // cancelled before
      out->push_back({.kind = LeaseEffect::kCancelRequest, .cls = no, .lease = it->first});
      it->second = Time::Infinite();
    }
    return;
  }
  if (now < c.retry_at) return;
  size_t live = 0;
  for (const auto& [lease, since] : c.requests) live += !since.is_infinite();
  for (size_t want = std::min<size_t>(std::max<size_t>(backlog, c.fan_out), config_.max_requests); live < want; ++live) {
    LeaseNo lease = next_lease_++;
    c.requests.emplace(lease, now);
    requests_.emplace(lease, no);
    out->push_back({.kind = LeaseEffect::kRequest, .cls = no, .lease = lease});
  }
}

void LeasePoolCore::Reclaim(Time, LeaseEffects* out) {
  for (const auto& [no, c] : classes_) ReturnUnused(no, out);
}

void LeasePoolCore::ReturnUnused(ClassNo cls, LeaseEffects* out) {
  const auto it = classes_.find(cls);
  if (it == classes_.end()) return;
  auto& leases = it->second.leases;
  for (size_t i = leases.size(); i-- > 0;) {
    if (leases[i]->pushed.empty()) Drop(leases[i], false, out);
  }
}

void LeasePoolCore::Yield(LeaseNo no, Time now, LeaseEffects* out) {
  const auto it = leases_.find(no);
  if (it == leases_.end() || it->second->yielding) return;
  Lease& lease = *it->second;
  const ClassNo cls = lease.cls;
  lease.yielding = true;
  if (lease.pushed.empty()) {
    Drop(&lease, false, out);
  } else if (lease.pushed.size() > 1) {
    lease.stealing = true;
    out->push_back({.kind = LeaseEffect::kSteal, .cls = cls, .lease = no, .count = static_cast<uint32_t>(lease.pushed.size() - 1)});
  }
  Pump(cls, classes_[cls], now, out);
}

void LeasePoolCore::Tick(Time now, LeaseEffects* out) {
  last_tick_ = now;
  for (auto& [no, c] : classes_) {
    for (size_t i = c.leases.size(); i-- > 0;) {
      Lease* lease = c.leases[i];
      if (!lease->pushed.empty()) {
        if (Overdue(*lease, now)) lease->stealing = false;  // a steal that found nothing may be tried again
      } else if (now - lease->idle_since >= config_.idle_timeout) {
        Drop(lease, false, out);
      }
    }
    Pump(no, c, now, out);
  }
}

Time LeasePoolCore::NextTick() const {
  Time next = Time::Infinite();
  for (const auto& [no, c] : classes_) {
    if (!c.queued.empty() && c.retry_at > last_tick_) next = std::min(next, c.retry_at);
    for (const Lease* lease : c.leases) {
      if (lease->pushed.empty()) {
        next = std::min(next, lease->idle_since + config_.idle_timeout);
      } else if (lease->pushed.size() > 1) {
        next = std::min(next, std::max(lease->head_since + config_.overdue + std::chrono::microseconds(1), last_tick_ + config_.overdue));
      }
    }
  }
  return next;
}

size_t LeasePoolCore::queued(ClassNo cls) const {
  auto it = classes_.find(cls);
  return it == classes_.end() ? 0 : it->second.queued.size();
}

TaskNo LeasePoolCore::WaitsForLatest(ClassNo cls) const {
  auto it = classes_.find(cls);
  if (it == classes_.end() || it->second.requests.empty() || it->second.queued.size() < it->second.requests.size()) return 0;
  return it->second.queued[it->second.requests.size() - 1].task;
}

size_t LeasePoolCore::requests(ClassNo cls) const {
  auto it = classes_.find(cls);
  return it == classes_.end() ? 0 : it->second.requests.size();
}

std::optional<size_t> LeasePoolCore::QueuedBehind(TaskNo task, ClassNo cls) const {
  const auto it = classes_.find(cls);
  if (it == classes_.end()) return std::nullopt;
  const auto& queued = it->second.queued;
  for (size_t i = 0; i < queued.size(); ++i) {
    if (queued[i].task == task) return i;
  }
  return std::nullopt;
}

std::optional<LeasePoolCore::PushedPlace> LeasePoolCore::PlaceOf(LeaseNo no, TaskNo task) const {
  const auto it = leases_.find(no);
  if (it == leases_.end()) return std::nullopt;
  const Lease& lease = *it->second;
  for (size_t i = 0; i < lease.pushed.size(); ++i) {
    if (lease.pushed[i].task == task) return PushedPlace{i, lease.head_since};
  }
  return std::nullopt;
}

std::vector<TaskNo> LeasePoolCore::PushedTo(LeaseNo no) const {
  std::vector<TaskNo> tasks;
  const auto it = leases_.find(no);
  if (it == leases_.end()) return tasks;
  tasks.reserve(it->second->pushed.size());
  for (const Pushed& pushed : it->second->pushed) tasks.push_back(pushed.task);
  return tasks;
}

}  // namespace ray::core
