#include "ray/core_worker/execute/run_queue_core.h"

#include <algorithm>

namespace ray::core {

void RunQueueCore::Configure(int32_t max_concurrency, const std::vector<std::pair<std::string, int32_t>>& groups) {
  groups_[0].limit = std::max(1, max_concurrency);
  for (const auto& [name, limit] : groups) groups_.push_back({name, std::max(1, limit)});
}

void RunQueueCore::AddTask(RunNo run, bool ready, bool in_order) {
  Item& item = items_[run];
  item.ready = ready;
  item.in_order = in_order;
  tasks_.push_back(run);
}

bool RunQueueCore::AddCall(RunNo run, uint64_t caller_no, uint64_t epoch, uint64_t sequence, const std::string& group, bool out_of_order,
                           bool ready) {
  Caller& caller = callers_[caller_no];
  if (epoch > caller.epoch) {
    // The calls of the old epoch that still wait will be sent again, or have been given up.
    for (const auto& [number, old] : caller.waiting) items_.erase(old);
    caller = Caller{epoch, 0, {}, {}};
  } else if (epoch < caller.epoch) {
    return false;
  }
  if (sequence < caller.next || caller.waiting.contains(sequence) || caller.passed.contains(sequence)) return false;
  Item& item = items_[run];
  item.call = true;
  item.ready = ready;
  item.out_of_order = out_of_order;
  item.caller = caller_no;
  item.sequence = sequence;
  for (size_t i = 1; !group.empty() && i < groups_.size(); ++i) {
    if (groups_[i].name == group) item.group = i;
  }
  if (out_of_order) {
    if (ready) Release(run, item);
    caller.passed.insert(sequence);
    Advance(caller);
  } else if (ready && sequence == caller.next) {  // the usual case: no map is touched
    ++caller.next;
    Release(run, item);
    Advance(caller);
  } else {
    caller.waiting.emplace(sequence, run);
  }
  return true;
}

void RunQueueCore::Advance(Caller& caller) {
  while (!caller.waiting.empty() || !caller.passed.empty()) {
    if (!caller.passed.empty() && *caller.passed.begin() == caller.next) {
      caller.passed.erase(caller.passed.begin());
      ++caller.next;
      continue;
    }
    auto it = caller.waiting.begin();
    if (it == caller.waiting.end() || it->first != caller.next) return;
    Item& item = items_.at(it->second);
    if (!item.ready) return;
    Release(it->second, item);
    caller.waiting.erase(it);
    ++caller.next;
  }
}

void RunQueueCore::Advance(uint64_t caller_no) {
  const auto it = callers_.find(caller_no);
  if (it == callers_.end()) return;
  Advance(it->second);
  if (it->second.gone && it->second.waiting.empty()) callers_.erase(it);
}

void RunQueueCore::Release(RunNo run, Item& item) {
  item.released = true;
  groups_[item.group].runnable.push_back(run);
}

void RunQueueCore::SetReady(RunNo run) {
  auto it = items_.find(run);
  if (it == items_.end() || it->second.ready) return;
  Item& item = it->second;
  item.ready = true;
  if (!item.call) return;
  if (item.out_of_order) {
    Release(run, item);
  } else {
    Advance(item.caller);
  }
}

std::optional<RunNo> RunQueueCore::Next() {
  for (Group& group : groups_) {
    while (group.running < group.limit && !group.runnable.empty()) {
      RunNo run = group.runnable.front();
      group.runnable.pop_front();
      auto it = items_.find(run);
      if (it == items_.end()) continue;
      it->second.running = true;
      ++group.running;
      ++running_;
      return run;
    }
  }
  if (groups_[0].running >= groups_[0].limit) return std::nullopt;
  for (auto t = tasks_.begin(); t != tasks_.end();) {
    auto it = items_.find(*t);
    if (it == items_.end()) {
      t = tasks_.erase(t);
      continue;
    }
    if (it->second.ready) {
      RunNo run = *t;
      tasks_.erase(t);
      it->second.running = true;
      ++groups_[0].running;
      ++running_;
      return run;
    }
    if (it->second.in_order) break;
    ++t;
  }
  return std::nullopt;
}

std::optional<RunNo> RunQueueCore::Peek() const {
  for (const Group& group : groups_) {
    if (group.running < group.limit && !group.runnable.empty()) return group.runnable.front();
  }
  if (tasks_.empty() || groups_[0].running >= groups_[0].limit) return std::nullopt;
  auto it = items_.find(tasks_.front());
  if (it == items_.end() || !it->second.ready) return std::nullopt;
  return tasks_.front();
}

bool RunQueueCore::IsStalled() const { return !items_.empty() && running_ == 0 && !HasRunnable(); }

bool RunQueueCore::HasRunnable() const {
  for (const Group& group : groups_) {
    if (group.running < group.limit && !group.runnable.empty()) return true;
  }
  if (groups_[0].running >= groups_[0].limit) return false;
  for (RunNo run : tasks_) {
    const auto it = items_.find(run);
    if (it == items_.end()) continue;
    if (it->second.ready) return true;
    if (it->second.in_order) return false;
  }
  return false;
}

void RunQueueCore::Finished(RunNo run) {
  auto it = items_.find(run);
  if (it == items_.end() || !it->second.running) return;
  --groups_[it->second.group].running;
  --running_;
  items_.erase(it);
}

bool RunQueueCore::Remove(RunNo run) {
  auto it = items_.find(run);
  if (it == items_.end() || it->second.running) return false;
  Item item = it->second;
  items_.erase(it);
  if (item.call && !item.released && !item.out_of_order) {
    Caller& caller = callers_.at(item.caller);
    caller.waiting.erase(item.sequence);
    caller.passed.insert(item.sequence);
    Advance(item.caller);
  }
  return true;
}

std::vector<RunNo> RunQueueCore::TakeUnstarted(uint32_t max) {
  std::vector<RunNo> taken;
  while (!tasks_.empty() && (max == 0 || taken.size() < max)) {
    if (items_.erase(tasks_.back()) > 0) taken.push_back(tasks_.back());
    tasks_.pop_back();
  }
  return taken;
}

std::vector<RunNo> RunQueueCore::DropCaller(uint64_t caller_no) {
  std::vector<RunNo> dropped;
  auto it = callers_.find(caller_no);
  if (it == callers_.end()) return dropped;
  // What has come in order is still run: a caller may send and leave. The first gap ends that.
  uint64_t next = it->second.next;
  for (const auto& [number, run] : it->second.waiting) {
    while (it->second.passed.contains(next)) ++next;
    if (number == next) {
      ++next;
    } else {
      items_.erase(run);
      dropped.push_back(run);
    }
  }
  std::erase_if(it->second.waiting, [&](const auto& w) { return w.first >= next; });
  it->second.gone = true;
  if (it->second.waiting.empty()) callers_.erase(it);
  return dropped;
}

}  // namespace ray::core
