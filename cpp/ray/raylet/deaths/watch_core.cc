#include "ray/raylet/deaths/watch_core.h"

#include <algorithm>
#include <utility>

namespace ray::raylet {

void WatchCore::Watch(const Address& process, Time now, WatchEffects* out) {
  if (dead_.contains(process.node_id)) {  // whoever asks came later than the news of it
    out->emplace_back(ProcessEnded{process});
    return;
  }
  Node& node = nodes_[process.node_id];
  if (node.watched.contains(process.worker_id) || node.sent.contains(process.worker_id)) return;
  node.waiting.insert(process.worker_id);
  Pump(process.node_id, &node, now, out);
}

void WatchCore::Pump(const NodeId& id, Node* node, Time now, WatchEffects* out) {
  if (node->call != 0 || node->waiting.empty() || node->not_before > now) return;
  while (!node->waiting.empty() && node->sent.size() < config_.max_processes)
    node->sent.insert(node->waiting.extract(node->waiting.begin()));
  node->call = ++last_call_;
  out->emplace_back(AskNode{node->call, id, {node->sent.begin(), node->sent.end()}});
}

void WatchCore::OnAnswer(const NodeId& id, uint64_t call, bool answered, std::span<const WorkerId> ended, Time now, WatchEffects* out) {
  const auto it = nodes_.find(id);
  if (it == nodes_.end() || it->second.call != call) return;
  Node& node = it->second;
  node.call = 0;
  if (!answered) {
    node.waiting.merge(std::exchange(node.sent, {}));
    const int doublings = std::min(node.failures++, 20);
    node.not_before = now + std::min(config_.retry_max, config_.retry_min * (int64_t{1} << doublings));
    MaybeForget(it);
    return;
  }
  node.failures = 0;
  for (const WorkerId& worker : ended) {
    if (node.sent.erase(worker) != 0) out->emplace_back(ProcessEnded{{id, worker}});  // else that was told meanwhile
  }
  node.watched.merge(std::exchange(node.sent, {}));
  Pump(id, &node, now, out);
  MaybeForget(it);
}

void WatchCore::OnEnded(const Address& process) {
  const auto it = nodes_.find(process.node_id);
  if (it == nodes_.end()) return;
  for (auto* processes : {&it->second.waiting, &it->second.sent, &it->second.watched}) processes->erase(process.worker_id);
  MaybeForget(it);
}

void WatchCore::OnNodeDead(const NodeId& node) {
  dead_.insert(node);
  nodes_.erase(node);
}

void WatchCore::OnTimer(Time now, WatchEffects* out) {
  for (auto& [id, node] : nodes_) Pump(id, &node, now, out);
}

Time WatchCore::NextDeadline() const {
  Time next = Time::Infinite();
  for (const auto& [id, node] : nodes_) {
    if (node.call == 0 && !node.waiting.empty()) next = std::min(next, node.not_before);
  }
  return next;
}

size_t WatchCore::size() const {
  size_t n = 0;
  for (const auto& [id, node] : nodes_) n += node.waiting.size() + node.sent.size() + node.watched.size();
  return n;
}

void WatchCore::MaybeForget(std::map<NodeId, Node>::iterator it) {
  const Node& node = it->second;
  if (node.call == 0 && node.waiting.empty() && node.sent.empty() && node.watched.empty()) nodes_.erase(it);
}

}  // namespace ray::raylet
