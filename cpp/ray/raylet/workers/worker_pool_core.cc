#include "ray/raylet/workers/worker_pool_core.h"

#include <algorithm>

namespace ray::raylet {

std::string_view WorkerStateName(WorkerState state) {
  switch (state) {
    case WorkerState::kStarting: return "starting";
    case WorkerState::kIdle: return "idle";
    case WorkerState::kLeased: return "leased";
    case WorkerState::kActor: return "actor";
    case WorkerState::kLeaving: return "leaving";
  }
  return "unknown";
}

WorkerPoolCore::WorkerPoolCore(WorkerPoolConfig config, std::function<WorkerId()> new_id) : config_(config), new_id_(std::move(new_id)) {}

void WorkerPoolCore::Pop(const LeaseId& lease, const WorkerKey& key, bool fresh, bool actor, Time now, PoolEffects* out) {
  Pool& pool = pools_[key];
  const Waiting wanted{lease, fresh, actor};
  // The most recently used one; where it must not have run anything, the most recent such.
  for (size_t i = pool.idle.size(); i-- > 0;) {
    const WorkerId id = pool.idle[i];
    Worker& worker = workers_.at(id);
    if ((fresh && !worker.fresh) || (actor && worker.kept())) continue;
    pool.idle.erase(pool.idle.begin() + static_cast<std::ptrdiff_t>(i));
    if (!worker.kept()) idle_since_.erase(worker.since);
    Assign(id, &worker, wanted, now, out);
    return;
  }
  pool.waiting.push_back(wanted);
  ++num_waiting_;
  StartMore(now, out);
}

bool WorkerPoolCore::CancelPop(const LeaseId& lease) {
  for (auto& [key, pool] : pools_) {
    const auto it = std::find_if(pool.waiting.begin(), pool.waiting.end(), [&](const Waiting& w) { return w.lease == lease; });
    if (it == pool.waiting.end()) continue;
    pool.waiting.erase(it);
    --num_waiting_;
    DropPoolIfUnused(WorkerKey(key));
    return true;
  }
  return false;
}

bool WorkerPoolCore::Registered(const WorkerId& id, uint64_t token, Time now, PoolEffects* out) {
  const auto it = workers_.find(id);
  if (it == workers_.end() || it->second.state != WorkerState::kStarting || it->second.token != token || it->second.overdue) return false;
  Pool& pool = pools_[it->second.key];
  starting_.erase(token);
  --pool.starting;
  pool.failed_starts = pool.killed_starts = 0;
  ForgetRefusals();
  BecomeFree(id, &it->second, now, out);
  StartMore(now, out);
  return true;
}

void WorkerPoolCore::BecomeFree(const WorkerId& id, Worker* worker, Time now, PoolEffects* out) {
  Pool& pool = pools_[worker->key];
  const auto waiting = std::find_if(pool.waiting.begin(), pool.waiting.end(),
                                    [&](const Waiting& w) { return (worker->fresh || !w.fresh) && !(w.actor && worker->kept()); });
  if (waiting != pool.waiting.end()) {
    const Waiting to = *waiting;
    pool.waiting.erase(waiting);
    --num_waiting_;
    Assign(id, worker, to, now, out);
    return;
  }
  if (finished_jobs_.contains(worker->key.job)) {
    worker->state = WorkerState::kLeaving;
    worker->since = now;
    out->emplace_back(WorkerAskExit{id, "its job has ended"});
    return;
  }
  worker->state = WorkerState::kIdle;
  pool.idle.push_back(id);
  while (!worker->kept() && idle_since_.contains(now)) now.ns += 1;
  worker->since = now;
  if (!worker->kept()) idle_since_.emplace(now, id);
}

void WorkerPoolCore::Keep(const WorkerId& id, const ActorId& actor) {
  const auto it = workers_.find(id);
  if (it == workers_.end() || !makers_.emplace(actor, id).second) return;
  Worker& worker = it->second;
  if (worker.state == WorkerState::kIdle && !worker.kept()) idle_since_.erase(worker.since);
  worker.actors.insert(actor);
}

void WorkerPoolCore::ActorEnded(const ActorId& actor, Time now, PoolEffects* out) {
  const auto it = makers_.find(actor);
  if (it == makers_.end()) return;
  const WorkerId id = it->second;
  makers_.erase(it);
  Worker& worker = workers_.at(id);
  worker.actors.erase(actor);
  if (worker.kept() || worker.state != WorkerState::kIdle) return;
  std::erase(pools_[worker.key].idle, id);
  const WorkerKey key = worker.key;
  BecomeFree(id, &worker, now, out);
  DropPoolIfUnused(key);
}

void WorkerPoolCore::Assign(const WorkerId& id, Worker* worker, const Waiting& to, Time now, PoolEffects* out) {
  worker->state = to.actor ? WorkerState::kActor : WorkerState::kLeased;
  worker->fresh = false;
  worker->since = now;
  out->emplace_back(WorkerAssigned{to.lease, id});
}

void WorkerPoolCore::StartMore(Time now, PoolEffects* out) {
  if (resume_at_) return;
  // One start for each waiting request, those of the pool that has the fewest under way first; then the prestarts.
  while (static_cast<int>(starting_.size()) < config_.max_parallel_starts) {
    std::map<WorkerKey, Pool>::iterator best = pools_.end();
    for (auto it = pools_.begin(); it != pools_.end(); ++it) {
      if (static_cast<int>(it->second.waiting.size()) <= it->second.starting) continue;
      if (best == pools_.end() || it->second.starting < best->second.starting) best = it;
    }
    if (best == pools_.end()) {
      best = std::find_if(pools_.begin(), pools_.end(), [](const auto& p) { return p.second.prestart > 0; });
      if (best == pools_.end()) return;
    }
    if (best->second.prestart > 0) --best->second.prestart;  // a start for a request serves as a prestart too
    Start(best->first, &best->second, now, out);
  }
}

void WorkerPoolCore::Start(const WorkerKey& key, Pool* pool, Time now, PoolEffects* out) {
  const WorkerId id = new_id_();
  Worker worker;
  worker.key = key;
  worker.token = next_token_++;
  worker.since = now;
  starting_.emplace(worker.token, id);
  ++pool->starting;
  out->emplace_back(WorkerFork{worker.token, id, key});
  workers_.emplace(id, std::move(worker));
}

void WorkerPoolCore::Returned(const WorkerId& id, bool reusable, Time now, PoolEffects* out) {
  const auto it = workers_.find(id);
  if (it == workers_.end() || (it->second.state != WorkerState::kLeased && it->second.state != WorkerState::kActor)) return;
  if (!reusable || it->second.state == WorkerState::kActor) {
    it->second.state = WorkerState::kLeaving;
    it->second.since = now;
    return;
  }
  BecomeFree(id, &it->second, now, out);
}

void WorkerPoolCore::Died(const WorkerId& id, const std::string& detail, WorkerEnd how, Time now, PoolEffects* out) {
  const auto it = workers_.find(id);
  if (it == workers_.end()) return;
  const Worker worker = std::move(it->second);
  workers_.erase(it);
  for (const ActorId& actor : worker.actors) makers_.erase(actor);
  Pool& pool = pools_[worker.key];
  if (worker.state == WorkerState::kIdle) {
    if (!worker.kept()) idle_since_.erase(worker.since);
    std::erase(pool.idle, id);
  } else if (worker.state == WorkerState::kStarting) {
    starting_.erase(worker.token);
    --pool.starting;
    if (!worker.unwanted) {
      if (how == WorkerEnd::kRefused) {
        RefuseStart(worker.key, detail, now, out);
      } else if (worker.overdue) {
        const std::string seconds = std::to_string(config_.register_timeout / std::chrono::seconds(1));
        FailStart(worker.key, "it did not register within " + seconds + " s", WorkerEnd::kFailed, out);
      } else {
        FailStart(worker.key, detail, how, out);
      }
    }
  }
  StartMore(now, out);
  DropPoolIfUnused(worker.key);
}

void WorkerPoolCore::FailStart(const WorkerKey& key, const std::string& detail, WorkerEnd how, PoolEffects* out) {
  Pool& pool = pools_[key];
  pool.prestart = 0;
  const bool killed = how == WorkerEnd::kKilled;
  if (killed ? ++pool.killed_starts < config_.max_killed_starts : ++pool.failed_starts < config_.max_start_attempts) return;
  FailWaiting(&pool, detail, out);
}

void WorkerPoolCore::RefuseStart(const WorkerKey& key, const std::string& detail, Time now, PoolEffects* out) {
  Pool& pool = pools_[key];
  pool.prestart = 0;
  refusal_ = detail;
  if (!resume_at_) {  // else this start was under way with one that was refused
    pause_ = std::clamp(pause_ * 2, config_.min_pause, config_.max_pause);
    resume_at_ = now + pause_;
  }
  if (pool.waiting.empty()) {
    pool.refused_since.reset();
    return;
  }
  if (!pool.refused_since) pool.refused_since = now;
  // Those that run will become free, or make room when they end.
  const bool has_others = std::ranges::any_of(
      workers_, [&](const auto& entry) { return entry.second.key == key && entry.second.state != WorkerState::kStarting; });
  if (!has_others && now - *pool.refused_since >= config_.patience) {
    FailWaiting(&pool, detail, out);
  } else if (told_.insert(key.job).second) {
    out->emplace_back(WorkersHeldUp{key.job, detail});
  }
}

void WorkerPoolCore::FailWaiting(Pool* pool, const std::string& detail, PoolEffects* out) {
  pool->failed_starts = pool->killed_starts = 0;
  pool->refused_since.reset();
  for (const auto& waiting : pool->waiting) {
    out->emplace_back(WorkerPopFailed{waiting.lease, "a worker process could not be started: " + detail, false});
  }
  num_waiting_ -= pool->waiting.size();
  pool->waiting.clear();
}

void WorkerPoolCore::DropPoolIfUnused(const WorkerKey& key) {
  const auto it = pools_.find(key);
  if (it == pools_.end()) return;
  const Pool& pool = it->second;
  if (pool.idle.empty() && pool.waiting.empty() && pool.starting == 0 && pool.prestart == 0) pools_.erase(it);
}

void WorkerPoolCore::JobStarted(const JobId& job, Time now, PoolEffects* out) {
  pools_[WorkerKey{job, ""}].prestart = config_.prestart;
  StartMore(now, out);
  DropPoolIfUnused(WorkerKey{job, ""});
}

void WorkerPoolCore::JobFinished(const JobId& job, const std::function<bool(const WorkerId&)>& keep_worker,
                                 const std::function<bool(const LeaseId&)>& keep_lease, Time now, PoolEffects* out) {
  finished_jobs_.insert(job);
  for (auto it = pools_.begin(); it != pools_.end();) {
    if (it->first.job != job) {
      ++it;
      continue;
    }
    Pool& pool = it->second;
    std::deque<Waiting> kept;
    for (const auto& waiting : pool.waiting) {
      if (keep_lease(waiting.lease)) {
        kept.push_back(waiting);
      } else {
        out->emplace_back(WorkerPopFailed{waiting.lease, "its job has ended", true});
      }
    }
    num_waiting_ -= pool.waiting.size() - kept.size();
    pool.waiting = std::move(kept);
    pool.prestart = 0;
    for (const auto& id : pool.idle) {
      if (const Worker& idle = workers_.at(id); !idle.kept()) idle_since_.erase(idle.since);
    }
    pool.idle.clear();
    const WorkerKey key = it->first;
    ++it;
    DropPoolIfUnused(key);
  }
  std::vector<WorkerId> victims;
  for (const auto& [id, worker] : workers_) {
    if (worker.key.job == job && !keep_worker(id)) victims.push_back(id);
  }
  std::sort(victims.begin(), victims.end());
  for (const auto& id : victims) {
    Worker& worker = workers_.at(id);
    if (worker.state == WorkerState::kStarting) {
      worker.overdue = worker.unwanted = true;  // it may still come up before the kill reaches it
    } else {
      worker.state = WorkerState::kLeaving;
      worker.since = now;
    }
    out->emplace_back(WorkerKill{id, "its job has ended"});
  }
  StartMore(now, out);
}

void WorkerPoolCore::Tick(Time now, PoolEffects* out) {
  for (const auto& [token, id] : starting_) {
    Worker& worker = workers_.at(id);
    if (worker.overdue || now < worker.since + config_.register_timeout) continue;
    worker.overdue = true;
    out->emplace_back(WorkerKill{id, "it did not register in time"});
  }
  while (static_cast<int>(idle_since_.size()) > config_.max_idle) {
    const auto [since, id] = *idle_since_.begin();
    if (now < since + config_.idle_timeout) break;
    idle_since_.erase(idle_since_.begin());
    Worker& worker = workers_.at(id);
    std::erase(pools_[worker.key].idle, id);
    worker.state = WorkerState::kLeaving;
    worker.since = now;
    out->emplace_back(WorkerAskExit{id, "idle"});
    DropPoolIfUnused(worker.key);
  }
  if (resume_at_ && now >= *resume_at_) {
    resume_at_.reset();
    if (num_waiting_ == 0) ForgetRefusals();
    StartMore(now, out);
  }
}

void WorkerPoolCore::ForgetRefusals() {
  refusal_.clear();
  pause_ = Duration::zero();
  resume_at_.reset();
  told_.clear();
  for (auto& [key, pool] : pools_) pool.refused_since.reset();
}

Time WorkerPoolCore::NextDeadline() const {
  Time next = resume_at_.value_or(Time::Infinite());
  for (const auto& [token, id] : starting_) {
    const Worker& worker = workers_.at(id);
    if (!worker.overdue) next = std::min(next, worker.since + config_.register_timeout);
  }
  if (static_cast<int>(idle_since_.size()) > config_.max_idle) next = std::min(next, idle_since_.begin()->first + config_.idle_timeout);
  return next;
}

std::optional<WorkerState> WorkerPoolCore::StateOf(const WorkerId& worker) const {
  const auto it = workers_.find(worker);
  return it == workers_.end() ? std::nullopt : std::optional(it->second.state);
}

std::optional<WorkerKey> WorkerPoolCore::KeyOf(const WorkerId& worker) const {
  const auto it = workers_.find(worker);
  return it == workers_.end() ? std::nullopt : std::optional(it->second.key);
}

std::map<WorkerState, int> WorkerPoolCore::CountByState() const {
  std::map<WorkerState, int> counts;
  for (const auto& [id, worker] : workers_) ++counts[worker.state];
  return counts;
}

}  // namespace ray::raylet
