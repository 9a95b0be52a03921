#include "ray/object_manager/transfer/copy_notice_core.h"

#include <algorithm>
#include <utility>

namespace ray::object_manager {

void CopyNoticeCore::Add(const NodeId& node, std::span<const CopyRun> copies, Time now, CopyNoticeEffects* out) {
  if (copies.empty() || dead_.contains(node)) return;
  Node& to = nodes_[node];
  to.waiting.insert(to.waiting.end(), copies.begin(), copies.end());
  Pump(node, &to, now, out);
}

void CopyNoticeCore::Pump(const NodeId& id, Node* node, Time now, CopyNoticeEffects* out) {
  if (node->call != 0 || node->not_before > now) return;
  if (node->waiting.size() <= config_.max_copies) {
    node->sent = std::exchange(node->waiting, {});
  } else {
    const auto end = node->waiting.begin() + static_cast<std::ptrdiff_t>(config_.max_copies);
    node->sent.assign(node->waiting.begin(), end);
    node->waiting.erase(node->waiting.begin(), end);
  }
  node->call = ++last_call_;
  out->push_back(NoticeWanted{node->call, id, node->sent});
}

void CopyNoticeCore::OnAnswer(const NodeId& node, uint64_t call, bool confirmed, Time now, CopyNoticeEffects* out) {
  const auto it = nodes_.find(node);
  if (it == nodes_.end() || it->second.call != call) return;
  Node& to = it->second;
  to.call = 0;
  if (confirmed) {
    to.sent.clear();
    to.failures = 0;
    if (to.waiting.empty()) {
      nodes_.erase(it);
    } else {
      Pump(node, &to, now, out);
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
  nodes_.erase(node);
}

void CopyNoticeCore::OnTimer(Time now, CopyNoticeEffects* out) {
  for (auto& [id, node] : nodes_) Pump(id, &node, now, out);
}

Time CopyNoticeCore::NextDeadline() const {
  Time next = Time::Infinite();
  for (const auto& [id, node] : nodes_) {
    if (node.call == 0) next = std::min(next, node.not_before);
  }
  return next;
}

}  // namespace ray::object_manager
