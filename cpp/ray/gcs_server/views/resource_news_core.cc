#include "ray/gcs_server/views/resource_news_core.h"

#include <algorithm>
#include <utility>

namespace ray::gcs {

void ResourceNewsCore::Changed(const NodeId& id, bool whole) {
  const auto [it, added] = nodes_.try_emplace(id);
  Node& node = it->second;
  if (added) {
    node.number = static_cast<uint32_t>(nodes_.size());
    if (!free_numbers_.empty()) node.number = free_numbers_.extract(free_numbers_.begin()).value();
  } else {
    by_change_.erase(node.changed);
  }
  node.changed = ++change_;
  by_change_.emplace_hint(by_change_.end(), change_, id);
  if (added || whole) whole_.insert(id);
  behind_ = true;
}

void ResourceNewsCore::Gone(const NodeId& id) {
  const auto it = nodes_.find(id);
  if (it == nodes_.end()) return;
  by_change_.erase(it->second.changed);
  free_numbers_.insert(it->second.number);
  nodes_.erase(it);
  whole_.erase(id);
  gone_.insert(id);
}

void ResourceNewsCore::Joins(const NodeId& id, Messages* out) {
  const auto it = nodes_.find(id);
  if (it == nodes_.end()) return;
  it->second.joined = true;
  it->second.told = change_;
  Message message{{id}, {}, {}, {}};
  for (const auto& [other, node] : nodes_) message.whole.push_back(other);
  out->push_back(std::move(message));
}

void ResourceNewsCore::Leaves(const NodeId& id) {
  if (const auto it = nodes_.find(id); it != nodes_.end()) it->second.joined = false;
}

void ResourceNewsCore::LooksElsewhere(const NodeId& id, bool looks, Messages* out) {
  const auto it = nodes_.find(id);
  if (it == nodes_.end() || std::exchange(it->second.looks, looks) == looks || !looks || !it->second.joined) return;
  Message message = Since(std::exchange(it->second.told, change_), /*free=*/true);
  message.to = {id};
  if (!message.whole.empty() || !message.free.empty() || !message.gone.empty()) out->push_back(std::move(message));
}

ResourceNewsCore::Message ResourceNewsCore::Since(uint64_t told, bool free) const {
  Message message;
  message.whole.assign(whole_.begin(), whole_.end());
  message.gone.assign(gone_.begin(), gone_.end());
  if (!free) return message;
  for (auto it = by_change_.upper_bound(told); it != by_change_.end(); ++it) {
    if (!whole_.contains(it->second)) message.free.push_back(it->second);
  }
  return message;
}

void ResourceNewsCore::Tick(Time now, Messages* out) {
  if (now < next_round_ || NextDue().is_infinite()) return;
  std::map<uint64_t, Message> by_mark;  // told up to there
  Message others;                       // who are not told of what is free this time
  const auto add = [&](const NodeId& id, Node* node) {
    const auto [it, added] = by_mark.try_emplace(node->told);
    if (added) it->second = Since(node->told, /*free=*/true);
    it->second.to.push_back(id);
    node->told = change_;
    return static_cast<int64_t>(it->second.free.size() + it->second.whole.size());
  };
  int64_t views = 0, idle_views = 0;
  behind_ = false;
  for (auto& [id, node] : nodes_) {
    if (node.joined && node.looks) views += add(id, &node);
  }
  const int64_t idle_share = config_.idle_views_per_second * config_.interval.count() / Duration(std::chrono::seconds(1)).count();
  auto turn = nodes_.upper_bound(last_idle_);
  for (size_t i = 0; i < nodes_.size(); ++i, ++turn) {
    if (turn == nodes_.end()) turn = nodes_.begin();
    auto& [id, node] = *turn;
    if (!node.joined || node.looks || (node.told == change_ && whole_.empty() && gone_.empty())) continue;
    if (idle_views < idle_share) {
      idle_views += add(id, &node);
      last_idle_ = id;
    } else {
      behind_ |= node.told != change_;
      others.to.push_back(id);
    }
  }
  if (!others.to.empty()) {
    Message news = Since(change_, /*free=*/false);
    std::swap(news.to, others.to);
    by_mark.emplace(UINT64_MAX, std::move(news));
  }
  whole_.clear();
  gone_.clear();
  for (auto& [mark, message] : by_mark) {
    if (message.gone.empty() && message.whole.size() + message.free.size() <= 1) {  // nobody is told of itself alone
      const NodeId of = message.whole.empty() ? message.free.empty() ? NodeId::Nil() : message.free.front() : message.whole.front();
      std::erase(message.to, of);
      if (of.IsNil() || message.to.empty()) continue;
    }
    out->push_back(std::move(message));
  }
  next_round_ =
      now + std::max(config_.interval, std::chrono::duration_cast<Duration>(std::chrono::seconds(views)) / config_.views_per_second);
}

uint32_t ResourceNewsCore::NumberOf(const NodeId& id) const {
  const auto it = nodes_.find(id);
  return it == nodes_.end() ? 0 : it->second.number;
}

}  // namespace ray::gcs
