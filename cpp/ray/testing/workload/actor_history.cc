#include "ray/testing/workload/actor_history.h"

#include <algorithm>

namespace ray::sim {
namespace {

std::string Text(CallId call) { return "call " + std::to_string(call.number) + " of caller " + std::to_string(call.caller); }
std::string Text(LogPlace place) { return "place " + std::to_string(place.index) + " of incarnation " + std::to_string(place.incarnation); }

}  // namespace

void ActorHistory::Note(std::string fault) {
  if (fault_.empty()) fault_ = std::move(fault);
}

void ActorHistory::Submitted(CallId call, int32_t retries, Time now) {
  Call record;
  record.retries = retries;
  record.submitted = now;
  if (!calls_.emplace(call, record).second) Note(Text(call) + " was made twice");
}

void ActorHistory::Executed(CallId call, LogPlace place, Time now) {
  const auto it = calls_.find(call);
  if (it == calls_.end()) return Note(Text(call) + " was run and never made");
  if (!log_.emplace(place, Entry{call, now}).second) Note(Text(place) + " was taken twice");
  const int32_t runs = ++it->second.runs;
  if (it->second.retries >= 0 && runs > it->second.retries + 1)
    Note(Text(call) + " ran " + std::to_string(runs) + " times, with " + std::to_string(it->second.retries) + " retries");
}

void ActorHistory::Settled(CallId call, CallOutcome outcome, LogPlace place, Time now) {
  const auto it = calls_.find(call);
  if (it == calls_.end()) return Note(Text(call) + " was settled and never made");
  if (it->second.outcome) return Note(Text(call) + " has two outcomes");
  it->second.outcome = outcome;
  it->second.place = place;
  it->second.settled = now;
}

void ActorHistory::CallerDied(uint64_t caller) { dead_callers_.insert(caller); }

size_t ActorHistory::settled(CallOutcome outcome) const {
  return static_cast<size_t>(std::count_if(calls_.begin(), calls_.end(), [&](const auto& c) { return c.second.outcome == outcome; }));
}

std::string ActorHistory::Check(bool at_rest) const {
  if (!fault_.empty()) return fault_;
  for (const auto& [id, call] : calls_) {
    if (at_rest && !call.outcome && !dead_callers_.contains(id.caller)) return Text(id) + " has no outcome";
  }
  if (std::string fault = CheckPlaces(); !fault.empty()) return fault;
  return CheckRealTime();
}

std::string ActorHistory::CheckPlaces() const {
  std::map<LogPlace, CallId> told;
  const std::pair<const CallId, Call>* before = nullptr;  // the last call of the same caller that was done
  for (const auto& entry : calls_) {
    const auto& [id, call] = entry;
    if (call.outcome != CallOutcome::kDone) continue;
    const auto run = log_.find(call.place);
    if (run == log_.end() || run->second.call != id) return Text(id) + " was given " + Text(call.place) + ", where it is not";
    if (run->second.at < call.submitted || run->second.at > call.settled) return Text(id) + " did not run between its call and its answer";
    if (const auto [other, is_new] = told.emplace(call.place, id); !is_new)
      return Text(id) + " was given " + Text(call.place) + ", as was " + Text(other->second);
    if (before != nullptr && before->first.caller == id.caller && before->second.place > call.place)
      return Text(id) + " overtook " + Text(before->first) + ": " + Text(call.place) + " is before " + Text(before->second.place);
    before = &entry;
  }
  return {};
}

std::string ActorHistory::CheckRealTime() const {
  std::vector<const std::pair<const CallId, Call>*> by_call, by_answer;
  for (const auto& entry : calls_) {
    if (entry.second.outcome == CallOutcome::kDone) by_call.push_back(&entry);
  }
  by_answer = by_call;
  std::ranges::stable_sort(by_call, {}, [](const auto* e) { return e->second.submitted; });
  std::ranges::stable_sort(by_answer, {}, [](const auto* e) { return e->second.settled; });
  const std::pair<const CallId, Call>* last = nullptr;  // of those that were answered before `entry` was made, the last in the log
  size_t answered = 0;
  for (const auto* entry : by_call) {
    for (; by_answer[answered]->second.settled < entry->second.submitted; ++answered) {
      if (last == nullptr || last->second.place < by_answer[answered]->second.place) last = by_answer[answered];
    }
    if (last != nullptr && entry->second.place < last->second.place)
      return Text(entry->first) + " was made after " + Text(last->first) + " was answered, and comes before it in the log";
  }
  return {};
}

}  // namespace ray::sim
