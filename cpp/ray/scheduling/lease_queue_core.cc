#include "ray/scheduling/lease_queue_core.h"

#include <algorithm>
#include <set>

namespace ray::scheduling {

namespace {
constexpr std::string_view kCpu = "CPU";

WorkerCap::Kind KindOf(const LeaseRequest& request) { return {request.job, request.resources, request.depth}; }
}  // namespace

LeaseQueueCore::LeaseQueueCore(LeaseQueueConfig config, NodeResources resources, SpillPolicy* spill)
    : config_(config),
      resources_(std::move(resources)),
      spill_(spill),
      cap_(config.worker_cap, resources_.total().Get(kCpu)),
      reclaim_backoff_(config.reclaim_interval) {}

bool LeaseQueueCore::Request(LeaseRequest request, Time now, LeaseEffects* out) {
  if (queued_.contains(request.lease) || granted_.contains(request.lease)) return false;
  if (request.strategy == Strategy::kNodeAffinity && request.affinity_node != config_.node) {
    const bool known = spill_ != nullptr && spill_->Knows(request.affinity_node);
    if (known) {
      out->emplace_back(LeaseSpilled{request.lease, request.affinity_node});
      return true;
    }
    if (!request.affinity_soft) {
      out->emplace_back(
          LeaseRefused{request.lease, "it must run on node " + request.affinity_node.Hex() +
                                          ", which is not part of the cluster (NodeAffinitySchedulingStrategy with soft=False)"});
      return true;
    }
  }
  const bool feasible = resources_.Feasible(request.resources);
  if (spill_ != nullptr && (!feasible || !resources_.available().Covers(request.resources))) {
    if (auto node = spill_->Choose(request, feasible)) {
      out->emplace_back(LeaseSpilled{request.lease, *node});
      return true;
    }
  }
  const LeaseId lease = request.lease;
  Enqueue(std::move(request), now);
  Schedule(now, out);
  if (feasible && queued_.contains(lease)) ArmReclaim(now, /*fresh=*/true);
  if (next_reclaim_ <= now) Tick(now, out);
  return true;
}

void LeaseQueueCore::Enqueue(LeaseRequest request, Time now) {
  const ClassKey key(request.resources, request.depth);
  queued_.emplace(request.lease, std::pair(request.job, key));
  auto [it, added] = jobs_[request.job].classes.try_emplace(key);
  if (added) {
    it->second.feasible = resources_.Feasible(request.resources);
    it->second.noticed = noticed_.contains({request.job, request.resources});
    it->second.since = now;
  }
  it->second.queue.push_back(std::move(request));
}

void LeaseQueueCore::Schedule(Time now, LeaseEffects* out) {
  if (!grants_) return;
  // Jobs in turn, one grant each, until a full round brings none. Resources only shrink meanwhile, so that ends.
  size_t idle = 0;
  while (!jobs_.empty() && idle < jobs_.size()) {
    auto it = jobs_.upper_bound(last_job_);
    if (it == jobs_.end()) it = jobs_.begin();
    last_job_ = it->first;
    if (ServeJob(&it->second, now, out)) {
      idle = 0;
      if (it->second.classes.empty()) jobs_.erase(it);
    } else {
      ++idle;
    }
  }
  const bool waiting = std::any_of(jobs_.begin(), jobs_.end(), [](const auto& job) {
    return std::any_of(job.second.classes.begin(), job.second.classes.end(), [](const auto& c) { return c.second.feasible; });
  });
  if (waiting) {
    ArmReclaim(now, /*fresh=*/false);
  } else {
    next_reclaim_ = Time::Infinite();
    reclaim_backoff_ = config_.reclaim_interval;
  }
}

bool LeaseQueueCore::ServeJob(Job* job, Time now, LeaseEffects* out) {
  for (size_t i = 0, n = job->classes.size(); i < n; ++i) {
    auto it = job->classes.upper_bound(job->last_class);
    if (it == job->classes.end()) it = job->classes.begin();
    job->last_class = it->first;
    auto allocation = resources_.Allocate(it->first.first);
    if (!allocation) continue;
    const LeaseRequest& first = it->second.queue.front();
    if (!first.owner.IsNil()) {  // actors live on: they are not capped
      if (!cap_.Allows(KindOf(first), now)) {
        resources_.Release(*allocation);
        continue;
      }
      cap_.Granted(KindOf(first), now);
    }
    LeaseRequest request = std::move(it->second.queue.front());
    it->second.queue.pop_front();
    if (it->second.queue.empty()) job->classes.erase(it);
    queued_.erase(request.lease);
    out->emplace_back(LeaseGranted{request, allocation->instances});
    granted_.emplace(request.lease, Granted{std::move(request), std::move(*allocation), 0});
    return true;
  }
  return false;
}

void LeaseQueueCore::Remove(const LeaseId& lease) {
  const auto found = queued_.find(lease);
  if (found == queued_.end()) return;
  const auto job = jobs_.find(found->second.first);
  const auto cls = job->second.classes.find(found->second.second);
  std::erase_if(cls->second.queue, [&](const LeaseRequest& r) { return r.lease == lease; });
  if (cls->second.queue.empty()) job->second.classes.erase(cls);
  if (job->second.classes.empty()) jobs_.erase(job);
  queued_.erase(found);
}

void LeaseQueueCore::Cancel(const LeaseId& lease, Time now, LeaseEffects* out) {
  if (!queued_.contains(lease)) return;
  Remove(lease);
  out->emplace_back(LeaseCancelled{lease});
  Schedule(now, out);
}

void LeaseQueueCore::Return(const LeaseId& lease, Time now, LeaseEffects* out) {
  const auto it = granted_.find(lease);
  if (it == granted_.end()) return;
  Unblock(lease);
  resources_.Release(it->second.allocation);
  if (!it->second.request.owner.IsNil()) cap_.Returned(KindOf(it->second.request));
  granted_.erase(it);
  Schedule(now, out);
}

void LeaseQueueCore::Shrink(const LeaseId& lease, const ResourceSet& keep, Time now, LeaseEffects* out) {
  const auto it = granted_.find(lease);
  if (it == granted_.end() || !it->second.allocation.amounts.Covers(keep)) return;
  Unblock(lease);
  resources_.ShrinkTo(keep, &it->second.allocation);
  Schedule(now, out);
}

void LeaseQueueCore::Block(const LeaseId& lease, Time now, LeaseEffects* out) {
  const auto it = granted_.find(lease);
  if (it == granted_.end() || it->second.cpu_given_back > 0) return;
  const int64_t cpu = it->second.allocation.amounts.Get(kCpu);
  if (cpu == 0) return;
  it->second.cpu_given_back = cpu;
  resources_.GiveBack(kCpu, cpu);
  Schedule(now, out);
}

void LeaseQueueCore::Unblock(const LeaseId& lease) {
  const auto it = granted_.find(lease);
  if (it == granted_.end() || it->second.cpu_given_back == 0) return;
  resources_.TakeAgain(kCpu, it->second.cpu_given_back);
  it->second.cpu_given_back = 0;
}

void LeaseQueueCore::OwnerDied(const WorkerId& owner, Time now, LeaseEffects* out) {
  std::vector<LeaseId> waiting, held;
  for (const auto& [job, state] : jobs_) {
    for (const auto& [key, cls] : state.classes) {
      for (const auto& request : cls.queue) {
        if (request.owner == owner) waiting.push_back(request.lease);
      }
    }
  }
  for (const auto& lease : waiting) Remove(lease);
  for (const auto& [lease, granted] : granted_) {
    if (granted.request.owner == owner) held.push_back(lease);
  }
  std::sort(held.begin(), held.end());
  // The resources stay taken until the worker has ended and the shell returns the lease.
  for (const auto& lease : held) out->emplace_back(LeaseRevoked{lease});
  Schedule(now, out);
}

void LeaseQueueCore::JobFinished(const JobId& job, const std::function<bool(const WorkerId&)>& keep_owner, Time now, LeaseEffects* out) {
  std::vector<LeaseId> dropped;
  if (const auto it = jobs_.find(job); it != jobs_.end()) {
    for (const auto& [key, cls] : it->second.classes) {
      for (const auto& request : cls.queue) {
        if (!keep_owner(request.owner)) dropped.push_back(request.lease);
      }
    }
  }
  for (const auto& lease : dropped) {
    Remove(lease);
    out->emplace_back(LeaseCancelled{lease});
  }
  std::erase_if(noticed_, [&](const auto& n) { return n.first.first == job; });
  Schedule(now, out);
}

void LeaseQueueCore::ArmReclaim(Time now, bool fresh) {
  if (fresh) {
    reclaim_backoff_ = config_.reclaim_interval;
    next_reclaim_ = std::min(next_reclaim_, std::max(now, last_reclaim_ + config_.reclaim_interval));
  } else if (next_reclaim_.is_infinite()) {
    next_reclaim_ = std::max(now, last_reclaim_ + reclaim_backoff_);
  }
}

void LeaseQueueCore::Tick(Time now, LeaseEffects* out) {
  for (auto& [job, state] : jobs_) {
    for (auto& [key, cls] : state.classes) {
      if (cls.feasible || cls.noticed || now < cls.since + config_.infeasible_notice) continue;
      cls.noticed = true;
      noticed_[{job, key.first}] = true;
      out->emplace_back(InfeasibleNotice{job, InfeasibleMessage(cls, key.first)});
    }
  }
  if (now >= cap_.NextDeadline()) {
    cap_.Tick(now);
    Schedule(now, out);
  }
  if (now < next_reclaim_) return;
  last_reclaim_ = now;
  next_reclaim_ = now + reclaim_backoff_;
  reclaim_backoff_ = std::min(reclaim_backoff_ * 2, config_.max_reclaim_interval);
  std::set<WorkerId> owners;
  for (const auto& [lease, granted] : granted_) {
    if (!granted.request.owner.IsNil()) owners.insert(granted.request.owner);
  }
  if (!owners.empty()) out->emplace_back(ReclaimWanted{{owners.begin(), owners.end()}});
}

Time LeaseQueueCore::NextDeadline() const {
  Time next = std::min(next_reclaim_, cap_.NextDeadline());
  for (const auto& [job, state] : jobs_) {
    for (const auto& [key, cls] : state.classes) {
      if (!cls.feasible && !cls.noticed) next = std::min(next, cls.since + config_.infeasible_notice);
    }
  }
  return next;
}

std::string LeaseQueueCore::InfeasibleMessage(const Class& waiting, const ResourceSet& need) const {
  const std::string& name = waiting.queue.front().task_name;
  std::string lacking;
  for (const auto& [resource, amount] : need.items()) {
    if (resources_.total().Get(resource) < amount) lacking += (lacking.empty() ? "" : ", ") + resource;
  }
  return (name.empty() ? std::string("A task or actor") : "'" + name + "'") + " cannot be scheduled: it needs " + need.ToString() +
         ", but no node has that much " + lacking + " (this node has " + resources_.total().ToString() +
         " in total). It waits until a node that can run it joins the cluster; " + std::to_string(waiting.queue.size()) +
         " request(s) of this kind are waiting.";
}

std::vector<std::string> LeaseQueueCore::DescribeQueue() const {
  std::vector<std::string> lines;
  for (const auto& [job, state] : jobs_) {
    for (const auto& [key, cls] : state.classes) {
      lines.push_back(
          "job " + job.Hex() + " " + key.first.ToString() + ": " + std::to_string(cls.queue.size()) + " waiting, " +
          (cls.feasible ? "free are " + resources_.available().ToString() : "more than the node's " + resources_.total().ToString()));
    }
  }
  return lines;
}

}  // namespace ray::scheduling
