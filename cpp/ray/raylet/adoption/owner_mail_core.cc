#include "ray/raylet/adoption/owner_mail_core.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace ray::raylet {

uint64_t OwnerMailCore::Count(const Address& owner, const Address& receiver, std::vector<ObjectId> ids, Time now, OwnerMailEffects* out) {
  const uint64_t number = ++last_number_;
  Request& request = requests_[number];
  request.message = {number, owner, receiver, std::move(ids)};
  request.attempt.since = now;
  out->emplace_back(request.message);
  return number;
}

void OwnerMailCore::GiveBack(const Address& owner, const ObjectId& id, const WorkerId& registrar) {
  Returning& returning = returns_[owner.worker_id];
  returning.owner = owner;
  ++returning.next[{id, registrar}];
  // The owner looks at what is left behind that.
  if (const auto left = returning.next_left.find({id, registrar}); left != returning.next_left.end() && left->second != 0) --left->second;
  Gather(returning);
}

void OwnerMailCore::Tell(const Address& owner, const ObjectId& id, const WorkerId& registrar, uint32_t left) {
  Returning& returning = returns_[owner.worker_id];
  returning.owner = owner;
  returning.next_left[{id, registrar}] = left;
  Gather(returning);
}

void OwnerMailCore::Gather(const Returning& returning) {
  if (returning.message.number == 0) gathered_.insert(returning.owner.worker_id);
}

void OwnerMailCore::Flush(Time now, OwnerMailEffects* out) {
  for (const WorkerId& owner : std::exchange(gathered_, {})) SendNext(&returns_.at(owner), now, out);
}

void OwnerMailCore::SendNext(Returning* returning, Time now, OwnerMailEffects* out) {
  DropMessage(*returning);
  returning->message = {returning->owner, ++last_number_, {}, {}};
  for (const auto& [key, count] : std::exchange(returning->next, {})) returning->message.counts.push_back({key.first, key.second, count});
  for (const auto& [key, left] : std::exchange(returning->next_left, {})) returning->message.left.push_back({key.first, key.second, left});
  returning->attempt = {.since = now};
  returning_[last_number_] = returning->owner.worker_id;
  out->emplace_back(returning->message);
}

void OwnerMailCore::DropMessage(const Returning& returning) {
  EndPause(returning.message.number, returning.attempt);
  returning_.erase(returning.message.number);
}

std::map<WorkerId, OwnerMailCore::Returning>::iterator OwnerMailCore::Erase(std::map<WorkerId, Returning>::iterator it) {
  DropMessage(it->second);
  gathered_.erase(it->first);
  return returns_.erase(it);
}

void OwnerMailCore::OnAnswer(uint64_t number, OwnerMailEffects* out) {
  const auto node = requests_.extract(number);
  if (!node) return;
  EndPause(number, node.mapped().attempt);
  out->emplace_back(CountSettled{number});
}

void OwnerMailCore::OnMoved(uint64_t number, OwnerMailEffects* out) {
  const auto it = requests_.find(number);
  if (it == requests_.end()) return;
  const AskToCount& message = it->second.message;
  for (const ObjectId& id : message.ids) out->emplace_back(CountHere{id, message.receiver});
  OnAnswer(number, out);
}

void OwnerMailCore::OnReturned(const WorkerId& owner, uint64_t number, Time now, OwnerMailEffects* out) {
  const auto it = returns_.find(owner);
  if (it == returns_.end() || it->second.message.number != number) return;
  if (it->second.next.empty() && it->second.next_left.empty()) {
    Erase(it);
  } else {
    SendNext(&it->second, now, out);
  }
}

bool OwnerMailCore::Pause(uint64_t number, Attempt* attempt, Time now) {
  if (now - attempt->since >= config_.give_up) return false;
  EndPause(number, *attempt);
  attempt->pause = std::clamp(attempt->pause * 2, config_.first_pause, config_.longest_pause);
  attempt->again = now + attempt->pause;
  pauses_.emplace(attempt->again, number);
  return true;
}

void OwnerMailCore::OnSilence(uint64_t number, Time now, OwnerMailEffects* out) {
  if (const auto it = requests_.find(number); it != requests_.end()) {
    if (!Pause(number, &it->second.attempt, now)) OnAnswer(number, out);
  } else if (const auto owner = returning_.find(number); owner != returning_.end()) {
    const auto to = returns_.find(owner->second);
    if (!Pause(number, &to->second.attempt, now)) Erase(to);
  }
}

void OwnerMailCore::OwnerAdopted(const WorkerId& owner, uint64_t heard, OwnerMailEffects* out) {
  std::vector<uint64_t> moved;
  for (const auto& [number, request] : requests_) {
    if (request.message.owner.worker_id == owner) moved.push_back(number);
  }
  // It may have counted without our having its answer: rather a count too many, until its receiver ends, than one too few.
  for (const uint64_t number : moved) OnMoved(number, out);
  const auto it = returns_.find(owner);
  if (it == returns_.end()) return;
  const Returning& returning = it->second;
  if (returning.message.number > heard) {
    for (const auto& item : returning.message.counts) out->emplace_back(ReleaseHere{item.id, item.registrar, item.count});
  }
  for (const auto& [key, count] : returning.next) out->emplace_back(ReleaseHere{key.first, key.second, count});
  Erase(it);
}

template <typename Predicate>
void OwnerMailCore::SettleAll(Predicate whom, OwnerMailEffects* out) {
  for (auto it = requests_.begin(); it != requests_.end();) {
    const uint64_t number = it->first;
    const AskToCount& message = it++->second.message;
    if (whom(message.owner) || whom(message.receiver)) OnAnswer(number, out);
  }
  for (auto it = returns_.begin(); it != returns_.end();) it = whom(it->second.owner) ? Erase(it) : std::next(it);
}

void OwnerMailCore::WorkerDied(const WorkerId& worker, OwnerMailEffects* out) {
  SettleAll([&](const Address& process) { return process.worker_id == worker; }, out);
}

void OwnerMailCore::NodeDied(const NodeId& node, OwnerMailEffects* out) {
  SettleAll([&](const Address& process) { return process.node_id == node; }, out);
}

void OwnerMailCore::Tick(Time now, OwnerMailEffects* out) {
  const auto send_again = [&](auto* entry) {
    entry->attempt.again = Time::Infinite();
    out->emplace_back(entry->message);
  };
  while (!pauses_.empty() && pauses_.begin()->first <= now) {
    const uint64_t number = pauses_.extract(pauses_.begin()).value().second;
    if (const auto it = requests_.find(number); it != requests_.end()) {
      send_again(&it->second);
    } else {
      send_again(&returns_.at(returning_.at(number)));
    }
  }
}

Time OwnerMailCore::NextDeadline() const { return pauses_.empty() ? Time::Infinite() : pauses_.begin()->first; }

}  // namespace ray::raylet
