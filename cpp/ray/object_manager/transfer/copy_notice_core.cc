#include "ray/object_manager/transfer/copy_notice_core.h"

#include <algorithm>
#include <utility>

namespace ray::object_manager {

void CopyNoticeCore::Add(const Address& to, std::span<const CopyRun> copies, Time now, CopyNoticeEffects* out) {
  if (copies.empty() || dead_.contains(to.node_id)) return;
  Listener& listener = listeners_[to];
  listener.waiting.insert(listener.waiting.end(), copies.begin(), copies.end());
  Pump(to, &listener, now, out);
}

void CopyNoticeCore::Pump(const Address& to, Listener* listener, Time now, CopyNoticeEffects* out) {
  if (listener->call != 0 || listener->not_before > now) return;
  if (listener->waiting.size() <= config_.max_copies) {
    listener->sent = std::exchange(listener->waiting, {});
  } else {
    const auto end = listener->waiting.begin() + static_cast<std::ptrdiff_t>(config_.max_copies);
    listener->sent.assign(listener->waiting.begin(), end);
    listener->waiting.erase(listener->waiting.begin(), end);
  }
  listener->call = ++last_call_;
  out->push_back(NoticeWanted{listener->call, to, listener->sent});
}

void CopyNoticeCore::OnAnswer(const Address& process, uint64_t call, bool confirmed, Time now, CopyNoticeEffects* out) {
  const auto it = listeners_.find(process);
  if (it == listeners_.end() || it->second.call != call) return;
  Listener& to = it->second;
  to.call = 0;
  if (confirmed) {
    to.sent.clear();
    to.failures = 0;
    if (to.waiting.empty()) {
      listeners_.erase(it);
    } else {
      Pump(process, &to, now, out);
    }
    return;
  }
  to.waiting.insert(to.waiting.begin(), to.sent.begin(), to.sent.end());
  to.sent.clear();
  const int doublings = std::min(to.failures++, 20);
  to.not_before = now + std::min(config_.retry_max, config_.retry_min * (int64_t{1} << doublings));
}

void CopyNoticeCore::OnNodeDead(const NodeId& node) {
  dead_.insert(node);
  std::erase_if(listeners_, [&](const auto& entry) { return entry.first.node_id == node; });
}

void CopyNoticeCore::OnTimer(Time now, CopyNoticeEffects* out) {
  for (auto& [to, listener] : listeners_) Pump(to, &listener, now, out);
}

Time CopyNoticeCore::NextDeadline() const {
  Time next = Time::Infinite();
  for (const auto& [to, listener] : listeners_) {
    if (listener.call == 0) next = std::min(next, listener.not_before);
  }
  return next;
}

}  // namespace ray::object_manager
