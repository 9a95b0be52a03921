#include "ray/object_manager/transfer/pull_core.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace ray::object_manager {
namespace {

constexpr int kMaxHops = 64;  // deeper than any tree; a circle of names ends here

// Differs from reader to reader, so that several copies share them.
uint64_t Rank(const NodeId& reader, const ObjectId& id, const NodeId& source) {
  uint64_t h = reader.Hash() ^ (id.Hash() * 0x9e3779b97f4a7c15ull) ^ (source.Hash() * 0xff51afd7ed558ccdull);
  h ^= h >> 33;
  h *= 0xc4ceb9fe1a85ec53ull;
  return h ^ (h >> 33);
}

}  // namespace

void PullCore::Progressed(Object* object, Time now) {
  object->last_progress = now;
  object->warnings = 0;
}

uint64_t PullCore::LengthOf(const Object& object, uint32_t chunk) const {
  return std::min(config_.chunk_bytes, object.size - uint64_t{chunk} * config_.chunk_bytes);
}

void PullCore::Want(PullRequest request, Time now, PullEffects* out) {
  auto [it, is_new] = objects_.try_emplace(request.id);
  Object& object = it->second;
  if (is_new) {
    object.id = request.id;
    object.size = request.size;
    object.attempt = request.attempt;
    object.seq = ++last_seq_;
    object.last_progress = now;
    object.priority = request.priority;
    queued_.insert({{object.priority, object.seq}, object.id});
  } else if (request.attempt > object.attempt) {
    StartOver(&object, request, now, out);
  } else if (request.attempt < object.attempt) {
    request.nodes.clear();  // what they have is of no use here
  }
  object.waiters[request.want] = request.priority;
  wants_[request.want] = request.id;
  for (const NodeId& node : request.nodes) {
    if (node == config_.self || object.missing.contains(node)) continue;
    if (dead_.contains(node)) {
      object.missing.insert(node);
    } else {
      object.sources.try_emplace(node);
    }
  }
  SetPriority(&object);
  const ObjectId id = request.id;
  MaybeFail(id, out);
  Schedule(now, out);
  FillAll(now, out);
}

void PullCore::StartOver(Object* object, const PullRequest& request, Time now, PullEffects* out) {
  if (object->state != State::kQueued) Deactivate(object, out);
  object->size = request.size;
  object->attempt = request.attempt;
  object->sources.clear();
  object->missing.clear();  // they may have what the later run made
  object->insist = false;
  Progressed(object, now);
}

void PullCore::Cancel(WantNo want, Time now, PullEffects* out) {
  auto node = wants_.extract(want);
  if (node.empty()) return;
  Object& object = objects_.at(node.mapped());
  object.waiters.erase(want);
  if (object.waiters.empty()) {
    Answer(&object, Status::Ok(), out);  // to nobody
  } else {
    SetPriority(&object);
  }
  Schedule(now, out);
  FillAll(now, out);
}

void PullCore::SetPriority(Object* object) {
  PullPriority priority = PullPriority::kTaskArgument;
  for (const auto& [want, p] : object->waiters) priority = std::min(priority, p);
  if (priority == object->priority) return;
  auto& list = object->state == State::kQueued ? queued_ : active_;
  list.erase({{object->priority, object->seq}, object->id});
  object->priority = priority;
  list.insert({{object->priority, object->seq}, object->id});
}

void PullCore::Schedule(Time now, PullEffects* out) {
  while (!queued_.empty()) {
    Object& object = objects_.at(queued_.begin()->second);
    if (active_bytes_ != 0 && active_bytes_ + object.size > config_.budget_bytes) {
      // What is wanted less makes way, the latest first, if that is enough.
      uint64_t less = 0;
      for (auto at = active_.rbegin(); at != active_.rend() && at->first.first > object.priority; ++at)
        less += objects_.at(at->second).size;
      const uint64_t rest = active_bytes_ - less;
      if (less == 0 || (rest != 0 && rest + object.size > config_.budget_bytes)) return;
      while (active_bytes_ != 0 && active_bytes_ + object.size > config_.budget_bytes)
        Deactivate(&objects_.at(active_.rbegin()->second), out);
    }
    Activate(&object, out);
  }
}

void PullCore::Activate(Object* object, PullEffects* out) {
  const std::pair<QueueKey, ObjectId> key{{object->priority, object->seq}, object->id};
  queued_.erase(key);
  active_.insert(key);
  active_bytes_ += object->size;
  object->state = State::kRoom;
  object->round = ++last_round_;
  object->chunks.assign((object->size + config_.chunk_bytes - 1) / config_.chunk_bytes, Chunk::kMissing);
  object->here = object->busy = object->first_missing = 0;
  object->made_by.reset();
  out->push_back(RoomWanted{object->id, object->round, object->size});
}

void PullCore::Deactivate(Object* object, PullEffects* out) {
  const std::pair<QueueKey, ObjectId> key{{object->priority, object->seq}, object->id};
  LeaveSource(object, out);
  ForgetFetches(object, NodeId(), out);
  active_.erase(key);
  queued_.insert(key);
  active_bytes_ -= object->size;
  object->state = State::kQueued;
  out->push_back(PullDropped{object->id, object->round});
}

void PullCore::OnRoom(const ObjectId& id, uint64_t round, const Status& status, bool exists, Time now, PullEffects* out) {
  auto it = objects_.find(id);
  if (it == objects_.end() || it->second.round != round || it->second.state != State::kRoom) return;
  Object& object = it->second;
  if (!status.ok() || exists) {
    Answer(&object, status, out);
  } else {
    object.state = State::kReceiving;
    Progressed(&object, now);
    if (object.chunks.empty()) {
      out->push_back(PullComplete{id, round});
      Answer(&object, Status::Ok(), out);
    }
  }
  Schedule(now, out);
  FillAll(now, out);
}

bool PullCore::PickSource(Object* object, Time now) {
  if (!object->source.IsNil()) return true;
  const std::pair<const NodeId, Source>* best = nullptr;
  for (const auto& candidate : object->sources) {
    if (candidate.second.not_before > now) continue;
    if (best == nullptr || candidate.second.failures < best->second.failures ||
        (candidate.second.failures == best->second.failures &&
         Rank(config_.self, object->id, candidate.first) < Rank(config_.self, object->id, best->first))) {
      best = &candidate;
    }
  }
  if (best == nullptr) return false;
  object->source = best->first;
  object->via = NodeId();
  object->hops = 0;
  return true;
}

void PullCore::LeaveSource(Object* object, PullEffects* out) {
  if (object->source.IsNil()) return;
  out->push_back(SourceLeft{object->source, object->id});
  object->source = NodeId();
  object->via = NodeId();
}

// Chunks that were asked of `node` (nil: of any) are missing again; those that have arrived are still being written, if it is not any.
void PullCore::ForgetFetches(Object* object, const NodeId& node, PullEffects* out) {
  if (object->busy == 0) return;
  for (auto at = fetches_.begin(); at != fetches_.end();) {
    const Fetch& fetch = at->second;
    if (fetch.id != object->id || (!node.IsNil() && (fetch.node != node || fetch.arrived))) {
      ++at;
      continue;
    }
    object->chunks[fetch.chunk] = Chunk::kMissing;
    object->first_missing = std::min(object->first_missing, fetch.chunk);
    --object->busy;
    NoLongerAsked(fetch);
    out->push_back(FetchForgotten{at->first});
    at = fetches_.erase(at);
  }
}

void PullCore::Asked(const NodeId& node, uint64_t bytes) {
  asked_bytes_ += bytes;
  asked_of_[node] += bytes;
}

void PullCore::NoLongerAsked(const Fetch& fetch) {
  asked_bytes_ -= fetch.bytes;
  const auto of = asked_of_.find(fetch.node);
  if ((of->second -= fetch.bytes) == 0) asked_of_.erase(of);
}

void PullCore::Fill(Object* object, Time now, PullEffects* out) {
  if (object->state != State::kReceiving || !PickSource(object, now)) return;
  for (uint32_t& i = object->first_missing; i < object->chunks.size() && object->busy < config_.window; ++i) {
    if (object->chunks[i] != Chunk::kMissing) continue;
    const uint64_t length = LengthOf(*object, i);
    if (asked_bytes_ + length > config_.max_asked_bytes && asked_of_.contains(object->source)) return;
    if (object->busy == 0) object->asked_at = now;
    object->chunks[i] = Chunk::kAsked;
    ++object->busy;
    Asked(object->source, length);
    fetches_[++last_fetch_] = {object->id, i, object->source, length};
    out->push_back(FetchWanted{last_fetch_, object->source, object->id, object->round, uint64_t{i} * config_.chunk_bytes, length,
                               object->insist, object->attempt, object->depth});
  }
}

void PullCore::FillAll(Time now, PullEffects* out) {
  for (const auto& [key, id] : active_) Fill(&objects_.at(id), now, out);
}

bool PullCore::OnArrived(FetchNo fetch, std::optional<uint32_t> made_by, Time now, PullEffects* out) {
  auto it = fetches_.find(fetch);
  if (it == fetches_.end() || it->second.arrived) return false;
  Object& object = objects_.at(it->second.id);
  if (made_by && object.made_by.value_or(*made_by) != *made_by) {
    OnOtherRun(&object, NodeId(it->second.node), out);
    Schedule(now, out);
    FillAll(now, out);
    return false;
  }
  if (made_by) object.made_by = made_by;
  it->second.arrived = true;
  object.chunks[it->second.chunk] = Chunk::kWriting;
  Progressed(&object, now);
  if (auto source = object.sources.find(it->second.node); source != object.sources.end()) source->second.failures = 0;
  return true;
}

void PullCore::OnWritten(FetchNo fetch, Time now, PullEffects* out) {
  auto node = fetches_.extract(fetch);
  if (node.empty()) return;
  Object& object = objects_.at(node.mapped().id);
  object.chunks[node.mapped().chunk] = Chunk::kHere;
  --object.busy;
  ++object.here;
  NoLongerAsked(node.mapped());
  if (object.here == object.chunks.size()) {
    out->push_back(PullComplete{object.id, object.round});
    Answer(&object, Status::Ok(), out);
    Schedule(now, out);
  }
  FillAll(now, out);
}

void PullCore::OnRefused(FetchNo fetch, Refusal refusal, const NodeId& other, uint64_t other_depth, Time now, PullEffects* out) {
  auto it = fetches_.find(fetch);
  if (it == fetches_.end() || it->second.arrived) return;
  Object& object = objects_.at(it->second.id);
  const ObjectId id = object.id;
  const NodeId node = it->second.node;
  const bool current = node == object.source;
  ForgetFetches(&object, node, out);
  if (current) {
    const bool named = refusal == Refusal::kElsewhere && other != config_.self && !dead_.contains(other) &&
                       !object.missing.contains(other) && !object.insist && object.hops < kMaxHops;
    if (named) {
      const NodeId via = object.via.IsNil() ? object.source : object.via;
      object.source = other;
      object.via = via;
      object.depth = std::max(object.depth, other_depth + 1);
      ++object.hops;
    } else if (!object.via.IsNil() || (refusal == Refusal::kElsewhere && !object.insist)) {
      // Who was named is of no help: the one that has it all shall give it.
      object.insist = true;
      LeaveSource(&object, out);
    } else if (refusal == Refusal::kNotThere) {
      OnMissing(&object, node, out);
    } else {
      OnUnreachable(&object, now, out);
    }
  } else if (refusal == Refusal::kNotThere && object.sources.contains(node)) {
    OnMissing(&object, node, out);
  }
  MaybeFail(id, out);
  Schedule(now, out);
  FillAll(now, out);
}

void PullCore::OnUnreachable(Object* object, Time now, PullEffects* out) {
  const NodeId node = object->source;
  const bool named = !object->via.IsNil();
  LeaveSource(object, out);
  ForgetFetches(object, node, out);
  if (named) {
    object->insist = true;
    return;
  }
  auto it = object->sources.find(node);
  if (it == object->sources.end()) return;
  const int doublings = std::min(it->second.failures++, 20);
  it->second.not_before = now + std::min(config_.retry_max, config_.retry_min * (int64_t{1} << doublings));
}

void PullCore::OnMissing(Object* object, const NodeId& node, PullEffects* out) {
  if (object->source == node || object->via == node) {
    const NodeId source = object->source;
    LeaveSource(object, out);
    ForgetFetches(object, source, out);
  }
  object->sources.erase(node);
  object->missing.insert(node);
}

void PullCore::OnOtherRun(Object* object, const NodeId& node, PullEffects* out) {
  if (node == object->source && object->via.IsNil()) return Deactivate(object, out);  // all of it comes from there, or from another one
  if (node == object->source) {
    object->insist = true;  // as with one that is of no help
    LeaveSource(object, out);
  }
  ForgetFetches(object, node, out);
}

void PullCore::OnNodeDead(const NodeId& node, Time now, PullEffects* out) {
  dead_.insert(node);
  std::vector<ObjectId> ids;
  for (const auto& [id, object] : objects_) {
    if (object.sources.contains(node) || object.source == node) ids.push_back(id);
  }
  std::sort(ids.begin(), ids.end());
  for (const ObjectId& id : ids) {
    Object& object = objects_.at(id);
    if (object.source == node && object.via != NodeId() && !object.sources.contains(node)) {
      OnUnreachable(&object, now, out);
    } else {
      OnMissing(&object, node, out);
    }
    MaybeFail(id, out);
  }
  Schedule(now, out);
  FillAll(now, out);
}

void PullCore::Fail(const ObjectId& id, const Status& status, Time now, PullEffects* out) {
  auto it = objects_.find(id);
  if (it == objects_.end()) return;
  Answer(&it->second, status, out);
  Schedule(now, out);
  FillAll(now, out);
}

uint64_t PullCore::RoundOf(const ObjectId& id) const {
  auto it = objects_.find(id);
  return it == objects_.end() || it->second.state == State::kQueued ? 0 : it->second.round;
}

void PullCore::MaybeFail(const ObjectId& id, PullEffects* out) {
  auto it = objects_.find(id);
  if (it == objects_.end() || !it->second.sources.empty()) return;
  Answer(&it->second, Status::NotFound("no node has object " + id.Hex()), out);
}

void PullCore::Answer(Object* object, const Status& status, PullEffects* out) {
  LeaveSource(object, out);
  ForgetFetches(object, NodeId(), out);
  const std::pair<QueueKey, ObjectId> key{{object->priority, object->seq}, object->id};
  if (object->state == State::kQueued) {
    queued_.erase(key);
  } else {
    active_.erase(key);
    active_bytes_ -= object->size;
    // Complete ones are sealed by now; dropping them then means nothing but the end of the round.
    out->push_back(PullDropped{object->id, object->round});
  }
  for (const auto& [want, priority] : object->waiters) {
    wants_.erase(want);
    out->push_back(PullAnswered{want, status, {object->missing.begin(), object->missing.end()}, object->attempt});
  }
  const ObjectId id = object->id;
  objects_.erase(id);
}

void PullCore::OnTimer(Time now, PullEffects* out) {
  std::vector<ObjectId> ids;
  for (const auto& [key, id] : active_) ids.push_back(id);
  for (const ObjectId& id : ids) {
    Object& object = objects_.at(id);
    if (object.state != State::kReceiving) continue;
    const bool stalled = object.busy != 0 && !object.source.IsNil() && StallsAt(object) <= now;
    if (object.last_progress + config_.give_up <= now) {
      Answer(&object, Status::DeadlineExceeded("no node gave object " + id.Hex() + " in time"), out);
      continue;
    }
    if (object.last_progress + NextWarning(object) <= now) {
      while (object.last_progress + NextWarning(object) <= now) ++object.warnings;
      out->push_back(PullLate{id, now - object.last_progress});
    }
    if (stalled) OnUnreachable(&object, now, out);
  }
  Schedule(now, out);
  FillAll(now, out);
}

Time PullCore::NextDeadline() const {
  Time next = Time::Infinite();
  for (const auto& [key, id] : active_) {
    const Object& object = objects_.at(id);
    if (object.state != State::kReceiving) continue;
    next = std::min(next, object.last_progress + std::min(config_.give_up, NextWarning(object)));
    if (!object.source.IsNil()) {
      if (object.busy != 0) next = std::min(next, StallsAt(object));
      continue;
    }
    for (const auto& [node, source] : object.sources) next = std::min(next, source.not_before);
  }
  return next;
}

std::string PullCore::Explain(const ObjectId& id, Time now) const {
  auto it = objects_.find(id);
  if (it == objects_.end()) return {};
  const Object& object = it->second;
  if (object.state == State::kQueued) {
    return "its fetch waits until " + std::to_string(active_bytes_) + " bytes of other objects are here";
  }
  if (object.state == State::kRoom) return "its fetch waits for room in the object store";
  std::string text = std::to_string(object.here) + " of " + std::to_string(object.chunks.size()) + " chunks of it are here, ";
  const auto silence = std::chrono::duration_cast<std::chrono::milliseconds>(now - object.last_progress).count();
  text += "nothing has come for " + std::to_string(silence / 1000) + "." + std::to_string(silence / 100 % 10) + " s; ";
  if (!object.source.IsNil()) return text + "the next come from node " + object.source.Hex();
  text += "no node that has it can be reached now";
  for (const auto& [node, source] : object.sources)
    text += (node == object.sources.begin()->first ? ", that is none of " : " ") + node.Hex();
  return text;
}

}  // namespace ray::object_manager
