#include "ray/raylet/adoption/owner_mail_core.h"

#include <algorithm>

namespace ray::raylet {

uint64_t OwnerMailCore::Count(const Address& owner, const Address& receiver, std::vector<ObjectId> ids, Time now, OwnerMailEffects* out) {
  const uint64_t number = ++last_number_;
  Request& request = requests_[number];
  request.message = {number, owner, receiver, std::move(ids)};
  request.attempt.since = now;
  out->emplace_back(request.message);
  return number;
}

void OwnerMailCore::GiveBack(const Address& owner, const ObjectId& id) {
  Returning& returning = returns_[owner.worker_id];
  returning.owner = owner;
  ++returning.next[id];
}

void OwnerMailCore::Flush(Time now, OwnerMailEffects* out) {
  for (auto& [owner, returning] : returns_) {
    if (returning.message.counts.empty()) SendNext(&returning, now, out);
  }
}

void OwnerMailCore::SendNext(Returning* returning, Time now, OwnerMailEffects* out) {
  returning->message = {returning->owner, ++last_number_, {returning->next.begin(), returning->next.end()}};
  returning->next.clear();
  returning->attempt = {.since = now};
  out->emplace_back(returning->message);
}

void OwnerMailCore::OnAnswer(uint64_t number, OwnerMailEffects* out) {
  if (requests_.erase(number) != 0) out->emplace_back(CountSettled{number});
}

void OwnerMailCore::OnMoved(uint64_t number, OwnerMailEffects* out) {
  const auto node = requests_.extract(number);
  if (!node) return;
  const AskToCount& message = node.mapped().message;
  for (const ObjectId& id : message.ids) out->emplace_back(CountHere{id, message.receiver});
  out->emplace_back(CountSettled{number});
}

void OwnerMailCore::OnReturned(const WorkerId& owner, uint64_t number, Time now, OwnerMailEffects* out) {
  const auto it = returns_.find(owner);
  if (it == returns_.end() || it->second.message.number != number) return;
  if (it->second.next.empty()) {
    returns_.erase(it);
  } else {
    SendNext(&it->second, now, out);
  }
}

bool OwnerMailCore::Pause(Attempt* attempt, Time now) const {
  if (now - attempt->since >= config_.give_up) return false;
  attempt->pause = std::clamp(attempt->pause * 2, config_.first_pause, config_.longest_pause);
  attempt->again = now + attempt->pause;
  return true;
}

void OwnerMailCore::OnSilence(uint64_t number, Time now, OwnerMailEffects* out) {
  if (const auto it = requests_.find(number); it != requests_.end()) {
    if (!Pause(&it->second.attempt, now)) OnAnswer(number, out);
    return;
  }
  const auto it = std::ranges::find_if(returns_, [&](const auto& entry) { return entry.second.message.number == number; });
  if (it != returns_.end() && !Pause(&it->second.attempt, now)) returns_.erase(it);
}

void OwnerMailCore::OwnerAdopted(const WorkerId& owner, uint64_t heard, OwnerMailEffects* out) {
  std::vector<uint64_t> moved;
  for (const auto& [number, request] : requests_) {
    if (request.message.owner.worker_id == owner) moved.push_back(number);
  }
  // It may have counted without our having its answer: rather a count too many, until its receiver ends, than one too few.
  for (const uint64_t number : moved) OnMoved(number, out);
  const auto node = returns_.extract(owner);
  if (!node) return;
  const Returning& returning = node.mapped();
  if (returning.message.number > heard) {
    for (const auto& [id, count] : returning.message.counts) out->emplace_back(ReleaseHere{id, count});
  }
  for (const auto& [id, count] : returning.next) out->emplace_back(ReleaseHere{id, count});
}

void OwnerMailCore::WorkerDied(const WorkerId& worker, OwnerMailEffects* out) {
  returns_.erase(worker);
  std::erase_if(requests_, [&](const auto& entry) {
    const AskToCount& message = entry.second.message;
    if (message.owner.worker_id != worker && message.receiver.worker_id != worker) return false;
    out->emplace_back(CountSettled{entry.first});
    return true;
  });
}

void OwnerMailCore::NodeDied(const NodeId& node, OwnerMailEffects* out) {
  std::erase_if(returns_, [&](const auto& entry) { return entry.second.owner.node_id == node; });
  std::erase_if(requests_, [&](const auto& entry) {
    const AskToCount& message = entry.second.message;
    if (message.owner.node_id != node && message.receiver.node_id != node) return false;
    out->emplace_back(CountSettled{entry.first});
    return true;
  });
}

void OwnerMailCore::Tick(Time now, OwnerMailEffects* out) {
  const auto send_again = [&](auto* entry) {
    if (entry->attempt.again > now) return;
    entry->attempt.again = Time::Infinite();
    out->emplace_back(entry->message);
  };
  for (auto& [number, request] : requests_) send_again(&request);
  for (auto& [owner, returning] : returns_) send_again(&returning);
}

Time OwnerMailCore::NextDeadline() const {
  Time next = Time::Infinite();
  for (const auto& [number, request] : requests_) next = std::min(next, request.attempt.again);
  for (const auto& [owner, returning] : returns_) next = std::min(next, returning.attempt.again);
  return next;
}

}  // namespace ray::raylet
