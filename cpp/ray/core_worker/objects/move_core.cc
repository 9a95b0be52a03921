#include "ray/core_worker/objects/move_core.h"

#include <algorithm>
#include <utility>

namespace ray::core {

void MoveCore::Move(uint64_t question, const CopyRun& copy, const NodeId& node, MoveEffects* out) {
  const Key key{node, copy.id, copy.attempt};
  Attempt& move = moves_[key];
  move.questions.push_back(question);
  if (move.call == 0) Call(key, &move, /*bring=*/true, out);
}

void MoveCore::Call(const Key& key, Attempt* move, bool bring, MoveEffects* out) {
  move->call = ++last_call_;
  move->bring = bring;
  calls_.emplace(move->call, key);
  out->emplace_back(PullKept{move->call, CopyOf(key), std::get<NodeId>(key), bring});
}

void MoveCore::Answer(const Key& key, Attempt* move, bool safe, MoveEffects* out) {
  for (const uint64_t question : std::exchange(move->questions, {})) out->emplace_back(MoveAnswered{question, CopyOf(key), safe});
}

void MoveCore::OnAnswer(uint64_t call, Outcome outcome, Time now, MoveEffects* out) {
  const auto entry = calls_.extract(call);
  if (!entry) return;
  const Key key = entry.mapped();
  const auto it = moves_.find(key);
  Attempt& move = it->second;
  move.call = 0;
  if (outcome == Outcome::kNotSent) outcome = move.doubtful ? Outcome::kUnknown : Outcome::kNotThere;
  switch (outcome) {
    case Outcome::kThere:
      out->emplace_back(CopyKept{CopyOf(key), std::get<NodeId>(key)});
      Answer(key, &move, /*safe=*/true, out);
      moves_.erase(it);
      break;
    case Outcome::kNotThere:
      // Asked for again while it was only looked for.
      if (!move.bring && !move.questions.empty()) return Call(key, &move, /*bring=*/true, out);
      Answer(key, &move, /*safe=*/false, out);
      moves_.erase(it);
      break;
    default:
      Answer(key, &move, /*safe=*/false, out);
      move.doubtful = true;
      move.pause = std::clamp(move.pause * 2, config_.first_pause, config_.longest_pause);
      move.again = now + move.pause;
  }
}

void MoveCore::OnNodeDead(const NodeId& node, MoveEffects* out) {
  for (auto it = moves_.begin(); it != moves_.end();) {
    if (std::get<NodeId>(it->first) != node) {
      ++it;
      continue;
    }
    calls_.erase(it->second.call);
    Answer(it->first, &it->second, /*safe=*/false, out);
    it = moves_.erase(it);
  }
}

void MoveCore::OnTimer(Time now, MoveEffects* out) {
  for (auto& [key, move] : moves_) {
    if (move.call == 0 && move.again <= now) Call(key, &move, /*bring=*/false, out);
  }
}

Time MoveCore::NextDeadline() const {
  Time next = Time::Infinite();
  for (const auto& [key, move] : moves_) {
    if (move.call == 0) next = std::min(next, move.again);
  }
  return next;
}

}  // namespace ray::core
