#include "ray/core_worker/submit/death_notes.h"

namespace ray::core {

void DeathNotes::Add(const WorkerId& worker, DeathNote note) {
  std::vector<std::function<void(const DeathNote&)>> callbacks;
  {
    MutexLock lock(&mu_);
    if (notes_.insert_or_assign(worker, note).second) order_.push_back(worker);
    if (order_.size() > kKept) {
      notes_.erase(order_.front());
      order_.pop_front();
    }
    if (auto it = waiting_.find(worker); it != waiting_.end()) {
      callbacks = std::move(it->second);
      waiting_.erase(it);
    }
  }
  for (auto& callback : callbacks) callback(note);
}

void DeathNotes::WhenKnown(const WorkerId& worker, std::function<void(const DeathNote&)> callback) {
  DeathNote note;
  {
    MutexLock lock(&mu_);
    auto it = notes_.find(worker);
    if (it == notes_.end()) {
      auto& callbacks = waiting_[worker];
      callbacks.push_back(std::move(callback));
      if (callbacks.size() == 1) loop_->AddTimer(kPatience, [this, worker] { Expire(worker); });
      return;
    }
    note = it->second;
  }
  callback(note);
}

void DeathNotes::Expire(const WorkerId& worker) {
  std::vector<std::function<void(const DeathNote&)>> callbacks;
  {
    MutexLock lock(&mu_);
    auto it = waiting_.find(worker);
    if (it == waiting_.end()) return;
    callbacks = std::move(it->second);
    waiting_.erase(it);
  }
  for (auto& callback : callbacks) callback(DeathNote{});
}

}  // namespace ray::core
