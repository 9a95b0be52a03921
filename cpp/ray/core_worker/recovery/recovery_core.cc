#include "ray/core_worker/recovery/recovery_core.h"

#include <algorithm>
#include <utility>

namespace ray::core {

void RecoveryCore::Stored(const ObjectId& id) {
  auto [it, is_new] = entries_.try_emplace(id.task_id());
  Entry& entry = it->second;
  if (is_new) entry.running = true;
  entry.live.insert(id);
  if (entry.running) entry.passed.insert(id);
  lost_ -= entry.lost.erase(id);
}

void RecoveryCore::Keep(Map::iterator it, const End& end, RecoveryEffects* out) {
  Entry& entry = it->second;
  if (entry.task == nullptr) {  // the first time
    for (const ObjectId& id : end.needs) {
      if (id.IsPut() || id.task_id() == end.id) continue;
      auto needed = entries_.find(id.task_id());
      if (needed == entries_.end()) continue;
      ++needed->second.needed_by;
      entry.needs.push_back(needed->first);
    }
    entry.args_object = end.args_object;
    if (!end.args_object.IsNil()) out->push_back({.kind = RecoveryEffect::Kind::kHold, .object = end.args_object});
  } else {
    bytes_ -= entry.bytes;
  }
  entry.task = end.task;
  entry.bytes = end.bytes;
  bytes_ += end.bytes;
  if (!entry.aged) {
    entry.age = by_age_.insert(by_age_.end(), it->first);
    entry.aged = true;
  }
}

void RecoveryCore::Forget(Entry* entry, RecoveryEffects* out) {
  entry->task = nullptr;
  bytes_ -= std::exchange(entry->bytes, 0);
  if (std::exchange(entry->aged, false)) by_age_.erase(entry->age);
  const ObjectId args = std::exchange(entry->args_object, ObjectId::Nil());
  if (!args.IsNil()) out->push_back({.kind = RecoveryEffect::Kind::kRelease, .object = args});
}

void RecoveryCore::Unkeep(Map::iterator it, ErrorType why, RecoveryEffects* out) {
  Entry& entry = it->second;
  entry.why = why;
  if (entry.task == nullptr) return;
  Forget(&entry, out);
  // It keeps itself for the moment: a task needs only what was made before it, so none of them leads back here.
  ReleaseNeeds(std::exchange(entry.needs, {}), out);
}

void RecoveryCore::ReleaseNeeds(std::vector<TaskId> needs, RecoveryEffects* out) {
  // A work list: chains of tasks may be long.
  while (!needs.empty()) {
    auto it = entries_.find(needs.back());
    needs.pop_back();
    if (it == entries_.end() || --it->second.needed_by != 0) continue;
    Entry& entry = it->second;
    if (entry.running || !entry.live.empty()) continue;
    needs.insert(needs.end(), entry.needs.begin(), entry.needs.end());
    if (entry.task != nullptr) Forget(&entry, out);
    entries_.erase(it);
  }
}

void RecoveryCore::MaybeErase(Map::iterator it, RecoveryEffects* out) {
  Entry& entry = it->second;
  if (entry.running || entry.needed_by != 0 || !entry.live.empty()) return;
  Unkeep(it, entry.why, out);
  entries_.erase(it);
}

void RecoveryCore::Evict(RecoveryEffects* out) {
  auto at = by_age_.begin();
  while (bytes_ > cap_bytes_ && at != by_age_.end()) {
    auto it = entries_.find(*at);
    if (it->second.running) {
      ++at;
      continue;
    }
    Unkeep(it, ErrorType::kObjectUnreconstructableLineageEvicted, out);
    at = by_age_.begin();  // others may have gone with it
  }
}

void RecoveryCore::Ended(const End& end, RecoveryEffects* out) {
  auto it = entries_.find(end.id);
  if (it == entries_.end()) return;
  Entry& entry = it->second;
  entry.running = false;
  entry.passed.clear();
  entry.retries_left = end.retries_left;
  if (!end.ran) {
    Unkeep(it, end.failure, out);
  } else if (cap_bytes_ == 0) {
    Unkeep(it, ErrorType::kObjectUnreconstructableLineageDisabled, out);
  } else if (end.retries_left == 0) {
    Unkeep(it, end.retries_allowed ? ErrorType::kObjectUnreconstructableMaxAttempts : ErrorType::kObjectUnreconstructableRetriesDisabled,
           out);
  } else {
    Keep(it, end, out);
    entry.running = true;  // what goes now leaves this one alone
    Evict(out);
    entry.running = false;
    if (bytes_ > cap_bytes_) Unkeep(it, ErrorType::kObjectUnreconstructableLineageEvicted, out);
  }
  if (end.ran && end.items >= 0) {
    // The run came to its end without what is missing: it is another stream than before.
    for (auto at = entry.lost.begin(); at != entry.lost.end();) {
      const ObjectId id = *at++;
      if (static_cast<int64_t>(id.index()) - 2 < end.items) continue;
      entry.lost.erase(id);
      entry.live.erase(id);
      --lost_;
      out->push_back({.kind = RecoveryEffect::Kind::kFail, .object = id, .reason = ErrorType::kStreamingGeneratorReplayInconsistent});
    }
  }
  if (entry.lost.empty()) {
    MaybeErase(it, out);
  } else {
    Answer(it, out);
  }
}

std::vector<ObjectId> RecoveryCore::LostOf(const TaskId& task) const {
  auto it = entries_.find(task);
  if (it == entries_.end()) return {};
  return {it->second.lost.begin(), it->second.lost.end()};
}

bool RecoveryCore::IsAnyHeldBehind(const ObjectId& item) const {
  auto it = entries_.find(item.task_id());
  return it != entries_.end() && std::ranges::any_of(it->second.live, [&](const ObjectId& id) { return id.index() > item.index(); });
}

void RecoveryCore::Settled(const ObjectId& id, RecoveryEffects* out) {
  if (id.IsPut()) return;
  auto it = entries_.find(id.task_id());
  if (it == entries_.end()) return;
  lost_ -= it->second.lost.erase(id);
  it->second.live.erase(id);
  it->second.passed.erase(id);
  MaybeErase(it, out);
}

void RecoveryCore::Lost(const ObjectId& id, RecoveryEffects* out) {
  auto it = id.IsPut() ? entries_.end() : entries_.find(id.task_id());
  if (it == entries_.end()) {
    out->push_back({.kind = RecoveryEffect::Kind::kFail,
                    .object = id,
                    .reason = id.IsPut() ? ErrorType::kObjectUnreconstructablePut : ErrorType::kObjectUnreconstructableRefNotFound});
    return;
  }
  Entry& entry = it->second;
  entry.live.insert(id);
  if (entry.lost.insert(id).second) ++lost_;
  if (!entry.running) return Answer(it, out);
  if (entry.passed.erase(id) != 0) out->push_back({.kind = RecoveryEffect::Kind::kPassed, .object = id});
}

void RecoveryCore::Again(const TaskId& task) {
  if (auto it = entries_.find(task); it != entries_.end()) it->second.passed.clear();
}

void RecoveryCore::NotAgain(const ObjectId& id, ErrorType reason, RecoveryEffects* out) {
  auto it = entries_.find(id.task_id());
  if (it == entries_.end() || it->second.lost.erase(id) == 0) return;
  --lost_;
  it->second.live.erase(id);
  out->push_back({.kind = RecoveryEffect::Kind::kFail, .object = id, .reason = reason});
  MaybeErase(it, out);
}

void RecoveryCore::Answer(Map::iterator it, RecoveryEffects* out) {
  Entry& entry = it->second;
  if (entry.task != nullptr) {
    if (entry.retries_left > 0) --entry.retries_left;
    entry.running = true;
    out->push_back({.kind = RecoveryEffect::Kind::kRun, .task = entry.task, .retries_left = entry.retries_left});
    return;
  }
  for (const ObjectId& id : entry.lost) {
    out->push_back({.kind = RecoveryEffect::Kind::kFail, .object = id, .reason = entry.why});
    entry.live.erase(id);
  }
  lost_ -= entry.lost.size();
  entry.lost.clear();
  MaybeErase(it, out);
}

}  // namespace ray::core
