#include "ray/scheduling/lease_queue_core.h"

#include <algorithm>
#include <cstdint>
#include <set>

namespace ray::scheduling {

namespace {
constexpr std::string_view kCpu = "CPU";

WorkerCap::Kind KindOf(const LeaseRequest& request) { return {request.job, request.where.need, request.depth}; }

}  // namespace

LeaseQueueCore::LeaseQueueCore(LeaseQueueConfig config, NodeResources resources)
    : config_(std::move(config)),
      resources_(std::move(resources)),
      view_(config_.seed),
      policy_(config_.policy, &view_),
      cap_(config_.worker_cap, resources_.total().Get(kCpu)),
      reclaim_backoff_(config_.reclaim_interval) {
  view_.Set(config_.node, resources_.total(), resources_.available(), config_.labels, self_version_);
}

LeaseQueueCore::ClassKey LeaseQueueCore::KeyOf(const LeaseRequest& request, bool pinned) {
  ClassKey key{request.priority, request.bundle, request.where.need, pinned, {}, request.depth};
  if (pinned && request.bundle.IsNil()) return key;
  if (request.where.strategy == Strategy::kDefault && request.where.selectors.empty() && request.where.preferred.empty()) return key;
  key.where = std::to_string(static_cast<int>(request.where.strategy)) + (request.where.soft ? 's' : 'h') +
              (request.where.spill_on_unavailable ? "u" : "") + request.where.affinity_node.Binary();
  for (const LabelSelector& selector : request.where.selectors) key.where += selector.ToString();
  key.where += '|' + request.where.preferred.ToString();
  return key;
}

bool LeaseQueueCore::Request(LeaseRequest request, Time now, LeaseEffects* out) {
  if (queued_.contains(request.lease) || granted_.contains(request.lease)) return false;
  if (!request.bundle.IsNil()) {
    if (!resources_.HasOpenBundle(request.bundle)) {
      out->emplace_back(LeaseRejected{request.lease, /*bundle_gone=*/true});
      return true;
    }
    if (request.other_places && !LabelsMatchHere(request.where)) {
      out->emplace_back(LeaseRejected{request.lease, /*bundle_gone=*/false, /*labels_differ=*/true});
      return true;
    }
    request.mode = LeaseMode::kHere;
  }
  const LeaseId lease = request.lease;
  if (!grants_ && request.mode != LeaseMode::kDecide) {
    out->emplace_back(LeaseRejected{lease});
    return true;
  }
  switch (request.mode) {
    case LeaseMode::kDecide: Decide(std::move(request), now, out); break;
    case LeaseMode::kNowOrNever:
      if (auto allocation = resources_.Allocate(request.where.need)) {
        if (CapAllows(request, now)) {
          GrantNow(std::move(request), std::move(*allocation), now, out);
          return true;
        }
        resources_.Release(*allocation);
      }
      out->emplace_back(LeaseRejected{lease});
      return true;
    case LeaseMode::kHere: {
      if (request.where.strategy == Strategy::kSpread && request.bundle.IsNil()) request.patience = config_.spread_patience;
      const bool in_vain = !request.bundle.IsNil() && !LabelsMatchHere(request.where);
      const std::string reason = in_vain ? "no bundle that it may use is on a node with the labels " + AnyOf(request.where.selectors) : "";
      Enqueue(std::move(request), {}, /*pinned=*/true, reason, now);
      break;
    }
  }
  const auto queued = queued_.find(lease);
  if (queued == queued_.end()) return true;
  const bool here = queued->second.cls->second.here;
  Schedule(now, out);
  if (here && queued_.contains(lease)) ArmReclaim(now, /*fresh=*/true);
  if (next_reclaim_ <= now) Tick(now, out);
  return true;
}

bool LeaseQueueCore::CapAllows(const LeaseRequest& request, Time now) {
  if (request.owner.IsNil()) return true;
  if (!cap_.Allows(KindOf(request), now)) return false;
  cap_.Granted(KindOf(request), now);
  return true;
}

void LeaseQueueCore::GrantNow(LeaseRequest request, Allocation allocation, Time now, LeaseEffects* out) {
  out->emplace_back(LeaseGranted{request, allocation.instances});
  const LeaseId lease = request.lease;
  granted_.emplace(lease, Granted{std::move(request), std::move(allocation), 0, now, Time::Infinite()});
}

void LeaseQueueCore::SyncSelf() { view_.SetAvailable(config_.node, resources_.available(), ++self_version_); }

std::set<NodeId> LeaseQueueCore::Avoided(const std::map<NodeId, uint64_t>& avoid) const {
  std::set<NodeId> nodes;
  for (const auto& [id, version] : avoid) {
    const auto* node = view_.Find(id);
    if (node == nullptr || node->version <= version) nodes.insert(id);
  }
  return nodes;
}

bool LeaseQueueCore::LabelsMatchHere(const PlacementRequest& where) const {
  return where.selectors.empty() || std::any_of(where.selectors.begin(), where.selectors.end(),
                                                [this](const LabelSelector& selector) { return selector.Matches(config_.labels); });
}

bool LeaseQueueCore::LabelsAllow(const PlacementRequest& where) {
  bool fulfilled = false;
  const LabelSelector* selector = policy_.SelectorOf(where, &fulfilled);
  return selector == nullptr || selector->Matches(config_.labels);
}

void LeaseQueueCore::Decide(LeaseRequest request, Time now, LeaseEffects* out) {
  const PlacementRequest& where = request.where;
  const bool plain = where.strategy != Strategy::kNodeAffinity && where.selectors.empty() && where.preferred.empty();
  if (plain && view_.size() == 1) {
    const bool feasible = resources_.Feasible(where.need);
    Enqueue(std::move(request), {}, /*pinned=*/false, feasible ? "" : "no node has that much", now);
    return;
  }
  std::map<NodeId, uint64_t> avoid;
  for (const NodeId& id : request.rejected_by) {
    const auto* node = view_.Find(id);
    avoid[id] = node == nullptr ? 0 : node->version;
  }
  if (!request.rejected_by.empty()) ++window_.back;
  // What was counted there for it stays counted: the node had less than it was thought to have, and reports what it has now.
  SyncSelf();
  const Placement placement = policy_.Choose(where, config_.node, Avoided(avoid));
  // A default one that stays here looked at no other.
  if (where.strategy != Strategy::kDefault || placement.kind != Placement::kNode || placement.node != config_.node) looked_elsewhere_ = now;
  switch (placement.kind) {
    case Placement::kNode:
    case Placement::kBind: {
      const bool bind = placement.kind == Placement::kBind;
      if (placement.node == config_.node) {
        if (bind && where.strategy == Strategy::kSpread) request.patience = config_.spread_patience;
        Enqueue(std::move(request), std::move(avoid), bind, "", now);
        return;
      }
      if (!bind && window_.used_up()) return Enqueue(std::move(request), std::move(avoid), /*pinned=*/false, "", now);
      CountSent(placement.node, where.need, now);
      out->emplace_back(LeaseSpilled{request.lease, placement.node, bind ? LeaseMode::kHere : LeaseMode::kNowOrNever});
      return;
    }
    case Placement::kWait:
    case Placement::kInfeasible: Enqueue(std::move(request), std::move(avoid), /*pinned=*/false, placement.reason, now); return;
    case Placement::kRefused: out->emplace_back(LeaseRefused{request.lease, placement.reason}); return;
  }
}

void LeaseQueueCore::Enqueue(LeaseRequest request, std::map<NodeId, uint64_t> avoid, bool pinned, const std::string& infeasible, Time now) {
  const ClassKey key = KeyOf(request, pinned);
  const auto job = jobs_.try_emplace(request.job).first;
  auto [it, added] = job->second.classes.try_emplace(key);
  if (added) {
    const bool allowed = !request.bundle.IsNil() ? LabelsMatchHere(request.where) : pinned || LabelsAllow(request.where);
    it->second.here = resources_.Feasible(request.where.need, request.bundle) && allowed;
    it->second.noticed = noticed_.contains({request.job, NoticeKey(key)});
    it->second.since = now;
    it->second.infeasible = infeasible;
    it->second.tried_epoch = view_.epoch();
  }
  Waiting waiting{std::move(request), std::move(avoid), Time::Infinite(), now};
  if (waiting.request.patience > Duration::zero()) {
    waiting.impatient_at = now + waiting.request.patience;
    impatient_.emplace(waiting.impatient_at, waiting.request.lease);
  }
  const LeaseId lease = waiting.request.lease;
  it->second.queue.push_back(std::move(waiting));
  queued_.emplace(lease, Place{job, it, std::prev(it->second.queue.end())});
}

void LeaseQueueCore::CountSent(const NodeId& node, const ResourceSet& need, Time now) {
  ++window_.sent;
  view_.Take(node, need);
  const auto settled = [this](const Sent& sent) {
    const auto* at = view_.Find(sent.node);
    return at == nullptr || at->version != sent.version;
  };
  while (!sent_.empty() && settled(sent_.front())) sent_.pop_front();
  if (const auto* at = view_.Find(node); at != nullptr) sent_.push_back({now + config_.sent_counts_for, node, at->version, need});
}

bool LeaseQueueCore::ForgetSent(Time now) {
  bool any = false;
  for (; !sent_.empty() && sent_.front().until <= now; sent_.pop_front()) {
    const Sent& sent = sent_.front();
    const auto* at = view_.Find(sent.node);
    if (at == nullptr || at->version != sent.version) continue;
    view_.GiveBack(sent.node, sent.need);
    any = true;
  }
  return any;
}

void LeaseQueueCore::NextRound(Time now) {
  const bool used_up = window_.used_up();
  const size_t taken = window_.sent - std::min(window_.sent, window_.back);
  if (window_.back > taken) {
    window_.size = std::max(config_.min_sent, taken * 2);
  } else if (window_.sent > 0) {
    window_.size = window_.size > SIZE_MAX / 2 ? SIZE_MAX : window_.size * 2;
  }
  window_.sent = window_.back = 0;
  window_.since = now;
  if (!used_up) return;
  for (auto& [job, state] : jobs_) {
    for (auto& [key, cls] : state.classes) cls.tried_epoch = 0;
  }
}

void LeaseQueueCore::ViewChanged(Time now, LeaseEffects* out) {
  // Reports that come in pieces are one.
  if (now - window_.since >= config_.report_interval / 2) NextRound(now);
  for (auto& [job, state] : jobs_) {
    for (auto& [key, cls] : state.classes) {
      if (!cls.queue.front().avoid.empty()) cls.tried_epoch = 0;  // some that turned it away may count again
    }
  }
  Schedule(now, out);
}

void LeaseQueueCore::SpillWaiting(Time now, LeaseEffects* out) {
  if (jobs_.empty() || window_.used_up()) return;
  if (view_.size() <= 1) {  // the last node that could run it may have gone
    for (auto& [job, state] : jobs_) {
      for (auto& [key, cls] : state.classes) {
        if (!key.pinned && !cls.here && cls.infeasible.empty()) cls.infeasible = "no node has that much";
      }
    }
    return;
  }
  // That this node has more is news for its own queue only, which was served before.
  const uint64_t before = view_.epoch();
  SyncSelf();
  if (view_.epoch() != before) {
    for (auto& [job, state] : jobs_) {
      for (auto& [key, cls] : state.classes) {
        if (cls.tried_epoch == before) cls.tried_epoch = view_.epoch();
      }
    }
  }
  // Jobs in turn, one request each, until a full round brings none.
  size_t idle = 0;
  JobId last = last_job_;
  while (!jobs_.empty() && idle < jobs_.size() && !window_.used_up()) {
    auto it = jobs_.upper_bound(last);
    if (it == jobs_.end()) it = jobs_.begin();
    last = it->first;
    if (SpillOne(&it->second, now, out)) {
      idle = 0;
      if (it->second.classes.empty()) jobs_.erase(it);
    } else {
      ++idle;
    }
  }
}

bool LeaseQueueCore::WaitsForOthers() const {
  return view_.size() > 1 && std::ranges::any_of(jobs_, [](const auto& job) {
           return std::ranges::any_of(job.second.classes, [](const auto& cls) { return !cls.first.pinned; });
         });
}

bool LeaseQueueCore::SpillOne(Job* job, Time now, LeaseEffects* out) {
  for (auto it = job->classes.begin(); it != job->classes.end(); ++it) {
    Class& cls = it->second;
    if (it->first.pinned || cls.tried_epoch == view_.epoch()) continue;
    Waiting& front = cls.queue.front();
    const PlacementRequest& where = front.request.where;
    const Placement placement = policy_.Choose(where, config_.node, Avoided(front.avoid));
    looked_elsewhere_ = now;
    cls.infeasible = placement.kind == Placement::kInfeasible ? placement.reason : "";
    const bool elsewhere = (placement.kind == Placement::kNode || placement.kind == Placement::kBind) && placement.node != config_.node;
    if (!elsewhere && placement.kind != Placement::kRefused) {
      cls.tried_epoch = view_.epoch();
      continue;
    }
    const LeaseId lease = front.request.lease;
    if (elsewhere) {
      CountSent(placement.node, where.need, now);
      out->emplace_back(
          LeaseSpilled{lease, placement.node, placement.kind == Placement::kBind ? LeaseMode::kHere : LeaseMode::kNowOrNever});
    } else {
      out->emplace_back(LeaseRefused{lease, placement.reason});
    }
    TakeFirst(job, it);
    return true;
  }
  return false;
}

void LeaseQueueCore::StopGrants(Time now, LeaseEffects* out) {
  grants_ = false;
  view_.Set(config_.node, resources_.total(), resources_.available(), config_.labels, ++self_version_, /*draining=*/true);
  std::vector<LeaseId> bound;
  for (auto& [job, state] : jobs_) {
    for (auto& [key, cls] : state.classes) {
      cls.tried_epoch = 0;
      if (!key.pinned) continue;
      for (const auto& waiting : cls.queue) bound.push_back(waiting.request.lease);
    }
  }
  for (const LeaseId& lease : bound) {
    Remove(lease);
    out->emplace_back(LeaseRejected{lease});
  }
  Schedule(now, out);
}

void LeaseQueueCore::Schedule(Time now, LeaseEffects* out) {
  // Jobs in turn, one grant each, until a full round brings none. Resources only shrink meanwhile, so that ends.
  size_t idle = 0;
  while (grants_ && !jobs_.empty() && idle < jobs_.size()) {
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
  SpillWaiting(now, out);
  const bool waiting =
      grants_ && std::any_of(jobs_.begin(), jobs_.end(), [](const auto& job) {
        return std::any_of(job.second.classes.begin(), job.second.classes.end(), [](const auto& c) { return c.second.here; });
      });
  if (waiting) {
    ArmReclaim(now, /*fresh=*/false);
  } else {
    next_reclaim_ = Time::Infinite();
    reclaim_backoff_ = config_.reclaim_interval;
  }
}

bool LeaseQueueCore::ServeJob(Job* job, Time now, LeaseEffects* out) {
  for (auto level = job->classes.begin(); level != job->classes.end();) {
    // The classes of one priority, as a ring that begins behind the one served last.
    auto end = level;
    while (end != job->classes.end() && end->first.priority == level->first.priority) ++end;
    auto turn = level;
    if (const auto last = job->last_class.find(level->first.priority); last != job->last_class.end()) {
      turn = job->classes.upper_bound(last->second);
      if (turn == end) turn = level;
    }
    auto it = turn;
    do {
      if (ServeClass(job, it, now, out)) return true;
      if (++it == end) it = level;
    } while (it != turn);
    level = end;
  }
  return false;
}

bool LeaseQueueCore::ServeClass(Job* job, std::map<ClassKey, Class>::iterator it, Time now, LeaseEffects* out) {
  if (!it->second.here) return false;
  auto allocation = resources_.Allocate(it->first.need, it->first.bundle);
  if (!allocation) return false;
  if (!CapAllows(it->second.queue.front().request, now)) {
    resources_.Release(*allocation);
    return false;
  }
  job->last_class[it->first.priority] = it->first;
  Waiting waiting = TakeFirst(job, it);
  GrantNow(std::move(waiting.request), std::move(*allocation), now, out);
  return true;
}

bool LeaseQueueCore::PrepareBundles(const PlacementGroupId& group, uint32_t attempt,
                                    const std::vector<std::pair<int32_t, ResourceSet>>& bundles, bool commit, Time now, LeaseEffects* out) {
  std::vector<BundleId> reserved;
  bool fits = true;
  for (const auto& [index, need] : bundles) {
    const BundleId id{group, index};
    if (const auto known = bundles_.find(id); known != bundles_.end()) {
      if (known->second.attempt == attempt) continue;
      if (known->second.attempt > attempt || known->second.commit_by.is_infinite()) {
        fits = false;
        break;
      }
      CloseBundle(id, "", now, out);
    }
    // One that is still closing has the name; its workers are about to end.
    if (resources_.HasBundle(id) || !resources_.ReserveBundle(id, need)) {
      fits = false;
      break;
    }
    bundles_[id] = {attempt, now + config_.bundle_commit_timeout};
    uncommitted_.emplace(now + config_.bundle_commit_timeout, id);
    reserved.push_back(id);
  }
  if (!fits) {
    for (const BundleId& id : reserved) CloseBundle(id, "", now, out);
    return false;
  }
  if (!commit) return true;
  std::vector<int32_t> indices;
  for (const auto& [index, need] : bundles) indices.push_back(index);
  return CommitBundles(group, attempt, indices, now, out);
}

bool LeaseQueueCore::CommitBundles(const PlacementGroupId& group, uint32_t attempt, const std::vector<int32_t>& indices, Time now,
                                   LeaseEffects* out) {
  for (const int32_t index : indices) {
    const auto it = bundles_.find({group, index});
    if (it == bundles_.end() || it->second.attempt != attempt) return false;
  }
  for (const int32_t index : indices) {
    const BundleId id{group, index};
    uncommitted_.erase({bundles_[id].commit_by, id});
    bundles_[id].commit_by = Time::Infinite();
    resources_.OpenBundle(id);
  }
  Schedule(now, out);
  return true;
}

void LeaseQueueCore::ReturnBundles(const PlacementGroupId& group, uint32_t attempt, const std::vector<int32_t>& indices,
                                   const std::string& reason, Time now, LeaseEffects* out) {
  std::vector<BundleId> doomed;
  for (auto it = bundles_.lower_bound({group, INT32_MIN}); it != bundles_.end() && it->first.group == group; ++it) {
    const bool named = indices.empty() || std::find(indices.begin(), indices.end(), it->first.index) != indices.end();
    if (named && (attempt == 0 || it->second.attempt == attempt)) doomed.push_back(it->first);
  }
  for (const BundleId& id : doomed) CloseBundle(id, reason, now, out);
}

void LeaseQueueCore::CloseBundle(const BundleId& bundle, const std::string& reason, Time now, LeaseEffects* out) {
  const auto known = bundles_.find(bundle);
  if (known == bundles_.end()) return;
  uncommitted_.erase({known->second.commit_by, bundle});
  bundles_.erase(known);
  const bool in_use = resources_.IsInUse(bundle);
  resources_.CloseBundle(bundle);
  std::vector<LeaseId> stranded, held;
  for (const auto& [job, state] : jobs_) {
    for (const auto& [key, cls] : state.classes) {
      if (key.bundle.group != bundle.group || resources_.HasOpenBundle(key.bundle)) continue;
      for (const auto& waiting : cls.queue) stranded.push_back(waiting.request.lease);
    }
  }
  for (const auto& lease : stranded) {
    Remove(lease);
    out->emplace_back(LeaseRejected{lease, /*bundle_gone=*/true});
  }
  if (in_use) {
    for (const auto& [lease, granted] : granted_) {
      if (granted.allocation.bundle == bundle) held.push_back(lease);
    }
  }
  std::sort(held.begin(), held.end());
  // What they hold stays taken, and the bundle with it, until their workers have ended.
  for (const auto& lease : held) out->emplace_back(LeaseRevoked{lease, reason});
  Schedule(now, out);
}

void LeaseQueueCore::Remove(const LeaseId& lease) {
  const auto found = queued_.find(lease);
  if (found == queued_.end()) return;
  const Place place = found->second;
  impatient_.erase({place.at->impatient_at, lease});
  place.cls->second.queue.erase(place.at);
  if (place.cls->second.queue.empty()) place.job->second.classes.erase(place.cls);
  if (place.job->second.classes.empty()) jobs_.erase(place.job);
  queued_.erase(found);
}

LeaseQueueCore::Waiting LeaseQueueCore::TakeFirst(Job* job, std::map<ClassKey, Class>::iterator cls) {
  Waiting first = std::move(cls->second.queue.front());
  impatient_.erase({first.impatient_at, first.request.lease});
  queued_.erase(first.request.lease);
  cls->second.queue.pop_front();
  if (cls->second.queue.empty()) job->classes.erase(cls);
  return first;
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
  resources_.GiveBack(kCpu, cpu, it->second.allocation.bundle);
  Schedule(now, out);
}

void LeaseQueueCore::Unblock(const LeaseId& lease) {
  const auto it = granted_.find(lease);
  if (it == granted_.end() || it->second.cpu_given_back == 0) return;
  resources_.TakeAgain(kCpu, it->second.cpu_given_back, it->second.allocation.bundle);
  it->second.cpu_given_back = 0;
}

void LeaseQueueCore::OwnerDied(const WorkerId& owner, Time now, LeaseEffects* out) {
  std::vector<LeaseId> waiting, held;
  for (const auto& [job, state] : jobs_) {
    for (const auto& [key, cls] : state.classes) {
      for (const auto& w : cls.queue) {
        if (w.request.owner == owner) waiting.push_back(w.request.lease);
      }
    }
  }
  for (const auto& lease : waiting) Remove(lease);
  for (const auto& [lease, granted] : granted_) {
    if (granted.request.owner == owner) held.push_back(lease);
  }
  std::sort(held.begin(), held.end());
  // The resources stay taken until the worker has ended and the shell returns the lease.
  for (const auto& lease : held) out->emplace_back(LeaseRevoked{lease, "the owner of its task died"});
  Schedule(now, out);
}

void LeaseQueueCore::JobFinished(const JobId& job, const std::function<bool(const WorkerId&)>& keep_owner, Time now, LeaseEffects* out) {
  std::vector<LeaseId> dropped;
  if (const auto it = jobs_.find(job); it != jobs_.end()) {
    for (const auto& [key, cls] : it->second.classes) {
      for (const auto& waiting : cls.queue) {
        if (!keep_owner(waiting.request.owner)) dropped.push_back(waiting.request.lease);
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
  while (!uncommitted_.empty() && uncommitted_.begin()->first <= now) {
    CloseBundle(BundleId(uncommitted_.begin()->second), "it was not committed in time", now, out);
  }
  while (!impatient_.empty() && impatient_.begin()->first <= now) {
    const LeaseId lease = impatient_.begin()->second;
    Remove(lease);
    out->emplace_back(LeaseRejected{lease});
  }
  for (auto& [job, state] : jobs_) {
    for (auto& [key, cls] : state.classes) {
      if (cls.infeasible.empty() || cls.noticed || now < cls.since + config_.infeasible_notice) continue;
      cls.noticed = true;
      noticed_[{job, NoticeKey(key)}] = true;
      out->emplace_back(InfeasibleNotice{job, InfeasibleMessage(cls, key)});
    }
  }
  const bool late = now >= window_.since + config_.report_interval * 2 && window_.used_up();
  if (late) NextRound(now);  // no report has come
  const bool capped = now >= cap_.NextDeadline();
  if (capped) cap_.Tick(now);
  const bool forgot = ForgetSent(now);
  if (late || capped || forgot) Schedule(now, out);
  if (now < next_reclaim_) return;
  last_reclaim_ = now;
  next_reclaim_ = now + reclaim_backoff_;
  reclaim_backoff_ = std::min(reclaim_backoff_ * 2, config_.max_reclaim_interval);
  std::set<WorkerId> owners;
  for (const auto& [lease, granted] : granted_) {
    if (!granted.request.owner.IsNil()) owners.insert(granted.request.owner);
  }
  if (!owners.empty()) out->emplace_back(ReclaimWanted{{owners.begin(), owners.end()}, ChooseYields(now)});
}

std::vector<std::pair<WorkerId, LeaseId>> LeaseQueueCore::ChooseYields(Time now) {
  std::vector<std::pair<WorkerId, LeaseId>> yields;
  std::map<JobId, int64_t> of_job;
  std::map<std::pair<JobId, ClassKey>, int64_t> of_class;
  std::vector<std::pair<LeaseId, Granted*>> held;      // by tasks, in a fixed order
  auto wanted = static_cast<int64_t>(queued_.size());  // more than wait need not make room
  for (auto& [id, granted] : granted_) {
    if (granted.request.owner.IsNil()) continue;  // actors keep what they have
    ++of_job[granted.request.job];
    ++of_class[{granted.request.job, KeyOf(granted.request, false)}];
    held.emplace_back(id, &granted);
    if (!granted.asked.is_infinite() && now < granted.asked + config_.yield_wait) --wanted;  // on its way
  }
  std::sort(held.begin(), held.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  for (const auto& [job, state] : jobs_) {
    for (const auto& [key, cls] : state.classes) {
      if (!cls.here || wanted <= 0) continue;
      const ClassKey own{key.priority, key.bundle, key.need, false, key.where, key.depth};
      std::pair<int, Time> best_rank{3, Time::Infinite()};
      std::pair<LeaseId, Granted*> best{{}, nullptr};
      for (const auto& [id, granted] : held) {
        const LeaseRequest& request = granted->request;
        if (!granted->asked.is_infinite() || granted->cpu_given_back > 0 || now < granted->since + config_.min_tenure) continue;
        if (request.bundle.group != key.bundle.group) continue;
        int rank = 3;
        if (request.job != job) {
          if (of_job[request.job] > of_job[job] + 1 || of_job[job] == 0) rank = 1;
        } else if (request.priority < key.priority) {
          rank = 0;
        } else if (request.priority == key.priority) {
          const int64_t theirs = of_class[{job, KeyOf(request, false)}], ours = of_class[{job, own}];
          if (KeyOf(request, false) != own && (theirs > ours + 1 || ours == 0)) rank = 2;
        }
        // The longest-held of the worst claims, if it has something of what is lacking.
        if (rank == 3 || std::pair(rank, granted->since) >= best_rank) continue;
        const bool helps = std::any_of(key.need.items().begin(), key.need.items().end(), [&](const auto& item) {
          return item.second > 0 && granted->allocation.amounts.Get(item.first) > 0;
        });
        if (!helps) continue;
        best_rank = {rank, granted->since};
        best = {id, granted};
      }
      if (best.second == nullptr) continue;
      best.second->asked = now;
      --wanted;
      --of_job[best.second->request.job];
      --of_class[{best.second->request.job, KeyOf(best.second->request, false)}];
      ++of_job[job];
      ++of_class[{job, own}];
      yields.emplace_back(best.second->request.owner, best.first);
    }
  }
  return yields;
}

Time LeaseQueueCore::NextDeadline() const {
  Time next = std::min(next_reclaim_, cap_.NextDeadline());
  if (!impatient_.empty()) next = std::min(next, impatient_.begin()->first);
  if (!jobs_.empty() && window_.used_up()) next = std::min(next, window_.since + config_.report_interval * 2);
  if (!uncommitted_.empty()) next = std::min(next, uncommitted_.begin()->first);
  if (!sent_.empty()) next = std::min(next, sent_.front().until);
  for (const auto& [job, state] : jobs_) {
    for (const auto& [key, cls] : state.classes) {
      if (!cls.infeasible.empty() && !cls.noticed) next = std::min(next, cls.since + config_.infeasible_notice);
    }
  }
  return next;
}

std::string LeaseQueueCore::InfeasibleMessage(const Class& waiting, const ClassKey& key) const {
  const std::string& name = waiting.queue.front().request.task_name;
  const bool in_group = !key.bundle.IsNil();
  return (name.empty() ? std::string("A task or actor") : "'" + name + "'") + " cannot be scheduled: it needs " + key.need.ToString() +
         ", but " + waiting.infeasible + (in_group ? "" : " (this node has " + resources_.total().ToString() + " in total)") +
         ". It waits until " + (in_group ? "one is placed on such a node" : "a node that can run it joins the cluster") + "; " +
         std::to_string(waiting.queue.size()) + " request(s) of this kind are waiting.";
}

std::optional<LeaseQueueCore::Standing> LeaseQueueCore::StandingOf(const LeaseId& lease) const {
  const auto found = queued_.find(lease);
  if (found == queued_.end()) return std::nullopt;
  const ClassKey& key = found->second.cls->first;
  const Class& cls = found->second.cls->second;
  Standing standing;
  standing.here = cls.here;
  standing.infeasible = cls.infeasible;
  standing.behind = static_cast<size_t>(std::distance(cls.queue.begin(), std::list<Waiting>::const_iterator(found->second.at)));
  standing.since = found->second.at->since;
  if (!grants_) {
    standing.why = "the node is draining and grants nothing any more";
  } else if (!cls.infeasible.empty()) {
    standing.why = cls.infeasible;
  } else if (!cls.here) {
    standing.why = "this node could never run it, and no other has room";
  } else if (!resources_.Covers(key.need, key.bundle)) {
    standing.why = key.bundle.IsNil() ? "" : "in its placement group, ";
    if (key.bundle.IsNil()) {
      for (const auto& [name, amount] : key.need.items()) {
        if (resources_.available().Get(name) >= amount) continue;
        standing.why += (standing.why.empty() ? "not enough " : ", ") + name;
      }
    } else {
      standing.why += "not enough";
    }
    standing.why += standing.why.empty() ? "no index of a resource has as much as it needs" : " is free";
  } else if (standing.behind > 0) {
    standing.why = "others of its kind are served first";
  } else {
    standing.why = "as many of its kind run as the node has CPUs, or it is the turn of others";
  }
  return standing;
}

std::map<ResourceSet, int64_t> LeaseQueueCore::WaitingDemand() const {
  std::map<ResourceSet, int64_t> demand;
  for (const auto& [job, state] : jobs_) {
    for (const auto& [key, cls] : state.classes) {
      // Asked for often: what is first tells of all, since actors and tasks hardly ever are of one class.
      if (!cls.queue.front().request.owner.IsNil()) demand[key.need] += static_cast<int64_t>(cls.queue.size());
    }
  }
  return demand;
}

std::vector<std::string> LeaseQueueCore::DescribeQueue() const {
  std::vector<std::string> lines;
  for (const auto& [job, state] : jobs_) {
    for (const auto& [key, cls] : state.classes) {
      lines.push_back("job " + job.Hex() + " " + key.need.ToString() +
                      (key.bundle.IsNil() ? "" : " in placement group " + key.bundle.group.Hex()) + ": " +
                      std::to_string(cls.queue.size()) + " waiting, " +
                      (cls.infeasible.empty() ? "free are " + resources_.available().ToString() : cls.infeasible));
    }
  }
  return lines;
}

}  // namespace ray::scheduling
